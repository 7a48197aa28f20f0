# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From firewall rules to one nftables table; pure functions, standard library only.

The table is C(inet berth) and nothing else is touched: tables of Docker, podman, libvirt or an
administrator stay as they are. In nftables a packet has to be accepted by every table, so theirs
may deny more, never allow more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Any, Union

Network = Union[IPv4Network, IPv6Network]
Address = Union[IPv4Address, IPv6Address]

TABLE = "inet berth"
PROTOCOLS = ("tcp", "udp")
RULE_KEYS = ("port", "protocol", "sources", "comment")
ANY = "any"
# nft refuses longer ones (NFTNL_UDATA_COMMENT_MAXLEN).
COMMENT_BYTES = 120
PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
# As the kernel allows them, with nft's wildcard; see IFNAMSIZ.
INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}\*?")


class RulesError(ValueError):
    """Rules that cannot be used, with every fault that was found."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep all faults; the message lists them."""
        super().__init__("; ".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True)
class Rule:
    """New connections to the ports from first to last are accepted from these networks."""

    first: int
    last: int
    protocol: str
    sources: tuple[Network, ...]
    comment: str = ""

    @property
    def ports(self) -> str:
        """As nft writes them."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def everyone(self) -> bool:
        """Whether the source does not matter."""
        return {net for net in self.sources if net.prefixlen == 0} == set(EVERYONE)


EVERYONE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(frozen=True)
class Settings:
    """What holds for the table as a whole."""

    icmp: bool = True
    log: bool = False
    container_interfaces: tuple[str, ...] = ()


def parse_port(value: object) -> tuple[int, int]:
    """Read C(443), C("443") or C("8000-8010"); raise ValueError with what would be right."""
    match = PORTS.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError(f"{value!r} is neither a port nor a range such as 8000-8010")
    first = int(match[1])
    last = int(match[2] or match[1])
    if not (1 <= first <= 65535 and 1 <= last <= 65535):
        raise ValueError(f"{value!r} is outside 1-65535")
    if first > last:
        raise ValueError(f"{value!r} runs backwards, {last}-{first} would be right")
    return first, last


def parse_source(value: object) -> tuple[Network, ...]:
    """Read an address, a network or C(any); raise ValueError with what would be right."""
    text = value.strip() if isinstance(value, str) else ""
    if text == ANY:
        return EVERYONE
    try:
        if "%" in text:
            raise ValueError("a zone is not part of a packet")
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is neither an address, a network such as 10.0.0.0/24, nor {ANY!r}"
        ) from None
    given = text.partition("/")[0]
    if ip_address(given) != network.network_address:
        raise ValueError(f"{value!r} has host bits set, {network} or {given} would be right")
    return (network,)


def merge(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Drop what another network covers: an nft set refuses overlapping elements."""
    found = set(networks)
    ipv4 = [net for net in found if isinstance(net, IPv4Network)]
    ipv6 = [net for net in found if isinstance(net, IPv6Network)]
    return (*collapse_addresses(ipv4), *collapse_addresses(ipv6))


