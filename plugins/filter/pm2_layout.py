# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pm2_layout
short_description: What the applications that PM2 runs come to
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Turns RV(ignore:pm2_apps), the variable of the role P(berth.platform.pm2#role), into what the
    modules that carry it out take.
  - The files hold secrets. Every fault is reported in one error, without values of variables.
options:
  _input:
    description: The applications.
    type: list
    elements: dict
    required: true
  users:
    description: Limits and the like of their users.
    type: list
    elements: dict
    default: []
seealso:
  - module: berth.platform.pm2_apps
"""

EXAMPLES = r"""
- name: Which daemons there will be
  ansible.builtin.debug:
    msg: "{{ (pm2_apps | berth.platform.pm2_layout).units }}"
"""

RETURN = r"""
_value:
  description:
    - C(accounts), C(files) and C(exclusive) for M(berth.platform.files), C(units), and C(apps) for
      M(berth.platform.pm2_apps).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.pm2 import Pm2Error, layout


def pm2_layout(apps: Any, users: Any = ()) -> dict[str, Any]:
    try:
        return layout(list(apps), list(users))
    except Pm2Error as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pm2_layout": pm2_layout}
