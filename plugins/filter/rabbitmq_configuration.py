# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rabbitmq_configuration
short_description: The keys and values of rabbitmq.conf
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives the keys of C(rabbitmq.conf) from the role's variables, and lets given settings win.
  - A list becomes numbered keys, V(null) leaves a key out.
options:
  _input:
    description: Settings by key, with dots; they win over what is derived.
    type: dict
    required: true
  listeners:
    description: Where AMQP is served, each C(address:port).
    type: list
    elements: str
    required: true
  management:
    description: Where the management plugin listens, C(address) and C(port); nothing for none.
    type: dict
  memory_limit:
    description: Share of the memory (V(0.4)) or amount (V(2GB)) at which publishers are held back.
    type: raw
    required: true
  disk_free_limit:
    description: Free space, as a share of the memory or an amount, below which they are, too.
    type: raw
    required: true
  definitions_file:
    description: Path of the definitions that are imported at every start.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: What RabbitMQ is told
  ansible.builtin.debug:
    msg: >-
      {{ {'channel_max': 512} | berth.platform.rabbitmq_configuration(
           listeners=['127.0.0.1:5672'], memory_limit=0.4, disk_free_limit='1GB',
           definitions_file='/etc/rabbitmq/definitions.json') }}
"""

RETURN = r"""
_value:
  description: Key and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.rabbitmq import (
    RabbitmqError,
    configuration,
)


def rabbitmq_configuration(
    settings: Any,
    listeners: Any,
    memory_limit: Any,
    disk_free_limit: Any,
    definitions_file: str,
    management: Any = None,
) -> dict[str, str]:
    try:
        return configuration(
            listeners=list(listeners),
            management=management or None,
            memory_limit=memory_limit,
            disk_free_limit=disk_free_limit,
            definitions_file=str(definitions_file),
            settings=dict(settings),
        )
    except RabbitmqError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_configuration": rabbitmq_configuration}
