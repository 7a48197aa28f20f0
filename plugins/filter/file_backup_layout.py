# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: file_backup_layout
short_description: Backup repositories and paths as restic is told of them
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Checks repositories and paths and gives them the form that the role C(file_backup) writes.
  - All faults are reported at once.
options:
  _input:
    description: Repositories as in the role C(file_backup)'s C(file_backup_repositories).
    type: list
    elements: dict
    required: true
  paths:
    description: What is backed up.
    type: list
    elements: str
    required: true
  excludes:
    description: What is left out, as patterns of restic.
    type: list
    elements: str
    default: []
  own:
    description: Directories that the backups themselves write to.
    type: list
    elements: str
    default: []
  check_parts:
    description: In how many parts the data of a repository is read.
    type: int
    default: 1
  check_repositories:
    description: Names of the repositories that are restored from as a trial.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: What restic is told
  ansible.builtin.debug:
    msg: >-
      {{ [{'name': 'local', 'path': '/srv/restic', 'password': secret}]
         | berth.platform.file_backup_layout(paths=['/srv/shop']) }}
"""

RETURN = r"""
_value:
  description: >-
    C(repositories), C(paths) and C(excludes), which hold no secret, and C(files), which are the
    repositories' passwords and keys.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.file_backup import (
    LayoutError,
    layout,
)


def file_backup_layout(
    repositories: Sequence[Mapping[str, Any]],
    paths: Sequence[str],
    excludes: Sequence[str] = (),
    own: Sequence[str] = (),
    check_parts: int = 1,
    check_repositories: Sequence[str] = (),
) -> dict[str, Any]:
    try:
        return layout(
            paths,
            excludes,
            repositories,
            own,
            check_parts=check_parts,
            check_repositories=check_repositories,
        )
    except LayoutError as error:
        raise AnsibleFilterError(f"file_backup_layout: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"file_backup_layout": file_backup_layout}
