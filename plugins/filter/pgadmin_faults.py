# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pgadmin_faults
short_description: What is wrong with pgAdmin's variables
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the role's variables together, before a host is touched.
options:
  _input:
    description:
      - The node, with C(path), C(email) and C(password), as the role's variables.
    type: dict
    required: true
  given:
    description: Settings by name.
    type: dict
    default: {}
  servers:
    description: The servers.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Nothing is wrong
  ansible.builtin.assert:
    that: node | berth.platform.pgadmin_faults == []
"""

RETURN = r"""
_value:
  description: Each fault with its key and what would be right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.pgadmin import faults


def pgadmin_faults(node: Any, given: Any = None, servers: Any = ()) -> list[str]:
    return faults(dict(node), dict(given or {}), [dict(server) for server in servers])


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgadmin_faults": pgadmin_faults}
