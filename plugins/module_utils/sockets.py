# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on a host, from /proc alone, and whether that is who was planned to.

The tables are described in Linux's Documentation/networking/proc_net_tcp.rst: addresses
are 32 bit words in the host's byte order, ports are big-endian hexadecimal.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

TCP_LISTEN = "0A"
# A UDP socket without a peer receives from everybody (state "close" in the table).
UDP_UNCONNECTED = "07"

TABLES = (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"))

_UNIT = re.compile(r"^[A-Za-z0-9:_.\\@-]+\.(?:service|socket|scope|mount)$")
_SOCKET = re.compile(r"^socket:\[(\d+)\]$")


@dataclass(frozen=True)
class Socket:
    protocol: str
    address: str
    port: int
    inode: int
    family: int


@dataclass(frozen=True)
class Process:
    pid: int
    process: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Listener:
    protocol: str
    address: str
    port: int
    pid: int | None = None
    process: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Planned:
    port: int
    protocol: str = "tcp"
    units: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    owner: str = ""
    address: str = ""


@dataclass(frozen=True)
class Conflict:
    port: int
    protocol: str
    address: str
    planned_owner: str
    pid: int | None
    process: str
    unit: str
    message: str = field(default="", compare=False)


def decode_address(text: str, byteorder: str = sys.byteorder) -> str:
    """An address of /proc/net: words of 32 bits, each in the host's byte order."""
    raw = bytes.fromhex(text)
    if byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def parse_table(text: str, protocol: str, byteorder: str = sys.byteorder) -> list[Socket]:
    """The listening sockets of one table."""
    listening = TCP_LISTEN if protocol == "tcp" else UDP_UNCONNECTED
    sockets: list[Socket] = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 10 or parts[3] != listening:
            continue
        local, _colon, port = parts[1].partition(":")
        try:
            number, inode = int(port, 16), int(parts[9])
            address = decode_address(local, byteorder)
        except ValueError:
            continue
        if number:
            family = 6 if len(local) > 8 else 4
            sockets.append(Socket(protocol, address, number, inode, family))
    return sockets


def unit_of_cgroup(text: str) -> str:
    """The systemd unit of /proc/PID/cgroup: the innermost one that names a unit.

    Works for cgroup v2 (C(0::/path)), v1 (C(name=systemd)) and both side by side.
    """
    best = ""
    for line in text.splitlines():
        _number, _colon, rest = line.partition(":")
        controllers, _colon, path = rest.partition(":")
        if controllers not in ("", "name=systemd"):
            continue
        for part in path.split("/"):
            # "user@1000.service/app.slice/foo.service" is foo's.
            if _UNIT.match(part):
                best = part
        if best:
            return best
    return best


def process_name(comm: str, cmdline: bytes) -> str:
    """The program's name. Of the command line only the program counts: the rest may hold
    secrets. C(comm) is cut at 15 characters, so a longer program name completes it."""
    name = comm.strip()
    program = os.path.basename(cmdline.split(b"\0", 1)[0].decode("utf-8", "replace"))
    # Servers write titles there ("nginx: master process …"): only a plain word will do.
    if len(name) == 15 and program.startswith(name) and " " not in program:
        return program
    return name


def join(sockets: Iterable[Socket], holders: Mapping[int, Sequence[Process]]) -> list[Listener]:
    """Sockets with the processes that hold them.

    A socket that was inherited by workers is listed once, with the process of lowest id.
    One socket that serves IPv6 and IPv4 is one listener on C(::).
    """
    found: dict[tuple[str, str, int, str, str], Listener] = {}
    for item in sockets:
        processes = sorted(holders.get(item.inode, ()), key=lambda process: process.pid)
        first = processes[0] if processes else None
        listener = Listener(
            item.protocol,
            item.address,
            item.port,
            first.pid if first else None,
            first.process if first else "",
            first.unit if first else "",
        )
        key = (item.protocol, item.address, item.port, listener.unit, listener.process)
        older = found.get(key)
        if older is None or (listener.pid or 0) < (older.pid or 0):
            found[key] = listener
    return sorted(
        found.values(), key=lambda item: (item.protocol, item.port, item.address, item.pid or 0)
    )


def _stem(unit: str) -> str:
    """C(foo@main.service) of C(foo@.service) and its socket are one matter."""
    return unit.rsplit(".", 1)[0] if unit.endswith((".service", ".socket")) else unit


def _is_expected(listener: Listener, planned: Planned) -> bool:
    if listener.unit:
        stem = _stem(listener.unit)
        for wanted in planned.units:
            name = _stem(wanted)
            if stem == name or (name.endswith("@") and stem.startswith(name)):
                return True
    return bool(listener.process) and listener.process in planned.processes


def _overlaps(listening: str, planned: str) -> bool:
    """Whether two sockets on these addresses cannot both be open."""
    if not planned or listening == planned:
        return True
    try:
        one, other = ipaddress.ip_address(listening), ipaddress.ip_address(planned)
    except ValueError:
        return True
    if one.version == other.version:
        return one.is_unspecified or other.is_unspecified
    # `::` is open for IPv4 as well, unless told otherwise: assume it is.
    return (one.version == 6 and one.is_unspecified) or (
        other.version == 6 and other.is_unspecified
    )


def describe(listener: Listener, planned: Planned) -> str:
    who = listener.process or "an unknown process"
    details = []
    if listener.pid:
        details.append(f"pid {listener.pid}")
    if listener.unit:
        details.append(f"unit {listener.unit}")
    where = f" ({', '.join(details)})" if details else ""
    expected = planned.owner or " or ".join((*planned.units, *planned.processes)) or "nobody"
    return (
        f"{listener.protocol} port {listener.port} is planned for {expected}, "
        f"but {who}{where} listens on {listener.address}"
    )


def conflicts(listeners: Iterable[Listener], planned: Iterable[Planned]) -> list[Conflict]:
    """The listeners on planned ports that are not those who were planned there."""
    found: list[Conflict] = []
    told: set[tuple[object, ...]] = set()
    by_port: dict[tuple[str, int], list[Planned]] = {}
    for item in planned:
        by_port.setdefault((item.protocol, item.port), []).append(item)
    for listener in listeners:
        here = [
            item
            for item in by_port.get((listener.protocol, listener.port), ())
            if _overlaps(listener.address, item.address)
        ]
        if not here or any(_is_expected(listener, item) for item in here):
            continue
        first = here[0]
        who = (listener.protocol, listener.port, listener.pid, listener.process, listener.unit)
        if who in told:
            continue  # The same process once more, on its other address family.
        told.add(who)
        found.append(
            Conflict(
                listener.port,
                listener.protocol,
                listener.address,
                first.owner,
                listener.pid,
                listener.process,
                listener.unit,
                describe(listener, first),
            )
        )
    return found


# The option of the modules; what it means is in the fragment C(planned).
PLANNED_OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "port": {"type": "int", "required": True},
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        "address": {"type": "str"},
        "units": {"type": "list", "elements": "str", "default": []},
        "processes": {"type": "list", "elements": "str", "default": []},
        "owner": {"type": "str"},
    },
}


