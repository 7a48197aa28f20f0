# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pgbackrest_repositories
short_description: Backup repositories as options of pgBackRest
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks the repositories, numbers them in their order and gives each its options.
  - All faults are reported at once.
options:
  _input:
    description: Repositories as in the role C(backup)'s C(backup_repositories).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: What pgBackRest is told
  ansible.builtin.debug:
    msg: "{{ [{'name': 'local'}] | berth.platform.pgbackrest_repositories }}"
"""

RETURN = r"""
_value:
  description: >-
    For each repository its C(key) (number), C(name), C(options), which are named as pgBackRest
    names them behind C(repoN-) and hold secrets, and C(public), which holds none.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.pgbackrest import (
    RepositoryError,
    repositories,
)


def pgbackrest_repositories(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    try:
        return [one.as_dict() for one in repositories(entries)]
    except RepositoryError as error:
        raise AnsibleFilterError(f"pgbackrest_repositories: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgbackrest_repositories": pgbackrest_repositories}
