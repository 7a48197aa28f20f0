# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy does to a host, each thing as one call; no decisions here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import port_switch
from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    HISTORY_LINES,
    STATE_DIRECTORY,
    DeployFailed,
    Service,
    Slot,
    State,
    dump,
    load,
)
from ansible_collections.berth.platform.plugins.module_utils.host_files import read, remove, write
from ansible_collections.berth.platform.plugins.module_utils.hostfacts import parse_show
from ansible_collections.berth.platform.plugins.module_utils.port_switch_host import (
    Host as Switches,
)
from ansible_collections.berth.platform.plugins.module_utils.port_switch_host import (
    SwitchFailed,
)
from ansible_collections.berth.platform.plugins.module_utils.probe import scheduler
from ansible_collections.berth.platform.plugins.module_utils.probe.spec import parse_probes
from ansible_collections.berth.platform.plugins.module_utils.release import Host as Releases
from ansible_collections.berth.platform.plugins.module_utils.release import (
    ReleaseError,
    active_version,
    spec_from,
)
from ansible_collections.berth.platform.plugins.module_utils.service_logs import as_text, collect
from ansible_collections.berth.platform.plugins.module_utils.sockets import read_listeners

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WANTED = "/etc/systemd/system/multi-user.target.wants"
LOG_LINES = 20
# Of a socket in /proc/net/tcp that somebody still uses: ESTABLISHED, SYN_RECV, and CLOSE_WAIT, in
# which the client has said all and waits for the answer.
IN_USE = frozenset(("01", "03", "08"))
# As the socket option is called, which Python does not name everywhere.
SO_MARK = 36


@dataclass(frozen=True)
class Look:
    """What systemd says of a unit."""

    active: str = "inactive"
    sub: str = "dead"
    restarts: int = 0
    result: str = ""
    status: str = ""

    @property
    def runs(self) -> bool:
        """One that starts again and again is none that serves."""
        return self.active in ("active", "reloading", "deactivating")

    @property
    def words(self) -> str:
        """How it ended."""
        how = f"is {self.active} ({self.sub})"
        if self.result not in ("", "success"):
            how += f", {self.result}"
        if self.status not in ("", "0"):
            how += f", exit status {self.status}"
        if self.restarts:
            how += f", restarted {self.restarts} times by systemd"
        return how


