# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_faults
short_description: What is wrong with a node, its users and its topics
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the role's variables together, before a host is touched.
positional: admin, password
options:
  _input:
    description:
      - The node, with C(cluster_id), C(node_id), C(roles), C(listeners), C(controller_listener),
        C(controllers), C(brokers) and C(data_directory), as the role's variables.
    type: dict
    required: true
  admin:
    description: Name of the super user.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  users:
    description: The users.
    type: list
    elements: dict
    default: []
  topics:
    description: The topics.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Nothing is wrong
  ansible.builtin.assert:
    that: node | berth.platform.kafka_faults(admin='admin', password=password) == []
"""

RETURN = r"""
_value:
  description: Each fault with its key and what would be right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka import (
    faults,
)


def kafka_faults(
    node: Any, admin: str, password: str, users: Any = (), topics: Any = ()
) -> list[str]:
    return faults(
        dict(node), admin=str(admin), password=str(password), users=list(users), topics=list(topics)
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_faults": kafka_faults}
