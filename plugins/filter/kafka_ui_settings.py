# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_ui_settings
short_description: The keys and values of the Kafka UI's application.properties
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives the settings from the role's variables, and lets given ones win.
options:
  _input:
    description:
      - The node, with C(address), C(port), C(path), C(brokers) and C(schema_registry), as the
        role's variables.
    type: dict
    required: true
  given:
    description: Settings by key, with dots; V(null) leaves a key out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What the UI is told
  ansible.builtin.debug:
    msg: "{{ node | berth.platform.kafka_ui_settings }}"
"""

RETURN = r"""
_value:
  description: Key and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka_ui import settings


def kafka_ui_settings(node: Any, given: Any = None) -> dict[str, str]:
    return settings(dict(node), dict(given or {}))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_ui_settings": kafka_ui_settings}
