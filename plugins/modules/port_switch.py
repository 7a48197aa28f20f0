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

import os
import subprocess
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils import port_switch as core
from ansible_collections.berth.platform.plugins.module_utils.host_files import read, write

RECORD = "/var/lib/berth/port-switch.json"
RULESET = "/etc/berth/port-switch.nft"
SERVICE = "berth-port-switch.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
WANTED = f"/etc/systemd/system/sysinit.target.wants/{SERVICE}"
DROP_IN = "/etc/systemd/system/nftables.service.d/berth-port-switch.conf"

UNIT_TEXT = f"""\
# Managed by Berth: changes here are lost.
[Unit]
Description=Ports that another process serves (nftables table {core.TABLE})
Wants=network-pre.target
Before=network-pre.target
# Its file usually begins with "flush ruleset".
After=nftables.service
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=yes
StandardInput=null
ProtectSystem=full
ProtectHome=true
ExecStart=/usr/sbin/nft -f {RULESET}

[Install]
WantedBy=sysinit.target
"""

DROP_IN_TEXT = f"""\
# Managed by Berth: changes here are lost.
# Starting, reloading and stopping nftables.service flushes all tables, so ours is loaded again.
[Service]
ExecStartPost=-/usr/sbin/nft -f {RULESET}
ExecReload=-/usr/sbin/nft -f {RULESET}
ExecStopPost=-/usr/sbin/nft -f {RULESET}
"""


class Host:
    """The table on this host, and what brings it back."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.nft = module.get_bin_path("nft") or "/usr/sbin/nft"

    def must(self, what: str, *argv: str) -> None:
        """Run a command that has to succeed."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            self.module.fail_json(msg=f"{what}: {words}", cmd=list(argv), rc=done.returncode)

    def loaded(self) -> list[core.Switch]:
        """What the kernel does now."""
        argv = [self.nft, "--json", "list", "table", *core.TABLE.split()]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return []
        return core.loaded(done.stdout) if done.returncode == 0 else []

    def boots(self) -> bool:
        """Whether the table is there after a reboot."""
        return read(UNIT) == UNIT_TEXT and read(DROP_IN) == DROP_IN_TEXT and os.path.lexists(WANTED)

    def apply(self, switches: list[core.Switch]) -> None:
        """Load them, and have them loaded at boot."""
        staged = f"{RULESET}.new"
        write(staged, core.render(switches))
        self.must("nft refuses the switches; nothing was changed", self.nft, "-c", "-f", staged)
        # The record first: it is what a run that comes after a crash compares with.
        write(RECORD, core.dump(switches))
        os.replace(staged, RULESET)
        if not self.boots():
            write(UNIT, UNIT_TEXT)
            write(DROP_IN, DROP_IN_TEXT)
            self.must("systemd does not read its units", "systemctl", "daemon-reload")
            self.must("the unit cannot be enabled", "systemctl", "enable", "--quiet", SERVICE)
        self.must("nft cannot load the switches", self.nft, "-f", RULESET)


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
    host = Host(module)
    try:
        there = core.load(read(RECORD))
        wanted = core.merge(there, core.parse(module.params["switches"]))
    except core.SwitchError as error:
        module.fail_json(msg="The switches are faulty", faults=error.faults)
    changed = wanted != host.loaded() or wanted != there or bool(wanted and not host.boots())
    if changed and not module.check_mode:
        host.apply(wanted)
    module.exit_json(
        changed=changed,
        switches=[asdict(each) for each in wanted],
        diff={
            "before_header": RULESET,
            "after_header": RULESET,
            "before": read(RULESET) if not changed or module.check_mode else core.render(there),
            "after": core.render(wanted),
        },
    )


if __name__ == "__main__":
    main()
