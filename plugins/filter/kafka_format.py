# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kafka_format
short_description: The arguments of Kafka's storage tool, with the super user's credential
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - The arguments with which C(kafka-storage) formats a directory and seeds the super user.
  - The tool reads them from a file, one a line, so that nothing secret is in a command line.
positional: config, admin, password
options:
  _input:
    description: The cluster's id.
    type: str
    required: true
  config:
    description: Path of server.properties.
    type: str
    required: true
  admin:
    description: Name of the super user.
    type: str
    required: true
  password:
    description: Its password, of which only the salted form is returned.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: The arguments
  ansible.builtin.debug:
    msg: >-
      {{ cluster_id | berth.platform.kafka_format(
           '/etc/kafka/server.properties', 'admin', password) }}
"""

RETURN = r"""
_value:
  description: The arguments.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka import (
    format_arguments,
)


def kafka_format(cluster_id: str, config: str, admin: str, password: str) -> list[str]:
    return format_arguments(str(cluster_id), str(config), str(admin), str(password))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kafka_format": kafka_format}
