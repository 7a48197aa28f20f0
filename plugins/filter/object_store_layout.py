# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: object_store_layout
short_description: The directories and owners of an object store's buckets
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Turns buckets and accounts into the entries of M(berth.platform.files) that make them, in the
    layout of VersityGW's posix backend with a metadata directory.
  - Names the bucket or account that is wrong, and what would be right.
positional: users, root, directory, account
options:
  _input:
    description: The buckets, each with its C(name).
    type: list
    elements: dict
    required: true
  users:
    description: The accounts, each with C(access_key) and the C(buckets) that it owns.
    type: list
    elements: dict
    required: true
  root:
    description: The access key of the account that owns every other bucket.
    type: str
    required: true
  directory:
    description: The store's directory on the host.
    type: str
    required: true
  account:
    description: The system's user that the server runs as.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: The entries for one bucket of one account
  ansible.builtin.debug:
    msg: >-
      {{ [{'name': 'images'}] | berth.platform.object_store_layout(
         [{'access_key': 'shop', 'buckets': ['images']}], 'root', '/srv/store', 'store') }}
"""

RETURN = r"""
_value:
  description: The entries.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.object_store import (
    ObjectStoreError,
    layout,
    owners,
)


def object_store_layout(
    buckets: Any, users: Any, root: str, directory: str, account: str
) -> list[dict[str, Any]]:
    """The entries for the buckets; see DOCUMENTATION."""
    try:
        return layout(str(directory), owners(buckets, users, str(root)), str(account))
    except ObjectStoreError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """What Ansible loads."""
        return {"object_store_layout": object_store_layout}
