# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: schema_registry_settings
short_description: The keys and values of the schema registry's application.properties
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives the settings from the role's variables, and lets given ones win.
  - Values are escaped as Java reads them. Nothing in what is derived is taken for an expression.
options:
  _input:
    description:
      - The registry, with C(address), C(port), C(management_port), C(brokers), C(user),
        C(password), C(topic), C(compatibility) and C(data_directory), as the role's variables.
    type: dict
    required: true
  given:
    description: Settings by key, with dots; V(null) leaves a key out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What the registry is told
  ansible.builtin.debug:
    msg: "{{ registry | berth.platform.schema_registry_settings }}"
"""

RETURN = r"""
_value:
  description: Key and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.schema_registry import settings


def schema_registry_settings(registry: Any, given: Any = None) -> dict[str, str]:
    return settings(dict(registry), dict(given or {}))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"schema_registry_settings": schema_registry_settings}
