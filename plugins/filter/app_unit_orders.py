# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: app_unit_orders
short_description: What systemd is to be told about the units of services
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Restarts the units of which something changed, starts and enables those that do not run, stops
    those that are no longer wanted, and says nothing of the others.
positional: _input, known
options:
  _input:
    description: C(units).
    type: list
    elements: dict
    required: true
  known:
    description: Units of the host, from M(berth.platform.host_facts).
    type: dict
    required: true
  labels:
    description: Units, without C(.service), of which a file changed.
    type: list
    elements: str
    default: []
  activated:
    description: Services that have a new release.
    type: list
    elements: str
    default: []
  stale:
    description: Units that run with what was there before.
    type: list
    elements: str
    default: []
  retired:
    description: Units, without C(.service), that are no longer wanted.
    type: list
    elements: str
    default: []
seealso:
  - module: berth.platform.release
  - module: berth.platform.units
"""

EXAMPLES = r"""
- name: Services run
  berth.platform.units:
    units: >-
      {{ (app_services | berth.platform.app_resources).units
         | berth.platform.app_unit_orders(ansible_facts.berth_host.units, activated=['shop']) }}
"""

RETURN = r"""
_value:
  description: Entries for M(berth.platform.units).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.app_services import unit_orders


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_unit_orders": unit_orders}
