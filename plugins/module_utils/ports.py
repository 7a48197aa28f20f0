# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports: one ledger per host, kept in a lock file, in which no port has two owners.

An owner is `<estate>/<what>`; the estate (platform and environment) tells environments that share
a host apart. `allocate` is a pure function of the old ledger and the claims: pins win, what an
owner had it keeps, the rest is given the lowest port that was never given out; a freed port is
used again only when the range holds no other, the longest freed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.berth.platform.plugins.module_utils.faults import MISSING, Faults

# SSH is the host's own, whichever environments share it.
SSH = "host/ssh"

_HEAD = """\
# The ports that berth.platform has given out. Commit this file with the inventory.
# A pin in the catalog moves a port; an edit here is for resolving a merge only.
version: 1
hosts:
"""
_HOST = re.compile(r"^  (\S+):$")
_SECTION = re.compile(r"^    (ports|freed):$")
_ENTRY = re.compile(r"^      (\d{1,5}): (\S+)$")
_CONFLICT = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")


@dataclass
class HostLedger:
    """The ports of one host: who holds which, and which were freed, the longest freed first."""

    ports: dict[int, str] = field(default_factory=dict)
    freed: dict[int, str] = field(default_factory=dict)


Ledger = dict[str, HostLedger]


@dataclass(frozen=True)
class Claim:
    """A wish for a port on a host; *pin* asks for that very port, *key* names the wish to users."""

    host: str
    owner: str
    key: str
    pin: int | None = None
    fixed: bool = False  # a component's port: may lie in the reserved ports


@dataclass(frozen=True)
class Allocation:
    """The ledger after the claims, and what each claim got."""

    ledger: Ledger
    ports: Mapping[tuple[str, str], int]
    moved: Sequence[str]


def read_lock(text: str, name: str, faults: Faults) -> Ledger:
    """The ledger in a lock file's text; merge conflicts and double entries are faults."""
    ledger: Ledger = {}
    host: HostLedger | None = None
    section = ""
    owners: set[tuple[str, str]] = set()
    host_name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(_CONFLICT):
            faults.add(
                f"{name}:{number}",
                MISSING,
                "an unresolved merge conflict; keep the lines of both sides "
                "(of two owners of one port, keep one), then run again",
            )
            return {}
        if not line.strip() or line.startswith("#") or line in ("hosts:", "hosts: {}"):
            continue
        if line.startswith("version:"):
            if line.split(":", 1)[1].strip() != "1":
                faults.add(f"{name}:{number}", line, "is of another version; this one reads 1")
                return {}
            continue
        if match := _ENTRY.match(line):
            port, owner = int(match.group(1)), match.group(2)
            if host is None or not section:
                faults.add(f"{name}:{number}", line.strip(), "stands outside of a host's ports")
                continue
            if not 1 <= port <= 65535:
                faults.add(f"{name}:{number}", port, "is no port; use 1-65535")
                continue
            if section == "ports":
                if port in host.ports:
                    faults.add(
                        f"{name}:{number}",
                        f"{port}: {owner}",
                        f"{host_name} gives port {port} to {host.ports[port]} already, "
                        "after a merge; remove one of the two lines",
                    )
                    continue
                if (host_name, owner) in owners:
                    faults.add(
                        f"{name}:{number}",
                        f"{port}: {owner}",
                        f"{owner} has another port on {host_name} already, "
                        "after a merge; remove one of the two lines",
                    )
                    continue
                owners.add((host_name, owner))
                host.ports[port] = owner
            else:
                host.freed[port] = owner
        elif match := _SECTION.match(line):
            section = match.group(1)
        elif match := _HOST.match(line):
            host_name, section = match.group(1), ""
            host = ledger.setdefault(host_name, HostLedger())
        else:
            faults.add(f"{name}:{number}", line.strip(), "is not a line of a port lock")
    return ledger


def render_lock(ledger: Ledger) -> str:
    """The lock file's text; equal ledgers give equal texts."""
    lines = []
    for name in sorted(ledger):
        host = ledger[name]
        if not host.ports and not host.freed:
            continue
        lines.append(f"  {name}:")
        lines.append("    ports:")
        lines.extend(f"      {port}: {host.ports[port]}" for port in sorted(host.ports))
        if host.freed:
            lines.append("    freed:")
            lines.extend(f"      {port}: {owner}" for port, owner in host.freed.items())
    if not lines:
        return _HEAD.replace("hosts:\n", "hosts: {}\n")
    return _HEAD + "\n".join(lines) + "\n"


