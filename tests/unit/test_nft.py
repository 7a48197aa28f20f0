"""Firewall rules: what they mean, what they become, and what is wrong with faulty ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import nft
from hypothesis import given
from hypothesis import strategies as st

PORT = st.integers(1, 65535)
NETWORKS = st.one_of(
    st.ip_addresses().map(str),
    st.builds(
        lambda address, length: str(ip_network((address, length), strict=False)),
        st.ip_addresses(v=4),
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, length: str(ip_network((address, length), strict=False)),
        st.ip_addresses(v=6),
        st.integers(0, 128),
    ),
    st.just("any"),
)
RULE = st.fixed_dictionaries(
    {
        "port": st.one_of(
            PORT,
            st.tuples(PORT, PORT).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        ),
        "sources": st.lists(NETWORKS, max_size=4),
    },
    optional={
        "protocol": st.sampled_from(["tcp", "udp"]),
        "comment": st.one_of(st.none(), st.text(max_size=300)),
    },
)
RULES = st.lists(RULE, max_size=8)
ACCEPT = re.compile(
    r"(?:(?P<family>ip6?) saddr (?P<sources>\{[^}]*\}|\S+) )?"
    r"(?P<protocol>tcp|udp) dport (?P<first>\d+)(?:-(?P<last>\d+))? accept"
    r'(?: comment "[^"\n]+")?'
)


def chain(text: str, name: str) -> list[str]:
    """The lines of one chain."""
    inside = text.partition(f"\tchain {name} {{\n")[2].partition("\t}")[0]
    return [line.strip() for line in inside.splitlines() if line.strip()]


def accepted(text: str, address: str, port: int, protocol: str) -> bool:
    """Read the chain as nft would."""
    for line in chain(text, "allowed"):
        match = ACCEPT.fullmatch(line)
        assert match, line
        first = int(match["first"])
        sources = match["sources"] or "0.0.0.0/0, ::/0"
        assert not match["family"] or (match["family"] == "ip6") == (":" in sources)
        networks = [ip_network(part.strip()) for part in sources.strip("{} ").split(",")]
        if (
            match["protocol"] == protocol
            and first <= port <= int(match["last"] or first)
            and any(ip_address(address) in network for network in networks)
        ):
            return True
    return False


def wanted(rules: list[dict[str, Any]], address: str, port: int, protocol: str) -> bool:
    """What the rules say, read naively."""
    for rule in rules:
        first, _, last = str(rule["port"]).partition("-")
        if (
            rule.get("protocol", "tcp") == protocol
            and int(first) <= port <= int(last or first)
            and any(s == "any" or ip_address(address) in ip_network(s) for s in rule["sources"])
        ):
            return True
    return False


def interesting(rules: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Addresses and ports at the edges of the rules, where mistakes are."""
    for rule in rules:
        first, _, last = str(rule["port"]).partition("-")
        ports = {int(first), int(last or first), int(first) - 1, int(last or first) + 1}
        for source in rule["sources"]:
            network = ip_network("0.0.0.0/0" if source == "any" else source)
            for port in ports & set(range(1, 65536)):
                yield str(network[0]), port
                yield str(network[-1]), port


class TestMeaning:
    """The rendered text and admits() agree with the rules as written."""

    @given(RULES, st.ip_addresses().map(str), PORT, st.sampled_from(["tcp", "udp"]))
    def test_same_everywhere(
        self, raw: list[dict[str, Any]], address: str, port: int, protocol: str
    ) -> None:
        rules = nft.parse_rules(raw)
        text = nft.render(rules, nft.Settings())
        for where, number in [(address, port), *interesting(raw)]:
            expected = wanted(raw, where, number, protocol)
            assert accepted(text, where, number, protocol) == expected
            assert nft.admits(rules, ip_address(where), number, protocol) == expected

    @given(RULES, st.randoms())
    def test_order_and_repetition_do_not_matter(self, raw: list[dict[str, Any]], rng: Any) -> None:
        again = [*raw, *raw]
        rng.shuffle(again)
        settings = nft.Settings()
        assert nft.render(nft.parse_rules(raw), settings) == nft.render(
            nft.parse_rules(again), settings
        )

    @given(st.lists(NETWORKS, max_size=8))
    def test_merged_sources_do_not_overlap(self, sources: list[str]) -> None:
        merged = nft.merge(net for source in sources for net in nft.parse_source(source))
        for one in merged:
            for other in merged:
                assert one is other or one.version != other.version or not one.overlaps(other)

    @given(st.text(max_size=400))
    def test_no_comment_leaves_its_quotes(self, text: str) -> None:
        comment = nft.clean_comment(text)
        assert len(comment.encode()) <= nft.COMMENT_BYTES
        assert comment == "" or comment.isprintable()
        assert not set('"\\\n') & set(comment)

    def test_a_rule_without_sources_lets_nobody_in(self) -> None:
        assert nft.parse_rules([{"port": 80, "sources": []}]) == []

    def test_published_ports_obey_the_same_rules(self) -> None:
        raw = [{"port": 80, "sources": ["any"]}, {"port": 81, "sources": ["10.0.0.1"]}]
        text = nft.render(nft.parse_rules(raw), nft.Settings())
        assert chain(text, "published") == [
            "meta l4proto tcp ct original proto-dst 80 accept",
            "ip saddr 10.0.0.1 meta l4proto tcp ct original proto-dst 81 accept",
            "goto denied",
        ]

    def test_replaces_its_table_only(self) -> None:
        text = nft.render([], nft.Settings())
        assert "flush" not in text
        assert re.findall(r"^(?:delete )?table .*", text, re.M) == [
            "table inet berth",
            "delete table inet berth",
            "table inet berth {",
        ]


