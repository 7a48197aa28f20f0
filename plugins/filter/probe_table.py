# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: probe_table
short_description: The results of probes as a table
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Lays out what M(berth.platform.health_probe) saw for people, a line per probe, with its name,
    type, target, state, latency and last error, or for a healthy one what it said of itself.
positional: _input
options:
  _input:
    description: The C(probes) that M(berth.platform.health_probe) returned.
    type: list
    elements: dict
    required: true
seealso:
  - module: berth.platform.health_probe
"""

EXAMPLES = r"""
- name: What was seen is shown
  ansible.builtin.debug:
    msg: "{{ health.probes | berth.platform.probe_table }}"
"""

RETURN = r"""
_value:
  description: The table, lines separated by newlines.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils import probe_text


def probe_table(probes: Any) -> str:
    """The results of probes as a table."""
    if not isinstance(probes, (list, tuple)):
        raise AnsibleFilterError("probe_table wants the list of probes that health_probe returned")
    return probe_text.probe_table(probes)


class FilterModule:
    """The collection's filter of this name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function."""
        return {"probe_table": probe_table}
