# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter app_chosen: the services of a host that a deploy is about, at the version it brings."""

from __future__ import annotations

DOCUMENTATION = r"""
name: app_chosen
short_description: Services of a host that a deploy is about
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Of the planned services of a host those that were asked for, at the version that was asked for.
options:
  _input:
    description: The C(hosts) of a plan.
    type: dict
    required: true
  host:
    description: The host.
    type: str
    required: true
  services:
    description: Their names, separated by commas, or V(all).
    type: str
    required: true
  version:
    description:
      - The version of all of them. A tag or commit of those that come from git; the name of the
        release for all. Without one it is what is planned.
    type: str
    default: ""
  versions:
    description: The version of each, by its name, for releases that are on the host already.
    type: dict
    default: {}
  url:
    description: Where the version is, for a service that comes from a URL.
    type: str
    default: ""
  checksum:
    description: The checksum of O(url).
    type: str
    default: ""
seealso:
  - plugin: berth.platform.app_contents
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Sales is deployed
  ansible.builtin.import_role:
    name: berth.platform.app
  vars:
    app_services: >-
      {{ berth_plan.hosts | berth.platform.app_chosen(inventory_hostname, 'sales', 'v1.4.2') }}
"""

RETURN = r"""
_value:
  description: Entries for C(app_services) of P(berth.platform.app#role).
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.app_services import chosen


def app_chosen(
    hosts: Any,
    host: str,
    services: str,
    version: str = "",
    versions: Mapping[str, str] | None = None,
    url: str = "",
    checksum: str = "",
) -> list[dict[str, Any]]:
    try:
        return chosen(
            hosts,
            host,
            str(services),
            str(version),
            versions=versions or {},
            url=url,
            checksum=checksum,
        )
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"app_chosen: this is no plan: {error}") from error
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_chosen": app_chosen}
