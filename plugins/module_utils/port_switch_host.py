# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of switched ports on this host, and what brings it back after a reboot."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.berth.platform.plugins.module_utils import port_switch as core
from ansible_collections.berth.platform.plugins.module_utils.host_files import read, write

RECORD = "/var/lib/berth/port-switch.json"
RULESET = "/etc/berth/port-switch.nft"
SERVICE = "berth-port-switch.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
WANTED = f"/etc/systemd/system/sysinit.target.wants/{SERVICE}"
DROP_IN = "/etc/systemd/system/nftables.service.d/berth-port-switch.conf"
LOCK = "/run/berth/port-switch.lock"
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

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


class SwitchFailed(Exception):
    """A command that failed, and what it said."""

    def __init__(self, message: str, argv: Iterable[str] = (), code: int = 0) -> None:
        super().__init__(message)
        self.argv = list(argv)
        self.code = code


@dataclass(frozen=True)
class Change:
    """What a call finds and what it wants."""

    before: list[core.Switch]
    after: list[core.Switch]
    due: bool


class Host:
    """The table on this host, and what brings it back."""

    def __init__(self) -> None:
        self.environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"}

    def must(self, what: str, *argv: str) -> None:
        """Run a command that has to succeed."""
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, env=self.environment
            )
        except FileNotFoundError as error:
            raise SwitchFailed(f"{what}: {argv[0]} is not installed", argv) from error
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise SwitchFailed(f"{what}: {words}", argv, done.returncode)

    def loaded(self) -> list[core.Switch]:
        """What the kernel does now."""
        argv = ["nft", "--json", "list", "table", *core.TABLE.split()]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, env=self.environment
            )
        except FileNotFoundError:
            return []
        return core.loaded(done.stdout) if done.returncode == 0 else []

    def boots(self) -> bool:
        """Whether the table is there after a reboot."""
        return read(UNIT) == UNIT_TEXT and read(DROP_IN) == DROP_IN_TEXT and os.path.lexists(WANTED)

    def look(self, switches: Iterable[core.Switch]) -> Change:
        """What has to be done for these switches. Raises SwitchError."""
        there = core.load(read(RECORD))
        wanted = core.merge(there, switches)
        due = wanted != self.loaded() or wanted != there or bool(wanted and not self.boots())
        return Change(there, wanted, due)

    def make(self, switches: Iterable[core.Switch]) -> Change:
        """Make these switches, beside those that others make at the same time."""
        with self._alone():
            change = self.look(switches)
            if change.due:
                self._apply(change.after)
            return change

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        os.makedirs(os.path.dirname(LOCK), exist_ok=True)
        with open(LOCK, "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _apply(self, switches: list[core.Switch]) -> None:
        """Load them, and have them loaded at boot."""
        staged = f"{RULESET}.new"
        write(staged, core.render(switches))
        self.must("nft refuses the switches; nothing was changed", "nft", "-c", "-f", staged)
        # The record first: it is what a run that comes after a crash compares with.
        write(RECORD, core.dump(switches))
        os.replace(staged, RULESET)
        if not self.boots():
            write(UNIT, UNIT_TEXT)
            write(DROP_IN, DROP_IN_TEXT)
            self.must("systemd does not read its units", "systemctl", "daemon-reload")
            self.must("the unit cannot be enabled", "systemctl", "enable", "--quiet", SERVICE)
        self.must("nft cannot load the switches", "nft", "-f", RULESET)