def allocate(
    claims: Iterable[Claim],
    ledger: Ledger,
    estate: str,
    range_: tuple[int, int],
    reserved: Iterable[int],
    faults: Faults,
) -> Allocation:
    """Give every claim a port. Claims come in the order in which new ones are to be served.

    A port that is pinned on one host is given to nobody else on the others either: a service that
    moves to another host then finds its port free there.
    """
    shut = frozenset(reserved)
    claims = list(claims)
    pinned = frozenset(claim.pin for claim in claims if claim.pin is not None)
    by_host: dict[str, list[Claim]] = {}
    for claim in claims:
        by_host.setdefault(claim.host, []).append(claim)
    result: Ledger = {
        name: HostLedger(dict(host.ports), dict(host.freed)) for name, host in ledger.items()
    }
    given: dict[tuple[str, str], int] = {}
    moved: list[str] = []
    mine = f"{estate}/"
    for name in sorted(by_host.keys() | ledger.keys()):
        old = ledger.get(name) or HostLedger()
        if name not in by_host and not any(o.startswith(mine) for o in old.ports.values()):
            continue
        result[name] = _allocate_host(
            by_host.get(name, []), old, mine, range_, shut, pinned, faults, given, moved
        )
    return Allocation(result, given, moved)


def _allocate_host(
    claims: list[Claim],
    old: HostLedger,
    mine: str,
    range_: tuple[int, int],
    shut: frozenset[int],
    pinned: frozenset[int],
    faults: Faults,
    given: dict[tuple[str, str], int],
    moved: list[str],
) -> HostLedger:
    """One host's part: foreign ports stand, then pins, then what was held, then the new."""
    shared = {claim.owner for claim in claims if not claim.owner.startswith(mine)}
    ports = {
        port: owner
        for port, owner in old.ports.items()
        if not owner.startswith(mine) and owner not in shared
    }
    foreign = frozenset(ports)
    keys: dict[int, str] = {}
    open_claims: list[Claim] = []
    for claim in claims:
        if claim.pin is None:
            open_claims.append(claim)
            continue
        if _pin_stands(claim, ports, foreign, keys, shut, faults):
            ports[claim.pin] = claim.owner
            keys[claim.pin] = claim.key
            given[claim.host, claim.owner] = claim.pin

    held = {owner: port for port, owner in old.ports.items() if owner.startswith(mine)}
    had = {owner: port for port, owner in old.freed.items()}
    new: list[Claim] = []
    for claim in open_claims:
        port = held.get(claim.owner)
        if port is None:
            # A service that comes back gets its freed port back.
            port = had.get(claim.owner)
        if port is not None and port not in ports and port not in shut:
            ports[port] = claim.owner
            given[claim.host, claim.owner] = port
        else:
            if claim.owner in held:
                moved.append(f"{claim.key} leaves port {held[claim.owner]} on {claim.host}")
            new.append(claim)

    freed = {port: owner for port, owner in old.freed.items() if port not in ports}
    for port, owner in old.ports.items():
        if owner.startswith(mine) and port not in ports:
            freed[port] = owner
    kept = shut | pinned
    never = iter(
        port
        for port in range(range_[0], range_[1] + 1)
        if port not in ports and port not in kept and port not in freed
    )
    again = iter([port for port in freed if range_[0] <= port <= range_[1] and port not in kept])
    for claim in new:
        port = next(never, None)
        if port is None:
            port = next(again, None)
            if port is not None:
                del freed[port]
        if port is None:
            faults.add(
                claim.key,
                MISSING,
                f"finds no free port on {claim.host}: "
                f"the range {range_[0]}-{range_[1]} is exhausted; widen platform_ports.range",
            )
            continue
        ports[port] = claim.owner
        given[claim.host, claim.owner] = port
    return HostLedger(ports, freed)


def _pin_stands(
    claim: Claim,
    ports: Mapping[int, str],
    foreign: frozenset[int],
    keys: Mapping[int, str],
    shut: frozenset[int],
    faults: Faults,
) -> bool:
    """Whether the pinned port is free for the claim; otherwise the fault says who has it."""
    pin = claim.pin or 0
    if pin in shut and not claim.fixed:
        faults.add(claim.key, pin, "is reserved by platform_ports.reserved; pin another port")
        return False
    if pin in foreign:
        faults.add(
            claim.key,
            pin,
            f"{ports[pin].split('/')[0]} has it on {claim.host} already ({ports[pin]}); "
            "pin another port",
        )
        return False
    if pin in ports:
        other = keys[pin]
        faults.add(
            claim.key,
            pin,
            f"{other} has port {pin} on {claim.host} already; pin another port, or none",
        )
        return False
    return True
