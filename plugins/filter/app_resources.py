# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: app_resources
short_description: What the services of a host come to
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Turns RV(ignore:app_services), the variable of the role P(berth.platform.app#role), into what
    the modules that carry it out take, such as files and releases.
  - Every fault of every service is reported in one error. Values of environment variables and
    credentials are never part of it.
positional: _input
options:
  _input:
    description: The services.
    type: list
    elements: dict
    required: true
  scope:
    description: Name of the platform that the services belong to.
    type: str
    default: ""
  play_hosts:
    description: The hosts of the play.
    type: list
    elements: str
    default: []
  this_host:
    description:
      - The host that this is for. Of a service that names C(migrate_hosts), the first of them that
        is in O(play_hosts) migrates.
    type: str
    default: ""
seealso:
  - module: berth.platform.files
  - module: berth.platform.release
  - module: berth.platform.units
"""

EXAMPLES = r"""
- name: Units and environment files are in place
  berth.platform.files:
    files: "{{ (app_services | berth.platform.app_resources).files }}"
"""

RETURN = r"""
_value:
  description:
    - C(packages), C(groups), C(users), C(files) and C(exclusive) for M(berth.platform.files),
      C(releases) and C(watched) for M(berth.platform.release), C(units) for
      P(berth.platform.app_unit_orders#filter).
    - By the name of the unit without C(.service), C(probes) for M(berth.platform.health_probe)
      and C(logs) for M(berth.platform.service_logs).
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.app_services import resources
from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import UnitError


def app_resources(
    services: Any, scope: str = "", play_hosts: Sequence[str] = (), this_host: str = ""
) -> dict[str, Any]:
    if not isinstance(services, Sequence) or not all(isinstance(s, Mapping) for s in services):
        raise AnsibleFilterError("app_resources: the services are not a list of mappings")
    try:
        return resources(services, scope, play_hosts, this_host)
    except UnitError as error:
        raise AnsibleFilterError("app_services is faulty:\n" + "\n".join(error.faults)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_resources": app_resources}
