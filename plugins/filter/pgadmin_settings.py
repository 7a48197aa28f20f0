# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pgadmin_settings
short_description: The names and values of pgAdmin's config_system.py
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives the settings from the role's variables, and lets given ones win.
  - Values are written as Python.
options:
  _input:
    description:
      - The node, with C(path) and C(data_directory), as the role's variables.
    type: dict
    required: true
  given:
    description: Settings by name; V(null) leaves one out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What pgAdmin is told
  ansible.builtin.debug:
    msg: "{{ node | berth.platform.pgadmin_settings }}"
"""

RETURN = r"""
_value:
  description: Name and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.pgadmin import settings


def pgadmin_settings(node: Any, given: Any = None) -> dict[str, str]:
    return settings(dict(node), dict(given or {}))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgadmin_settings": pgadmin_settings}
