# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pgadmin_servers
short_description: pgAdmin's servers with their defaults
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Completes the servers and sorts them, so that their file is the same whatever their order.
options:
  _input:
    description: The servers, as the role P(berth.platform.pgadmin#role) takes them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: What pgAdmin shows
  ansible.builtin.debug:
    msg: "{{ pgadmin_servers | berth.platform.pgadmin_servers }}"
"""

RETURN = r"""
_value:
  description: The servers, each with all its keys.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.pgadmin import servers


def pgadmin_servers(given: Any) -> list[dict[str, Any]]:
    return servers([dict(server) for server in given])


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgadmin_servers": pgadmin_servers}
