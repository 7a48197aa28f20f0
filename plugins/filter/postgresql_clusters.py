# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_clusters
short_description: The PostgreSQL clusters that are known from a host's facts
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - The versions whose server package is installed and whose cluster C(main) systemd has loaded.
  - An empty list means that the host has to be asked, see M(berth.platform.postgresql_facts).
options:
  _input:
    description: RV(berth.platform.host_facts#module:ansible_facts.berth_host).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What is there
  ansible.builtin.debug:
    msg: "{{ ansible_facts.berth_host | berth.platform.postgresql_clusters }}"
"""

RETURN = r"""
_value:
  description: The versions, ascending.
  type: list
  elements: int
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.postgresql_settings import (
    known_clusters,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgresql_clusters": known_clusters}
