# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: probe_faults
short_description: What to say of unhealthy probes
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Names every unhealthy probe with its last error and, where a unit is known, the command that
    shows its log.
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
- name: Everything is healthy
  ansible.builtin.assert:
    that: health.healthy
    fail_msg: "{{ health.probes | berth.platform.probe_faults }}"
"""

RETURN = r"""
_value:
  description: The text, empty when every probe is healthy.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils import probe_text


def probe_faults(probes: Any) -> str:
    """What to say of unhealthy probes."""
    if not isinstance(probes, (list, tuple)):
        raise AnsibleFilterError("probe_faults wants the list of probes that health_probe returned")
    return probe_text.probe_faults(probes)


class FilterModule:
    """The collection's filter of this name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function."""
        return {"probe_faults": probe_faults}