def clean_comment(text: str) -> str:
    """Make a comment that nft accepts, whatever it is made of."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    plain = " ".join(printable.replace('"', "'").replace("\\", "/").split())
    return plain.encode()[:COMMENT_BYTES].decode(errors="ignore").rstrip()


def parse_rule(where: str, raw: object) -> tuple[Rule | None, list[str]]:
    """Read one rule and collect its faults. A rule without sources is none: nobody is let in."""
    if not isinstance(raw, Mapping):
        return None, [f"{where}: {raw!r} is not a rule, which has {', '.join(RULE_KEYS)}"]
    faults = [
        f"{where}: unknown key {key!r}, known are {', '.join(RULE_KEYS)}"
        for key in raw
        if key not in RULE_KEYS
    ]
    first = last = 0
    try:
        first, last = parse_port(raw.get("port"))
    except ValueError as error:
        faults.append(f"{where}.port: {error}")
    protocol = raw.get("protocol") or "tcp"
    if protocol not in PROTOCOLS:
        faults.append(f"{where}.protocol: {protocol!r} is not one of {', '.join(PROTOCOLS)}")
    sources = raw.get("sources")
    networks: list[Network] = []
    if isinstance(sources, (list, tuple)):
        for number, source in enumerate(sources):
            try:
                networks += parse_source(source)
            except ValueError as error:
                faults.append(f"{where}.sources[{number}]: {error}")
    else:
        faults.append(f"{where}.sources: {sources!r} is not a list of networks")
    if faults or not networks:
        return None, faults
    comment = clean_comment(str(raw.get("comment") or ""))
    return Rule(first, last, str(protocol), merge(networks), comment), []


def parse_rules(raw: object, where: str = "firewall_rules") -> list[Rule]:
    """Read all rules, sorted so that their order does not matter; raise RulesError."""
    if not isinstance(raw, (list, tuple)):
        raise RulesError([f"{where}: {raw!r} is not a list"])
    rules: list[Rule] = []
    faults: list[str] = []
    for number, item in enumerate(raw):
        rule, found = parse_rule(f"{where}[{number}]", item)
        faults += found
        if rule:
            rules.append(rule)
    if faults:
        raise RulesError(faults)
    return sorted(
        set(rules), key=lambda r: (r.protocol, r.first, r.last, r.comment, str(r.sources))
    )


def parse_settings(raw: Mapping[str, Any]) -> Settings:
    """Read the settings; raise RulesError."""
    interfaces = tuple(str(name) for name in raw.get("container_interfaces") or ())
    faults = [
        f"firewall_container_interfaces: {name!r} is no interface name (a * may end it)"
        for name in interfaces
        if not INTERFACE.fullmatch(name)
    ]
    if faults:
        raise RulesError(faults)
    return Settings(bool(raw.get("icmp", True)), bool(raw.get("log", False)), interfaces)


def admits(rules: Iterable[Rule], address: Address, port: int, protocol: str = "tcp") -> bool:
    """Whether the rules let a new connection from this address reach this port."""
    return any(
        rule.protocol == protocol
        and rule.first <= port <= rule.last
        and any(net.version == address.version and address in net for net in rule.sources)
        for rule in rules
    )


def peer_address(text: str) -> Address:
    """Read an address as a socket shows it: IPv4 may be mapped, IPv6 may carry a zone."""
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, IPv4Address) else address


def _set(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}"


def _source_matches(rule: Rule) -> list[str]:
    """One nft match per address family; none at all where everyone is meant."""
    if rule.everyone:
        return [""]
    matches = []
    for family, kind in (("ip", IPv4Network), ("ip6", IPv6Network)):
        nets = [str(net) for net in rule.sources if isinstance(net, kind)]
        if nets:
            matches.append(f"{family} saddr {_set([_short(net) for net in nets])} ")
    return matches


def _short(network: str) -> str:
    """A single host as nft lists it, without its prefix length."""
    suffix = "/128" if ":" in network else "/32"
    return network.removesuffix(suffix)


def _accepts(rules: Iterable[Rule], port: str) -> list[str]:
    """Accept lines for all rules; C(port) is the match with the protocol left open."""
    return [
        f"{match}{port.format(rule.protocol)} {rule.ports} accept"
        + (f' comment "{rule.comment}"' if rule.comment else "")
        for rule in rules
        for match in _source_matches(rule)
    ]


def _chain(name: str, lines: Iterable[str]) -> list[str]:
    return [f"\tchain {name} {{", *(f"\t\t{line}" for line in lines), "\t}", ""]


def render(rules: Sequence[Rule], settings: Settings) -> str:
    """Write the whole file: in one transaction the old table goes and the new one stands."""
    log = (
        ['limit rate 10/minute burst 20 packets log prefix "berth-firewall: " level info']
        if settings.log
        else []
    )
    containers = _set([f'"{name}"' for name in settings.container_interfaces] or [""])
    inbound = [
        "type filter hook input priority filter; policy drop;",
        'iif "lo" accept',
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        # Without these IPv6 does not work at all: neighbours, routers, groups, DHCPv6 (RFC 4890).
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
        "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
    ]
    if settings.icmp:
        inbound += ["icmp type echo-request accept", "icmpv6 type echo-request accept"]
    if settings.container_interfaces:
        # podman's name server listens on the bridge's address.
        inbound += [
            f'iifname {containers} {protocol} dport 53 accept comment "names for containers"'
            for protocol in ("udp", "tcp")
        ]
    # A published or switched port has been rewritten when it gets here, and what came in as a new
    # connection to 443 is now one to another port: the rules speak of the former.
    inbound += ["ct status dnat jump published", "jump allowed", *log]

    forward = [
        "type filter hook forward priority filter; policy accept;",
        "ct state { established, related } accept",
    ]
    if settings.container_interfaces:
        forward.append(f"iifname {containers} accept")
    forward.append("ct status dnat jump published")
    if settings.container_interfaces:
        # Nor is a container's own address a way in, for those who can route to it.
        forward.append(f"oifname {containers} goto denied")

    return "\n".join(
        [
            "#!/usr/sbin/nft -f",
            "# Managed by berth.platform.firewall: changes here are lost.",
            f"table {TABLE}",
            f"delete table {TABLE}",
            "",
            f"table {TABLE} {{",
            *_chain("allowed", _accepts(rules, "{} dport")),
            *_chain("denied", [*log, "drop"]),
            *_chain(
                "published",
                [
                    *_accepts(rules, "meta l4proto {} ct original proto-dst"),
                    "goto denied",
                ],
            ),
            *_chain("input", inbound),
            *_chain("forward", forward)[:-1],
            "}",
            "",
        ]
    )
