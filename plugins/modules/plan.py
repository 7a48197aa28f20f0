#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan the platform from its catalog
version_added: "0.1.0"
description:
  - Turns the catalog (the C(platform_*) variables), the inventory and the port lock into the plan,
    from which the playbooks take the variables of every role.
  - Every fault of the catalog is reported together, with its key, its value and what would be
    right.
  - Runs on the controller and touches no host. Use it as the first task of a play on all hosts,
    with C(run_once) and the tag C(always).
options:
  write:
    description: Whether to write the port lock beside the inventory. Check mode never writes it.
    type: bool
    default: true
  show:
    description: Whether to print the plan for people.
    type: bool
    default: false
attributes:
  check_mode:
    description: Plans without writing the port lock.
    support: full
  diff_mode:
    description: Shows the change of the port lock.
    support: full
  idempotence:
    description: The same catalog, inventory and lock give the same plan.
    support: full
author:
  - Berth contributors (@berth-platform)
seealso:
  - module: berth.platform.secrets
"""

EXAMPLES = r"""
- name: Plan the platform
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tags: always
  tasks:
    - name: The catalog is valid and planned
      berth.platform.plan:
      register: berth_plan
      run_once: true

    - name: The host's rules are shown
      ansible.builtin.debug:
        var: berth_plan.hosts[inventory_hostname].firewall.rules
"""

RETURN = r"""
name:
  description: The platform's name.
  returned: success
  type: str
env:
  description: The environment's name.
  returned: success
  type: str
hosts:
  description: The variables of every role, by host and role; secrets stand as C({secret:name}).
  returned: success
  type: dict
ports:
  description: Every port given out, with its owner and kind.
  returned: success
  type: list
  elements: dict
reachability:
  description: Who may open which port of which host; everything else is denied.
  returned: success
  type: list
  elements: dict
edges:
  description: Every need and route, from service to service or component.
  returned: success
  type: list
  elements: dict
domains:
  description: Every domain that is served.
  returned: success
  type: list
  elements: str
secrets:
  description: What M(berth.platform.secrets) is to generate or keep. No value is among them.
  returned: success
  type: list
  elements: dict
moved:
  description: The services whose port had to move, because a pin took it.
  returned: success
  type: list
  elements: str
text:
  description: The plan for people.
  returned: success
  type: str
lock_file:
  description: The path of the port lock.
  returned: success
  type: str
secrets_file:
  description: The path of the vault file with the secrets.
  returned: success
  type: str
"""
