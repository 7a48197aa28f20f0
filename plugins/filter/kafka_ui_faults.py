# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_ui_faults
short_description: What is wrong with the Kafka UI's variables
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the role's variables together, before a host is touched.
options:
  _input:
    description:
      - The node, with C(path), C(brokers), C(user), C(password), C(schema_registry) and C(heap),
        as the role's variables.
    type: dict
    required: true
  given:
    description: Settings by key.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Nothing is wrong
  ansible.builtin.assert:
    that: node | berth.platform.kafka_ui_faults == []
"""

RETURN = r"""
_value:
  description: Each fault with its key and what would be right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka_ui import faults


def kafka_ui_faults(node: Any, given: Any = None) -> list[str]:
    return faults(dict(node), dict(given or {}))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_ui_faults": kafka_ui_faults}
