# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_settings
short_description: The keys and values of server.properties
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives Kafka's settings for KRaft from the role's variables, and lets given ones win.
  - Values are escaped as Java reads them.
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
  given:
    description: Settings by key, with dots; V(null) leaves a key out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What Kafka is told
  ansible.builtin.debug:
    msg: "{{ node | berth.platform.kafka_settings(admin='admin', password=password) }}"
"""

RETURN = r"""
_value:
  description: Key and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.kafka import (
    KafkaFault,
    settings,
)


def kafka_settings(node: Any, admin: str, password: str, given: Any = None) -> dict[str, str]:
    try:
        return settings(dict(node), dict(given or {}), admin=str(admin), password=str(password))
    except KafkaFault as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_settings": kafka_settings}
