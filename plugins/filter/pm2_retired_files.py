# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pm2_retired_files
short_description: What users without applications have left of PM2
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Files for M(berth.platform.files) to remove. Logs stay.
options:
  _input:
    description: Names of the users.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: What shop had is gone
  berth.platform.files:
    files: "{{ ['shop'] | berth.platform.pm2_retired_files }}"
"""

RETURN = r"""
_value:
  description: The files.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.pm2 import retired_files


def pm2_retired_files(users: Any) -> list[dict[str, Any]]:
    return retired_files(str(user) for user in users)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pm2_retired_files": pm2_retired_files}
