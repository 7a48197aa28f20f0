# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_hba
short_description: Access rules as lines of pg_hba.conf
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the rules, quotes their names, gives single addresses their full mask, keeps the order.
  - From the server's own host each of O(users) is let into its own databases.
  - Methods that leave passwords or the server open (C(trust), C(password), C(md5)) are refused.
positional: users
options:
  _input:
    description: >-
      Rules of C(type) (V(host)), C(database) (V(all)), C(user) (V(all)), C(address), C(method)
      (V(scram-sha-256)) and C(options).
    type: list
    elements: dict
    required: true
  users:
    description: Users as for M(berth.platform.postgresql_objects).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Who may connect
  ansible.builtin.debug:
    msg: "{{ rules | berth.platform.postgresql_hba }}"
  vars:
    rules:
      - database: prod-sales
        user: sales
        address: 10.0.0.7
"""

RETURN = r"""
_value:
  description: The lines, in columns.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.postgresql_hba import (
    HbaError,
    own_host_rules,
    render,
)


def postgresql_hba(
    entries: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]] = ()
) -> str:
    try:
        return render([*own_host_rules(users), *entries])
    except HbaError as error:
        raise AnsibleFilterError(f"postgresql_hba: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgresql_hba": postgresql_hba}
