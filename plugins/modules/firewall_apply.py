#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_apply
short_description: One nftables table from a list of rules, without locking anybody out
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Writes, loads and keeps across reboots the nftables table C(inet berth), which denies every new
    connection to the host that no rule allows. Tables of others are never touched.
  - Ports that Docker, podman or anyone else publishes by rewriting the destination obey the same
    rules, by the port that the connection was opened to.
  - A change is checked with C(nft -c), loaded in one transaction together with a timer that brings
    the previous table back, and made permanent only when a new connection from the controller
    has come through. When that fails, the task waits for the timer, and fails.
  - What is loaded is compared, not only the file. A table that something flushed or edited is
    loaded again.
options:
  state:
    description:
      - V(present) has the rules apply, now and after a reboot.
      - V(absent) removes the table and everything that would load it.
      - V(confirmed) is how the task finishes over the new connection. It is not meant to be used.
    type: str
    choices: [present, absent, confirmed]
    default: present
  rules:
    description: New connections that are accepted. The order does not matter.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: A port, or a range such as V(8000-8010).
        type: str
        required: true
      protocol:
        description: The transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description:
          - Addresses and networks, IPv4 or IPv6. V(any) is everyone, an empty list nobody.
        type: list
        elements: str
        required: true
      comment:
        description: Shown by C(nft list table inet berth); cut after 120 bytes.
        type: str
  icmp:
    description: Whether the host answers echo requests. What IPv6 needs is always accepted.
    type: bool
    default: true
  log:
    description: Whether what is denied is logged, ten packets a minute at most.
    type: bool
    default: false
  container_interfaces:
    description:
      - Bridges that containers are attached to; a C(*) at the end matches any ending. Containers
        may ask the host for names, may open connections to one another and outwards, and cannot be
        reached from outside by their own addresses.
    type: list
    elements: str
    default: ["podman*", "docker*", "br-*"]
  ssh_check:
    description:
      - Whether to refuse, before any change, rules that would not let the address that the
        controller connects from reach the SSH port that it connects to.
    type: bool
    default: true
  revert_seconds:
    description: How long the new rules may stay unconfirmed, in seconds. At least 15.
    type: int
    default: 60
  checksum:
    description: Which unconfirmed rules are meant; with O(state=confirmed) only.
    type: str
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
  - name: nftables
    description: The program's manual page.
    link: https://www.netfilter.org/projects/nftables/manpage.html
"""

EXAMPLES = r"""
- name: SSH from the office, the web from everywhere
  berth.platform.firewall_apply:
    rules:
      - {port: 22, sources: [198.51.100.0/24, "2001:db8:1::/48"], comment: office}
      - {port: 443, sources: [any]}
      - {port: 5000-5010, protocol: udp, sources: [10.0.0.0/8]}
"""

RETURN = r"""
reason:
  description: What was not as it should be; empty if nothing.
  returned: success
  type: list
  elements: str
  sample: [the rules that are loaded are not these]
confirmed:
  description: Whether a new connection has come through new rules; absent if none were loaded.
  returned: when rules were loaded
  type: bool
"""

import hashlib
import json
import os
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils import nft
from ansible_collections.berth.platform.plugins.module_utils.host_files import (
    read,
    remove,
    write,
)

RULESET = "/etc/berth/firewall.nft"
RECORD = "/var/lib/berth/firewall.json"
STAGED = "/run/berth/firewall/staged.nft"
PREVIOUS = "/run/berth/firewall/previous.nft"
SERVICE = "berth-firewall.service"
UNIT = "/etc/systemd/system/berth-firewall.service"
WANTED = "/etc/systemd/system/sysinit.target.wants/berth-firewall.service"
DROP_IN = "/etc/systemd/system/nftables.service.d/berth-firewall.conf"
REVERT = "berth-firewall-revert"
REMOVE = f"table {nft.TABLE}\ndelete table {nft.TABLE}\n"

UNIT_TEXT = f"""\
# Managed by berth.platform.firewall: changes here are lost.
[Unit]
Description=Firewall of the platform (nftables table {nft.TABLE})
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
ExecReload=/usr/sbin/nft -f {RULESET}
ExecStop=/usr/sbin/nft delete table {nft.TABLE}