def compare(entries: Iterable[Mapping[str, Any]]) -> tuple[list[Listener], dict[str, Any]]:
    """Who listens on this host, and what the modules return of it: C(conflicts), C(msg)."""
    planned = [
        Planned(
            port=entry["port"],
            protocol=entry["protocol"],
            units=tuple(entry["units"]),
            processes=tuple(entry["processes"]),
            owner=entry["owner"] or "",
            address=entry["address"] or "",
        )
        for entry in entries
    ]
    listeners = read_listeners()
    found = conflicts(listeners, planned)
    result: dict[str, Any] = {"conflicts": [plain(item) for item in found]}
    if found:
        result["msg"] = "\n".join(item.message for item in found)
    return listeners, result


# --- reading /proc -------------------------------------------------------------------


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError:
        return b""


def _text(path: str) -> str:
    return _read(path).decode("utf-8", "replace")


def read_sockets(proc: str = "/proc") -> list[Socket]:
    """The listening sockets of this process's own network namespace."""
    sockets: list[Socket] = []
    for table, protocol in TABLES:
        sockets.extend(parse_table(_text(f"{proc}/self/net/{table}"), protocol))
    return sockets


def read_holders(inodes: set[int], proc: str = "/proc") -> dict[int, list[Process]]:
    """Which processes hold which sockets.

    A process that ends while it is looked at is passed over. One in another network
    namespace may hold one of our sockets (it was handed over): it counts as well.
    """
    holders: dict[int, list[Process]] = {}
    if not inodes:
        return holders
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        held: set[int] = set()
        try:
            with os.scandir(f"{proc}/{name}/fd") as entries:
                for entry in entries:
                    try:
                        match = _SOCKET.match(os.readlink(entry.path))
                    except OSError:
                        continue
                    if match and int(match.group(1)) in inodes:
                        held.add(int(match.group(1)))
        except OSError:
            continue
        if held:
            process = Process(
                int(name),
                process_name(_text(f"{proc}/{name}/comm"), _read(f"{proc}/{name}/cmdline")),
                unit_of_cgroup(_text(f"{proc}/{name}/cgroup")),
            )
            for inode in held:
                holders.setdefault(inode, []).append(process)
    return holders


def read_listeners(proc: str = "/proc") -> list[Listener]:
    sockets = read_sockets(proc)
    return join(sockets, read_holders({item.inode for item in sockets}, proc))


def plain(item: Listener | Conflict) -> dict[str, Any]:
    return asdict(item)
