# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rabbitmq_definitions
short_description: Users and virtual hosts as RabbitMQ imports them
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Turns users, virtual hosts and policies into RabbitMQ's definitions, with salted SHA-256 hashes
    in place of passwords.
  - The same input gives the same text. The salt comes from the key and the user's name.
  - All faults are told at once (names listed twice, permissions on virtual hosts that are not
    listed, users without a password).
options:
  _input:
    description: The users, each with C(name), C(password), C(tags) and C(permissions).
    type: list
    elements: dict
    required: true
  vhosts:
    description: The virtual hosts, each with C(name), C(default_queue_type), C(description).
    type: list
    elements: dict
    default: []
  policies:
    description: The policies.
    type: list
    elements: dict
    default: []
  key:
    description: A secret of the installation, for the salts; the Erlang cookie serves.
    type: str
    default: ''
seealso:
  - name: RabbitMQ, definitions
    description: The format.
    link: https://www.rabbitmq.com/docs/definitions
  - name: RabbitMQ, passwords
    description: The algorithm of the hash.
    link: https://www.rabbitmq.com/docs/passwords
"""

EXAMPLES = r"""
- name: Definitions are in place
  berth.platform.files:
    files:
      - path: /etc/rabbitmq/definitions.json
        content: >-
          {{ [{'name': 'sales', 'password': sales_password, 'permissions': [{'vhost': 'sales'}]}]
             | berth.platform.rabbitmq_definitions(vhosts=[{'name': 'sales'}])
             | ansible.builtin.to_nice_json }}
        group: rabbitmq
        mode: "0640"
        secret: true
"""

RETURN = r"""
_value:
  description: The definitions, with C(vhosts), C(users), C(permissions) and C(policies).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.rabbitmq import (
    RabbitmqError,
    definitions,
)


def rabbitmq_definitions(
    users: Any, vhosts: Any = (), policies: Any = (), key: str = ""
) -> dict[str, Any]:
    try:
        return dict(definitions(list(vhosts), list(users), list(policies), str(key)))
    except RabbitmqError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_definitions": rabbitmq_definitions}
