#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: port_switch
short_description: Send the new connections of a port to another process
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - A service is reached on one port for ever, while the process that serves behind it changes. From
    the moment of the switch new connections to O(switches[].port), from other hosts and from this
    one, go to O(switches[].to). Connections that are open stay with the process that has them.
  - All switches of a call are made in one transaction of the kernel, and are there again after a
    reboot, by a table of their own, C(inet berth_switch). Other tables are never touched, and the
    rules of M(berth.platform.firewall_apply) hold for the port that was asked for.
  - Nothing is said about whether the other process serves. Probe it first.
options:
  switches:
    description: Where new connections go. Ports that are not listed are left as they are.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description:
          - The IPv4 address that both processes listen on. V(0.0.0.0) is every address of the host.
        type: str
        default: 0.0.0.0
      port:
        description: The port that clients connect to.
        type: int
        required: true
      to:
        description: The port that gets them. By default O(switches[].port) itself again.
        type: int
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - nftables 1.0 or newer and systemd on the host
seealso:
  - module: berth.platform.health_probe
  - module: berth.platform.firewall_apply
"""

EXAMPLES = r"""
- name: The new release gets what comes from now on
  berth.platform.port_switch:
    switches:
      - {address: 127.0.0.1, port: 3000, to: 3001}

- name: It is the first process again that serves
  berth.platform.port_switch:
    switches:
      - {address: 127.0.0.1, port: 3000}
"""

RETURN = r"""
switches:
  description: All that holds on the host now.
  returned: success
  type: list
  elements: dict
  sample: [{address: 127.0.0.1, port: 3000, to: 3001}]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils import port_switch as core
from ansible_collections.berth.platform.plugins.module_utils.host_files import read
from ansible_collections.berth.platform.plugins.module_utils.port_switch_host import (
    RULESET,
    Host,
    SwitchFailed,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "switches": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "address": {"type": "str", "default": core.EVERYWHERE},
                    "port": {"type": "int", "required": True},
                    "to": {"type": "int"},
                },
            },
        },
        supports_check_mode=True,
    )
    host = Host()
    try:
        switches = core.parse(module.params["switches"])
        change = host.look(switches)
        before = read(RULESET)
        if change.due and not module.check_mode:
            change = host.make(switches)
    except core.SwitchError as error:
        module.fail_json(msg="The switches are faulty", faults=error.faults)
    except SwitchFailed as error:
        module.fail_json(msg=str(error), cmd=error.argv, rc=error.code)
    module.exit_json(
        changed=change.due,
        switches=[asdict(each) for each in change.after],
        diff={
            "before_header": RULESET,
            "after_header": RULESET,
            "before": before,
            "after": core.render(change.after) if change.due else before,
        },
    )


if __name__ == "__main__":
    main()
