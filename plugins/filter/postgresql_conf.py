# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_conf
short_description: Settings as lines of a PostgreSQL configuration file
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Spells each value as the server reads it; texts are quoted, booleans are C(on) and C(off).
options:
  _input:
    description: Values by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: A line of postgresql.conf
  ansible.builtin.debug:
    msg: "{{ {'jit': false} | berth.platform.postgresql_conf }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.postgresql_settings import (
    SettingsError,
    render,
)


def postgresql_conf(settings: Mapping[str, Any]) -> str:
    try:
        return render(settings)
    except SettingsError as error:
        raise AnsibleFilterError(f"postgresql_conf: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgresql_conf": postgresql_conf}