class _MarkingLoop(asyncio.SelectorEventLoop):
    """Its connections go to the port that they name, whoever that is switched to."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, port_switch.MARK)
        await super().sock_connect(sock, address)


def connections_in(table: str, port: int) -> int:
    """How many connections to a port of this host a table of /proc/net shows."""
    found = 0
    for line in table.splitlines()[1:]:
        parts = line.split()
        if len(parts) > 3 and parts[3] in IN_USE:
            found += int(parts[1].rpartition(":")[2], 16) == port
    return found


class Machine:
    """This host."""

    def __init__(self) -> None:
        self._switches = Switches()
        self._lock = threading.Lock()

    # ------------------------------------------------------------ time

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    # ------------------------------------------------------------ state

    def state(self, unit: str) -> State | None:
        return load(read(f"{STATE_DIRECTORY}/{unit}.json"))

    def save(self, unit: str, state: State) -> None:
        write(f"{STATE_DIRECTORY}/{unit}.json", dump(state), 0o600)

    def forget(self, unit: str) -> None:
        remove(f"{STATE_DIRECTORY}/{unit}.json")

    def states(self) -> dict[str, State]:
        """Of every instance on this host."""
        found = {}
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(STATE_DIRECTORY)):
                unit, dot, kind = name.rpartition(".")
                state = self.state(unit) if dot and kind == "json" else None
                if state is not None:
                    found[unit] = state
        return found

    def past(self, unit: str) -> str:
        return read(f"{STATE_DIRECTORY}/{unit}.history")

    def record(self, unit: str, entry: Mapping[str, Any]) -> None:
        """One more deploy of a service."""
        lines = [*self.past(unit).splitlines(), json.dumps(entry, sort_keys=True)]
        text = "".join(f"{line}\n" for line in lines[-HISTORY_LINES:])
        write(f"{STATE_DIRECTORY}/{unit}.history", text, 0o600)

    # ------------------------------------------------------------ files

    def content(self, path: str) -> str | None:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return None

    def bring(self, slot: Slot) -> None:
        """The files of a slot, and no credentials but its own."""
        for each in slot.files:
            write(str(each["path"]), str(each["content"]), int(str(each["mode"]), 8))
        kept = {str(each["path"]) for each in slot.files}
        if os.path.isdir(slot.credentials):
            os.chmod(slot.credentials, 0o700)
            for name in os.listdir(slot.credentials):
                path = os.path.join(slot.credentials, name)
                if path not in kept:
                    remove(path)

    def link(self, path: str, target: str) -> None:
        directory = os.path.dirname(path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        os.chmod(directory, 0o755)
        temporary = os.path.join(directory, f".tmp-{secrets.token_hex(4)}")
        os.symlink(target, temporary)
        os.replace(temporary, path)

    def unlink(self, path: str) -> None:
        remove(path)

    def linked(self, path: str) -> str:
        """The version that a slot's link points to; empty without one."""
        try:
            return os.path.basename(os.readlink(path))
        except OSError:
            return ""

    def installed(self, path: str) -> bool:
        return os.path.isdir(path)

    def current(self, service: Service) -> str | None:
        try:
            return active_version(service.link, service.directory)
        except ReleaseError as error:
            raise DeployFailed("settle", str(error)) from error

    def finish(self, service: Service) -> list[str]:
        """The release is the active one, and old ones are gone; which."""
        if service.marker:
            # Before the link: a later run must not migrate what was migrated, here or elsewhere.
            os.makedirs(os.path.dirname(service.marker), mode=0o755, exist_ok=True)
            with open(service.marker, "a", encoding="utf-8"):
                pass
        wanted = {
            "name": service.name,
            "home": service.home,
            "artifact": {},
            "version": service.version,
            "group": service.group,
            "keep": service.keep,
        }
        try:
            found = Releases(_no_fetch).run([spec_from(wanted)], {})
        except ReleaseError as error:
            raise DeployFailed("finish", str(error)) from error
        return list(found["releases"][0]["pruned"])

    # ------------------------------------------------------------ systemd

    def call(self, argv: Sequence[str], seconds: float = 60) -> tuple[int, str]:
        """Return code and words of a command; one that takes too long has failed."""
        code, out, err = self._call(argv, seconds)
        return code, err.strip() or out.strip()

    def _call(self, argv: Sequence[str], seconds: float) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": ""},
            )
        except subprocess.TimeoutExpired:
            return 1, "", f"{' '.join(argv[:2])} is not done after {seconds:g} s"
        except OSError as error:
            return 127, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def looks(self, units: Sequence[str]) -> dict[str, Look]:
        if not units:
            return {}
        properties = "Id,ActiveState,SubState,NRestarts,Result,ExecMainStatus"
        _code, out, _err = self._call(
            ["systemctl", "show", "--no-pager", f"--property={properties}", "--", *units], 60
        )
        found = {}
        for block in parse_show(out):
            found[block.get("Id", "")] = Look(
                active=block.get("ActiveState", ""),
                sub=block.get("SubState", ""),
                restarts=int(block.get("NRestarts") or 0),
                result=block.get("Result", ""),
                status=block.get("ExecMainStatus", ""),
            )
        return {unit: found.get(unit, Look()) for unit in units}

    def reload(self, units: Sequence[str]) -> None:
        """systemd knows the units, and starts at boot those of them that have a release."""
        new = [unit for unit in units if not os.path.lexists(f"{WANTED}/{unit}")]
        verb = ["enable", "--quiet", "--", *new] if new else ["daemon-reload"]
        with self._lock:
            code, words = self.call(["systemctl", *verb], 120)
        if code:
            raise DeployFailed("prepare", f"systemctl {verb[0]}: {words}")

    def start(self, units: Sequence[str], seconds: float) -> str:
        """What went wrong, or nothing."""
        self.call(["systemctl", "reset-failed", "--", *units])
        code, words = self.call(["systemctl", "start", "--", *units], seconds)
        return words or f"status {code}" if code else ""

    def stop(self, unit: str) -> None:
        """It ends, at the latest when systemd loses its patience."""
        code, words = self.call(["systemctl", "stop", "--", unit], 900)
        if code and "not loaded" not in words:
            raise DeployFailed("stop", f"systemctl stop {unit}: {words}")
        self.call(["systemctl", "reset-failed", "--", unit])

    def logs(self, unit: str, files: Sequence[str]) -> str:
        with contextlib.suppress(Exception):
            self.call(["journalctl", "--sync"], 10)
            return as_text(collect([{"name": unit, "files": list(files)}], LOG_LINES))
        return ""

    # ------------------------------------------------------------ the network

    def leads(self) -> list[tuple[str, int, int]]:
        """(address, port, port that gets what comes there) of all that is switched."""
        return [(each.address, each.port, each.to) for each in self._switches.loaded()]

    def switch(self, address: str, port: int, to: int) -> None:
        with self._lock:
            try:
                self._switches.make([port_switch.Switch(address, port, to)])
            except (SwitchFailed, port_switch.SwitchError) as error:
                raise DeployFailed("switch", str(error)) from error

    def connections(self, port: int) -> int:
        """How many are open to a port of this host, as the process that accepted them sees it."""
        return sum(connections_in(read(f"/proc/net/{table}"), port) for table in ("tcp", "tcp6"))

    def listens(self, unit: str) -> list[str]:
        """Where the processes of a unit listen."""
        return sorted(
            {f"{each.address}:{each.port}" for each in read_listeners() if each.unit == unit}
        )

    def holder(self, port: int) -> str:
        """Who listens on a port; empty if nobody does."""
        for each in read_listeners():
            if each.port == port and each.protocol == "tcp":
                name = each.process or "an unknown process"
                return f"{name} (pid {each.pid or 'unknown'}, unit {each.unit or 'none'})"
        return ""

    def probe(self, probes: Sequence[Mapping[str, Any]], *, direct: bool) -> str:
        """What is wrong; nothing if all is well.

        With O(direct) it is the process on the port itself that is asked, not the one that the
        port is switched to.
        """
        wanted, faults = parse_probes([dict(each) for each in probes])
        if faults:
            return "; ".join(faults.lines())
        loop: asyncio.AbstractEventLoop = _MarkingLoop() if direct else asyncio.SelectorEventLoop()
        try:
            outcomes = loop.run_until_complete(scheduler._run_all(wanted, 30, 10))
        finally:
            loop.close()
        bad = [each.result()["last_error"] for each in outcomes if not each.healthy]
        return "; ".join(str(each) for each in bad)


def _no_fetch(url: str, _target: str) -> None:
    raise ReleaseError(f"{url} is not fetched in the middle of a deploy")
