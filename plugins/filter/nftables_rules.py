# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: nftables_rules
short_description: The nftables file that a list of firewall rules makes
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Shows what M(berth.platform.firewall_apply) would load, without a host.
positional: _input
options:
  _input:
    description: Rules as for M(berth.platform.firewall_apply).
    type: list
    elements: dict
    required: true
  icmp:
    description: Whether echo requests are answered.
    type: bool
    default: true
  log:
    description: Whether what is denied is logged.
    type: bool
    default: false
  container_interfaces:
    description: Bridges that containers are attached to.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: What would be loaded
  ansible.builtin.debug:
    msg: "{{ [{'port': 443, 'sources': ['any']}] | berth.platform.nftables_rules }}"
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils import nft


def nftables_rules(
    rules: object,
    icmp: bool = True,
    log: bool = False,
    container_interfaces: Sequence[str] = (),
) -> str:
    """Render the rules; every fault is in the error."""
    settings = {"icmp": icmp, "log": log, "container_interfaces": container_interfaces}
    try:
        return nft.render(nft.parse_rules(rules), nft.parse_settings(settings))
    except nft.RulesError as error:
        raise AnsibleFilterError("\n".join(error.faults)) from None


class FilterModule:
    """The collection's filter for firewall rules."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function."""
        return {"nftables_rules": nftables_rules}