[Install]
WantedBy=sysinit.target
"""

DROP_IN_TEXT = f"""\
# Managed by berth.platform.firewall: changes here are lost.
# Starting, reloading and stopping nftables.service flushes all tables, so ours is loaded again.
[Service]
ExecStartPost=-/usr/sbin/nft -f {RULESET}
ExecReload=-/usr/sbin/nft -f {RULESET}
ExecStopPost=-/usr/sbin/nft -f {RULESET}
"""


def digest(text: str) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def ssh_connection() -> tuple[str, int] | None:
    """Address of the controller and port of the host, as sshd told this process or a parent.

    sudo and its like clear the environment, so the parents are asked, too.
    """
    process = os.getpid()
    while process > 1:
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                environment = dict(
                    part.split(b"=", 1) for part in file.read().split(b"\0") if b"=" in part
                )
            if b"SSH_CONNECTION" in environment:
                words = environment[b"SSH_CONNECTION"].decode().split()
                return words[0], int(words[3])
            with open(f"/proc/{process}/stat", encoding="utf-8") as file:
                process = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return None
    return None


def uplinks() -> set[str]:
    """Interfaces of the default routes."""
    found = set()
    for line in read("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000" and words[7] == "00000000":
            found.add(words[0])
    for line in read("/proc/net/ipv6_route").splitlines():
        words = line.split()
        if words[0] == "0" * 32 and words[1] == "00":
            found.add(words[9])
    return found - {"lo"}


class Firewall:
    """The table on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for its parameters and for failing."""
        self.module = module
        self.params: dict[str, Any] = module.params
        self.nft = module.get_bin_path("nft") or ""

    def run(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command; its failure is the caller's business."""
        return subprocess.run(args, input=stdin, capture_output=True, text=True, check=False)

    def must(self, what: str, *args: str) -> str:
        """Run a command that has to succeed."""
        done = self.run(*args)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            self.module.fail_json(msg=f"{what}: {words}", cmd=list(args), rc=done.returncode)
        return done.stdout

    def loaded(self) -> str:
        """The table as nft lists it, without counters; empty if there is none.

        In numbers: names are those of /etc/protocols, which a later package may bring.
        """
        if not self.nft:
            return ""
        done = self.run(self.nft, "-s", "-n", "list", "table", *nft.TABLE.split())
        if done.returncode and "No such file or directory" not in done.stderr:
            self.module.fail_json(msg=f"nft cannot list the table: {done.stderr.strip()}")
        return done.stdout if done.returncode == 0 else ""

    def record(self) -> dict[str, str]:
        """What the table looked like when it was confirmed."""
        try:
            found = json.loads(read(RECORD) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def parse(self) -> tuple[list[nft.Rule], str]:
        """The rules and the file they make; faults end the module."""
        try:
            rules = nft.parse_rules(self.params["rules"])
            return rules, nft.render(rules, nft.parse_settings(self.params))
        except nft.RulesError as error:
            self.module.fail_json(msg="The firewall's rules are faulty", faults=error.faults)
            raise

    def check_ssh(self, rules: list[nft.Rule]) -> None:
        """Refuse rules that would shut the controller out."""
        peer = ssh_connection() if self.params["ssh_check"] else None
        if not peer:
            return
        address = nft.peer_address(peer[0])
        if not nft.admits(rules, address, peer[1]):
            self.module.fail_json(
                msg=f"These rules would lock the controller out: it connects from {address} to "
                f"port {peer[1]}, which none of them allows. Nothing was changed. Add "
                f"{{port: {peer[1]}, protocol: tcp, sources: [{address}]}} or its network; or set "
                "ssh_check to false if it comes another way in future."
            )

    def check_interfaces(self) -> None:
        """Refuse to take the way outside for a container's bridge."""
        patterns = self.params["container_interfaces"]
        for name in sorted(uplinks()):
            for pattern in patterns:
                if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])):
                    self.module.fail_json(
                        msg=f"Interface {name} carries the default route, but is taken for a "
                        f"container bridge by {pattern!r} in container_interfaces: published "
                        "ports would be open to everyone. Nothing was changed; list the bridges "
                        "themselves."
                    )

    def boots(self) -> bool:
        """Whether the table is there after a reboot."""
        return read(UNIT) == UNIT_TEXT and read(DROP_IN) == DROP_IN_TEXT and os.path.lexists(WANTED)

    def stop_revert(self) -> None:
        """Stop the timer, and the service in case it is running just now."""
        self.run("systemctl", "stop", f"{REVERT}.timer", f"{REVERT}.service")

    def present(self) -> dict[str, Any]:
        """Load the rules, unless they are; what follows is confirmed()."""
        rules, text = self.parse()
        listing = self.loaded()
        installed = read(RULESET)
        reason = []
        if installed != text:
            reason.append("the rules on disk are not these")
        record = self.record()
        stale = record.get("ruleset") != digest(text) or record.get("listing") != digest(listing)
        if stale or os.path.exists(PREVIOUS):
            reason.append("the rules that are loaded are not these")
        if not self.boots():
            reason.append("the unit that loads them at boot is not in place")
        result: dict[str, Any] = {"changed": bool(reason), "reason": reason}
        if reason:
            result["diff"] = {
                "before_header": RULESET,
                "after_header": RULESET,
                "before": installed,
                "after": text,
            }
        if not reason:
            return result
        self.check_ssh(rules)
        self.check_interfaces()
        if self.module.check_mode:
            return result
        if not self.nft:
            self.module.fail_json(msg="nft is not installed; the package is nftables")
        write(STAGED, text, 0o600)
        self.must("nft refuses the rules; nothing was changed", self.nft, "-c", "-f", STAGED)

        # An unconfirmed change of a run that died is still to be reverted to what was before it.
        self.stop_revert()
        if not os.path.exists(PREVIOUS):
            write(PREVIOUS, REMOVE + listing, 0o600)
        self.must(
            "systemd cannot start the timer that would revert the rules; nothing was changed",
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={REVERT}",
            f"--on-active={max(15, self.params['revert_seconds'])}s",
            "--timer-property=AccuracySec=100ms",
            "--property=Type=oneshot",
            f"--property=ExecStartPost=/bin/rm -f {PREVIOUS}",
            self.nft,
            "-f",
            PREVIOUS,
        )
        done = self.run(self.nft, "-f", STAGED)
        if done.returncode:
            self.stop_revert()
            remove(PREVIOUS)
            self.module.fail_json(msg=f"nft cannot load the rules: {done.stderr.strip()}")
        result.update(unconfirmed=True, checksum=digest(text))
        return result

    def confirmed(self) -> dict[str, Any]:
        """A new connection has come through: keep the rules, now and after a reboot."""
        self.stop_revert()
        text = read(STAGED)
        if not os.path.exists(PREVIOUS) or digest(text) != self.params["checksum"]:
            self.module.fail_json(
                msg="The rules were not confirmed in time, and the previous ones are back"
            )
        write(RULESET, text)
        write(UNIT, UNIT_TEXT)
        write(DROP_IN, DROP_IN_TEXT)
        self.must("systemd does not read its units", "systemctl", "daemon-reload")
        self.must("the unit cannot be enabled", "systemctl", "enable", "--quiet", SERVICE)
        self.must("the unit does not load the rules", "systemctl", "reload-or-restart", SERVICE)
        listing = self.loaded()
        write(RECORD, json.dumps({"ruleset": digest(text), "listing": digest(listing)}) + "\n")
        remove(PREVIOUS)
        remove(STAGED)
        return {"changed": True, "confirmed": True}

    def absent(self) -> dict[str, Any]:
        """Remove the table and whatever would bring it back."""
        files = (UNIT, DROP_IN, WANTED, RULESET, RECORD, PREVIOUS, STAGED)
        listing = self.loaded()
        there = [path for path in files if os.path.lexists(path)]
        reason = [f"{path} exists" for path in there]
        reason += [f"table {nft.TABLE} is loaded"] if listing else []
        if reason and not self.module.check_mode:
            self.stop_revert()
            if os.path.lexists(UNIT):
                self.must("the unit cannot be removed", "systemctl", "disable", "--now", SERVICE)
            for path in there:
                remove(path)
            self.must("systemd does not read its units", "systemctl", "daemon-reload")
            if self.loaded():
                self.must("the table stays", self.nft, "delete", "table", *nft.TABLE.split())
        return {"changed": bool(reason), "reason": reason}


def main() -> None:
    """Run the module."""
    rule = {
        "port": {"type": "str", "required": True},
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        "sources": {"type": "list", "elements": "str", "required": True},
        "comment": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["present", "absent", "confirmed"],
                "default": "present",
            },
            "rules": {"type": "list", "elements": "dict", "default": [], "options": rule},
            "icmp": {"type": "bool", "default": True},
            "log": {"type": "bool", "default": False},
            "container_interfaces": {
                "type": "list",
                "elements": "str",
                "default": ["podman*", "docker*", "br-*"],
            },
            "ssh_check": {"type": "bool", "default": True},
            "revert_seconds": {"type": "int", "default": 60},
            "checksum": {"type": "str"},
        },
        supports_check_mode=True,
    )
    firewall = Firewall(module)
    states = {
        "present": firewall.present,
        "absent": firewall.absent,
        "confirmed": firewall.confirmed,
    }
    module.exit_json(**states[module.params["state"]]())


if __name__ == "__main__":
    main()
