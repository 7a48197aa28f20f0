# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rabbitmq_password_hash
short_description: A password as RabbitMQ stores it
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Base64 of a salt of four bytes and SHA-256 of salt and password, RabbitMQ's
    C(rabbit_password_hashing_sha256).
  - The salt comes from the key and the user's name, so that the same password gives the same hash.
positional: user, key
options:
  _input:
    description: The password.
    type: str
    required: true
  user:
    description: The user's name.
    type: str
    required: true
  key:
    description: A secret of the installation, for the salt.
    type: str
    default: ''
seealso:
  - name: RabbitMQ, passwords
    description: The algorithm.
    link: https://www.rabbitmq.com/docs/passwords
"""

EXAMPLES = r"""
- name: The hash of a user's password
  ansible.builtin.set_fact:
    sales_hash: "{{ sales_password | berth.platform.rabbitmq_password_hash('sales') }}"
"""

RETURN = r"""
_value:
  description: The hash.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.rabbitmq import password_hash


def rabbitmq_password_hash(password: str, user: str, key: str = "") -> str:
    return password_hash(str(password), str(user), str(key))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_password_hash": rabbitmq_password_hash}
