# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_ui_client
short_description: How a client of Kafka signs in
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - The properties of a client that signs in by SASL/SCRAM-SHA-512. They hold the password.
positional: password
options:
  _input:
    description: The user.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: How many lines there are
  ansible.builtin.debug:
    msg: "{{ 'kafka-ui' | berth.platform.kafka_ui_client(password) | length }}"
"""

RETURN = r"""
_value:
  description: Key and value of each line.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka_ui import client


def kafka_ui_client(user: Any, password: Any) -> dict[str, str]:
    return client(str(user), str(password))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_ui_client": kafka_ui_client}
