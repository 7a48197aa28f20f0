# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: app_retired_files
short_description: Files that go with services that are no longer wanted
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Everything that the role P(berth.platform.app#role) has made for a unit, in the order in which
    it is to go. Releases, data and logs of the service are not part of it and stay.
options:
  _input:
    description: Names of units, without C(.service).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Files of the old worker are gone
  berth.platform.files:
    files: "{{ ['shop-worker'] | berth.platform.app_retired_files }}"
"""

RETURN = r"""
_value:
  description: Entries for M(berth.platform.files).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.app_services import retired_files


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_retired_files": retired_files}
