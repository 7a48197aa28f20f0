# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: schema_registry_faults
short_description: What is wrong with a schema registry's variables
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the role's variables together, before a host is touched.
positional: heap
options:
  _input:
    description:
      - The registry, with C(address), C(port), C(management_port), C(brokers), C(user),
        C(password), C(topic), C(compatibility) and C(data_directory), as the role's variables.
    type: dict
    required: true
  heap:
    description: The JVM's heap.
    type: str
    required: true
  given:
    description: Settings by key.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Nothing is wrong
  ansible.builtin.assert:
    that: registry | berth.platform.schema_registry_faults('512m') == []
"""

RETURN = r"""
_value:
  description: Each fault with its key and what would be right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.schema_registry import faults


def schema_registry_faults(registry: Any, heap: str, given: Any = None) -> list[str]:
    return faults(dict(registry), dict(given or {}), str(heap))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"schema_registry_faults": schema_registry_faults}
