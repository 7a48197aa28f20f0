# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_heap
short_description: The heap of Kafka's JVM
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - A quarter of the host's memory, at least 256 MiB and at most 6 GiB, unless an amount is given.
options:
  _input:
    description: The host's memory in MiB.
    type: int
    required: true
  given:
    description: An amount, such as V(2g), that wins.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: How much Kafka gets
  ansible.builtin.debug:
    msg: "{{ ansible_facts.berth_host.memory_mb | berth.platform.kafka_heap }}"
"""

RETURN = r"""
_value:
  description: The amount, as the JVM's C(-Xmx) takes it.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.kafka import (
    KafkaFault,
    heap,
)


def kafka_heap(memory_mb: Any, given: str = "") -> str:
    try:
        return heap(int(memory_mb), str(given or ""))
    except KafkaFault as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_heap": kafka_heap}
