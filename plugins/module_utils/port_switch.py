# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process gets the new connections to a port: pure functions, standard library only.

A service is reached on one port for ever, while the process behind it changes: the kernel sends
new connections on to the port of the one that serves now, and connections that are open stay with
the process that has them (the kernel's connection tracking remembers for each where it went).
nftables' maps do that, for what comes from outside (prerouting) and from the host itself (output);
all of them are replaced in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

TABLE = "inet berth_switch"
EVERYWHERE = "0.0.0.0"

_RULES = (
    "dnat ip to ip daddr . tcp dport map @addressed",
    # Only what is meant for this host: a router's or a container's connections pass.
    "meta l4proto tcp fib daddr type local redirect to :tcp dport map @everywhere",
)


class SwitchError(ValueError):
    """Switches that cannot be made, with every fault that was found."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True, order=True)
class Switch:
    """New connections to a port of an address go to another port of it."""

    address: str
    port: int
    to: int


def parse(given: Iterable[Mapping[str, Any]]) -> list[Switch]:
    """Switches from plain values. Raises SwitchError with all faults."""
    faults: list[str] = []
    found: list[Switch] = []
    for number, each in enumerate(given):
        where = f"switches[{number}]"
        try:
            address = str(IPv4Address(str(each.get("address") or EVERYWHERE)))
        except ValueError:
            faults.append(f"{where}.address: {each.get('address')!r}: an IPv4 address is expected")
            continue
        port = int(each["port"])
        to = int(each.get("to") or port)
        wrong = [
            f"{where}.{key}: {value}: a port from 1 to 65535 is expected"
            for key, value in (("port", port), ("to", to))
            if not 1 <= value <= 65535
        ]
        faults += wrong
        if not wrong:
            found.append(Switch(address, port, to))
    keys = [(each.address, each.port) for each in found]
    faults += [
        f"switches: port {port} of {address} is named more than once"
        for address, port in sorted({key for key in keys if keys.count(key) > 1})
    ]
    if faults:
        raise SwitchError(faults)
    return found


def merge(there: Iterable[Switch], wanted: Iterable[Switch]) -> list[Switch]:
    """What holds when the wanted ones are made; one to the port itself is none.

    Raises SwitchError where one leads to another: only the first would be followed.
    """
    found = {(each.address, each.port): each for each in there}
    found.update({(each.address, each.port): each for each in wanted})
    result = sorted(each for each in found.values() if each.to != each.port)
    faults = []
    for each in result:
        for other in result:
            same = each.address == other.address or EVERYWHERE in (each.address, other.address)
            if same and each.to == other.port:
                faults.append(
                    f"port {each.port} of {each.address} would go to {each.to}, which itself goes "
                    f"to {other.to}"
                )
    if faults:
        raise SwitchError(faults)
    return result


def render(switches: Sequence[Switch]) -> str:
    """The file that makes these switches, and no others, in one transaction.

    Table and chains stay, also without switches: as long as no chain is there, the kernel rewrites
    no packet, and connections that went elsewhere would be cut.
    """
    addressed = [
        f"{each.address} . {each.port} : {each.address} . {each.to}"
        for each in switches
        if each.address != EVERYWHERE
    ]
    everywhere = [f"{each.port} : {each.to}" for each in switches if each.address == EVERYWHERE]
    maps = [
        ("addressed", "ipv4_addr . inet_service : ipv4_addr . inet_service", addressed),
        ("everywhere", "inet_service : inet_service", everywhere),
    ]
    lines = ["# Managed by Berth.", f"add table {TABLE}"]
    for name, kind, elements in maps:
        lines += [
            f"add map {TABLE} {name} {{ type {kind}; }}",
            f"flush map {TABLE} {name}",
            *([f"add element {TABLE} {name} {{ {', '.join(elements)} }}"] if elements else []),
        ]
    for hook in ("prerouting", "output"):
        lines += [
            f"add chain {TABLE} {hook} {{ type nat hook {hook} priority -100; policy accept; }}",
            f"flush chain {TABLE} {hook}",
            *(f"add rule {TABLE} {hook} {rule}" for rule in _RULES),
        ]
    return "\n".join(lines) + "\n"


def dump(switches: Iterable[Switch]) -> str:
    """For the record on the host."""
    return json.dumps([asdict(each) for each in switches], indent=2) + "\n"


def load(text: str) -> list[Switch]:
    """From the record on the host; without one there are none."""
    return parse(json.loads(text)) if text else []


def loaded(listing: str) -> list[Switch]:
    """From what C(nft --json list table) says."""
    found = []
    for entry in json.loads(listing or '{"nftables": []}')["nftables"]:
        table = entry.get("map", {})
        for key, value in table.get("elem", ()):
            if table["name"] == "addressed":
                (address, port), (_address, to) = key["concat"], value["concat"]
            else:
                address, port, to = EVERYWHERE, key, value
            found.append(Switch(str(address), int(port), int(to)))
    return sorted(found)