class TestSettings:
    """Icmp, logging, containers."""

    def test_icmp(self) -> None:
        assert "icmp type echo-request accept" in nft.render([], nft.Settings(icmp=True))
        silent = nft.render([], nft.Settings(icmp=False))
        assert "echo-request" not in silent
        assert "nd-neighbor-solicit" in silent

    def test_log(self) -> None:
        assert " log prefix" not in nft.render([], nft.Settings())
        assert nft.render([], nft.Settings(log=True)).count(" log prefix") == 2

    def test_without_containers_only_published_ports_are_restricted(self) -> None:
        text = nft.render([], nft.Settings())
        assert "iifname" not in text
        assert "oifname" not in text
        assert "ct status dnat jump published" in chain(text, "forward")

    def test_containers(self) -> None:
        text = nft.render([], nft.Settings(container_interfaces=("podman*",)))
        assert chain(text, "forward")[2:] == [
            'iifname "podman*" accept',
            "ct status dnat jump published",
            'oifname "podman*" goto denied',
        ]

    @pytest.mark.parametrize("name", ["", "*", 'a"b', "a b", "averyverylongname", "a*b"])
    def test_bad_interface(self, name: str) -> None:
        with pytest.raises(nft.RulesError, match="is no interface name"):
            nft.parse_settings({"container_interfaces": [name]})


FAULTY = [
    ({"port": 0, "sources": []}, "firewall_rules[0].port: 0 is outside 1-65535"),
    ({"port": 65536, "sources": []}, "firewall_rules[0].port: 65536 is outside 1-65535"),
    ({"port": "80-70", "sources": []}, "runs backwards, 70-80 would be right"),
    ({"port": "http", "sources": []}, "'http' is neither a port nor a range such as 8000-8010"),
    ({"port": True, "sources": []}, "True is neither a port"),
    ({"sources": []}, "firewall_rules[0].port: None is neither a port"),
    ({"port": 1}, "firewall_rules[0].sources: None is not a list of networks"),
    ({"port": 1, "sources": "any"}, "firewall_rules[0].sources: 'any' is not a list"),
    ({"port": 1, "sources": ["10.0.0.5/24"]}, "10.0.0.0/24 or 10.0.0.5 would be right"),
    ({"port": 1, "sources": ["10.0.0"]}, "firewall_rules[0].sources[0]: '10.0.0' is neither"),
    ({"port": 1, "sources": ["10.0.0.1", "example.org"]}, "sources[1]: 'example.org' is neither"),
    ({"port": 1, "sources": ["fe80::1%eth0"]}, "'fe80::1%eth0'"),
    ({"port": 1, "sources": ["10.0.0.0/33"]}, "'10.0.0.0/33' is neither"),
    ({"port": 1, "sources": [167772161]}, "167772161 is neither an address"),
    ({"port": 1, "sources": [], "protocol": "icmp"}, "'icmp' is not one of tcp, udp"),
    ({"port": 1, "sources": [], "ports": 2}, "unknown key 'ports', known are port, protocol"),
    ("443", "firewall_rules[0]: '443' is not a rule"),
]


class TestFaults:
    """Messages say where, what, and what would be right."""

    @pytest.mark.parametrize(("rule", "message"), FAULTY, ids=lambda value: str(value)[:40])
    def test_message(self, rule: Any, message: str) -> None:
        with pytest.raises(nft.RulesError, match=re.escape(message)):
            nft.parse_rules([rule])

    def test_all_at_once(self) -> None:
        with pytest.raises(nft.RulesError) as caught:
            nft.parse_rules([rule for rule, _ in FAULTY])
        assert len(caught.value.faults) == len(FAULTY)

    def test_not_a_list(self) -> None:
        with pytest.raises(nft.RulesError, match="is not a list"):
            nft.parse_rules({"port": 1})

    @given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists))
    def test_nothing_else_is_raised(self, value: Any) -> None:
        rule = {"port": value, "sources": value, "protocol": value, "comment": value}
        with pytest.raises(nft.RulesError):
            nft.parse_rules([rule])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_peer_address(text: str, address: str) -> None:
    assert nft.peer_address(text) == ip_address(address)
