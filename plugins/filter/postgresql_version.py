# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_version
short_description: The PostgreSQL version that a host has or gets
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - The version of an existing cluster always wins. If it is not among the preferred ones, a
    warning says so, and that nothing is upgraded.
  - Without a cluster it is the first preferred version that is offered.
positional: clusters, offered
options:
  _input:
    description: The preferred versions, best first.
    type: list
    elements: int
    required: true
  clusters:
    description: The versions that have a cluster.
    type: list
    elements: int
    required: true
  offered:
    description: The versions that can be installed.
    type: list
    elements: int
    default: []
"""

EXAMPLES = r"""
- name: Which version
  ansible.builtin.debug:
    msg: "{{ [18, 17] | berth.platform.postgresql_version([], [17, 15]) }}"
"""

RETURN = r"""
_value:
  description: The version.
  type: int
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.berth.platform.plugins.module_utils.postgresql_settings import (
    SettingsError,
    choose_version,
)


def postgresql_version(
    preferred: Sequence[int], clusters: Sequence[int], offered: Sequence[int] = ()
) -> int:
    try:
        choice = choose_version([int(one) for one in preferred], clusters, offered)
    except (SettingsError, ValueError) as error:
        raise AnsibleFilterError(f"postgresql_version: {error}") from error
    if choice.warning:
        Display().warning(choice.warning)
    return choice.version


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgresql_version": postgresql_version}
