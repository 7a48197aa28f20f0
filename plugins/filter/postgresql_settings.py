# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_settings
short_description: PostgreSQL's settings for a host's memory and cores
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Derives the settings that depend on the machine and adds those that Berth always writes.
  - 8 cores and 16 GB with 200 connections give C(shared_buffers) 4GB (a quarter),
    C(effective_cache_size) 12GB (three quarters), C(maintenance_work_mem) 1GB (a sixteenth, at most
    2GB) and C(work_mem) 16MB (what is left by a third per connection, as a power of two).
positional: _input
options:
  _input:
    description: Memory that the server may count on, in MiB.
    type: int
    required: true
  cores:
    description: Cores that it may use.
    type: int
    required: true
  port:
    description: Its port.
    type: int
    default: 5432
  listen_addresses:
    description: The addresses it listens on.
    type: list
    elements: str
    default: [127.0.0.1]
  max_connections:
    description: How many connections it takes.
    type: int
    default: 200
  storage:
    description: What its data lies on.
    type: str
    choices: [ssd, hdd]
    default: ssd
  certificate:
    description: A directory with C(fullchain.pem) and C(privkey.pem); the server's own if empty.
    type: str
    default: ''
  archive:
    description: >-
      C(enabled), C(command) and C(timeout) (seconds, 60) of WAL archiving.
    type: dict
    default: {}
  overrides:
    description: Settings that win over derived ones; V(null) leaves a setting to the server.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What would a server of 16 GB get
  ansible.builtin.debug:
    msg: "{{ 16384 | berth.platform.postgresql_settings(cores=8) }}"
"""

RETURN = r"""
_value:
  description: The settings by name, in the order of the file.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.postgresql_settings import (
    Archive,
    SettingsError,
    Wish,
    derive,
)


def postgresql_settings(
    memory_mb: int,
    cores: int,
    *,
    archive: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    archive = archive or {}
    enabled = bool(archive.get("enabled"))
    try:
        return derive(
            Wish(
                memory_mb=int(memory_mb),
                cores=int(cores),
                archive=Archive(
                    str(archive.get("command") or ""), int(archive.get("timeout") or 60)
                )
                if enabled
                else None,
                overrides=dict(overrides or {}),
                **options,
            )
        )
    except (SettingsError, TypeError) as error:
        raise AnsibleFilterError(f"postgresql_settings: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgresql_settings": postgresql_settings}
