# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: units_due
short_description: Those units that are not yet as they are wanted, by the facts of the host
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Compares units as M(berth.platform.units) wants them with those that
    M(berth.platform.host_facts) has found, so that a host where all is well is not asked again.
positional: _input, facts
options:
  _input:
    description:
      - Units as for M(berth.platform.units). Omitted items and keys are left out, and items whose
        name is omitted.
      - C(restarted) and C(reloaded) are always due.
    type: list
    elements: dict
    required: true
  facts:
    description: The C(units) of the fact C(berth_host).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Services run
  berth.platform.units:
    units: "{{ wanted | berth.platform.units_due(ansible_facts.berth_host.units) }}"
  when: wanted | berth.platform.units_due(ansible_facts.berth_host.units) | length > 0
  vars:
    wanted:
      - {name: nginx.service, enabled: true, state: started}
"""

RETURN = r"""
_value:
  description: The units that are due, as they were given.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

ENABLED = ("enabled", "static", "generated", "alias", "linked")


def _right(unit: Mapping[str, Any], fact: Mapping[str, Any]) -> bool:
    """Whether a unit is as it is wanted."""
    state = fact.get("enabled")
    if unit.get("masked") is not None and unit["masked"] != (state == "masked"):
        return False
    if unit.get("enabled") is not None and unit["enabled"] != (state in ENABLED):
        return False
    wanted = {None: None, "started": "active", "stopped": "inactive"}.get(unit.get("state"), "")
    return wanted is None or fact.get("active") == wanted


def units_due(units: Iterable[Any], facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The units that are not as they are wanted; an unknown one is due."""
    given: list[dict[str, Any]] = [
        # What Ansible's omit stands for is neither.
        {key: value for key, value in unit.items() if isinstance(value, (str, bool))}
        for unit in units
        if isinstance(unit, Mapping) and isinstance(unit.get("name"), str)
    ]
    return [
        unit for unit in given if unit["name"] not in facts or not _right(unit, facts[unit["name"]])
    ]


class FilterModule:
    """The collection's filter for units."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function."""
        return {"units_due": units_due}
