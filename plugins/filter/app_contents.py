# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: app_contents
short_description: Files and releases of the services of a host
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Turns RV(ignore:app_services), the variable of the role P(berth.platform.app#role), into the
    files and releases that bring the services in place.
  - The answer holds secrets, so it is made where it is used and not kept in a fact.
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
  - plugin: berth.platform.app_resources
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Units and environment files are in place
  berth.platform.files:
    files: "{{ (app_services | berth.platform.app_contents).files }}"
"""

RETURN = r"""
_value:
  description:
    - C(files) for M(berth.platform.files) and C(releases) for M(berth.platform.release).
    - C(placeable) are those of the releases that can be in place before any package is, without
      being switched to.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.app_services import resources
from ansible_collections.berth.platform.plugins.module_utils.release import placeable
from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import UnitError


def app_contents(
    services: Any, scope: str = "", play_hosts: Sequence[str] = (), this_host: str = ""
) -> dict[str, Any]:
    if not isinstance(services, Sequence) or not all(isinstance(s, Mapping) for s in services):
        raise AnsibleFilterError("app_contents: the services are not a list of mappings")
    try:
        found = resources(services, scope, play_hosts, this_host)
    except UnitError as error:
        raise AnsibleFilterError("app_services is faulty:\n" + "\n".join(error.faults)) from error
    releases = found["releases"]
    return {"files": found["files"], "releases": releases, "placeable": placeable(releases)}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_contents": app_contents}
