# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter app_known: what deploy_info is asked of services."""

from __future__ import annotations

DOCUMENTATION = r"""
name: app_known
short_description: What deploy_info is asked of services
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - The C(services) of M(berth.platform.deploy_info).
options:
  _input:
    description: Services, as P(berth.platform.app#role) has them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: What is deployed is known
  berth.platform.deploy_info:
    services: "{{ app_services | berth.platform.app_known }}"
"""

RETURN = r"""
_value:
  description: Entries for the module.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.app_services import known_by


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_known": known_by}
