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
  - Nothing in the answer is secret. Files and releases, which can hold secrets, are given by
    P(berth.platform.app_contents#filter).
  - Every fault of every service is reported in one error. Values of environment variables and
    credentials are never part of it.
positional: _input
options:
  _input:
    description: The services.
    type: list
    elements: dict
    required: true
seealso:
  - plugin: berth.platform.app_contents
    plugin_type: filter
"""

EXAMPLES = r"""
- name: What the services need is known
  ansible.builtin.set_fact:
    resources: "{{ app_services | berth.platform.app_resources }}"
"""

RETURN = r"""
_value:
  description:
    - C(packages), C(groups) and C(users) that they need, C(exclusive) for M(berth.platform.files),
      C(watched) for M(berth.platform.release), C(units) for
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


def app_resources(services: Any) -> dict[str, Any]:
    if not isinstance(services, Sequence) or not all(isinstance(s, Mapping) for s in services):
        raise AnsibleFilterError("app_resources: the services are not a list of mappings")
    try:
        found = resources(services)
    except UnitError as error:
        raise AnsibleFilterError("app_services is faulty:\n" + "\n".join(error.faults)) from error
    return {key: value for key, value in found.items() if key not in ("files", "releases")}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_resources": app_resources}
