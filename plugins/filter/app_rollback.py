# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter app_rollback: the versions that services go back to."""

from __future__ import annotations

DOCUMENTATION = r"""
name: app_rollback
short_description: The versions that services go back to
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - The release that was active before, or the one that is named. An error says which are there.
options:
  _input:
    description: The RV(berth.platform.deploy_info#module:services) of a host.
    type: dict
    required: true
  version:
    description: The release to go back to. By default the one before.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Versions are known
  ansible.builtin.set_fact:
    versions: "{{ known.services | berth.platform.app_rollback }}"
"""

RETURN = r"""
_value:
  description: Versions by the names of the services.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.app_services import (
    rollback_versions,
)


def app_rollback(known: Mapping[str, Any], version: str = "") -> dict[str, str]:
    try:
        return rollback_versions(known, str(version))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_rollback": app_rollback}
