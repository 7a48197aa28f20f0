"""The port ledger: no collision ever, nothing moves that need not, pins win."""

from __future__ import annotations

import random
import time

import pytest
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.ports import (
    Allocation,
    Claim,
    Ledger,
    allocate,
    read_lock,
    render_lock,
)
from catalogs import RIGHT, lock, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

RANGE = (5000, 5199)
RESERVED = (5005, 5006)

names = st.text("abcdefgh", min_size=1, max_size=3)
hosts = st.sampled_from(["h1", "h2"])
services = st.dictionaries(
    st.tuples(hosts, names), st.one_of(st.none(), st.integers(5000, 5060)), max_size=30
)


def claims(wanted: dict[tuple[str, str], int | None], estate: str = "e") -> list[Claim]:
    """A pair for each service: the pin for its first port, where there is one."""
    pinned, first, second = [], [], []
    for (host, name), pin in wanted.items():
        claim = Claim(host, f"{estate}/{name}/1/a", f"services.{name}.port", pin)
        (first if pin is None else pinned).append(claim)
        second.append(Claim(host, f"{estate}/{name}/1/b", f"services.{name}.port"))
    return [*pinned, *first, *second]


def give(
    wanted: dict[tuple[str, str], int | None], ledger: Ledger, estate: str = "e"
) -> tuple[Allocation, Faults]:
    faults = Faults()
    return allocate(claims(wanted, estate), ledger, estate, RANGE, RESERVED, faults), faults


def without_collisions(
    wanted: dict[tuple[str, str], int | None],
) -> dict[tuple[str, str], int | None]:
    """The wishes without pins that contradict each other or the reserved ports."""
    seen: set[tuple[str, int]] = set()
    result = {}
    for (host, name), pin in wanted.items():
        if pin is not None and (pin in RESERVED or (host, pin) in seen):
            pin = None
        if pin is not None:
            seen.add((host, pin))
        result[host, name] = pin
    return result


@given(services, services, services)
def test_no_collision_whatever_comes_after_whatever(
    first: dict[tuple[str, str], int | None],
    second: dict[tuple[str, str], int | None],
    third: dict[tuple[str, str], int | None],
) -> None:
    ledger: Ledger = {}
    for wanted in (first, second, third):
        wanted = without_collisions(wanted)
        allocation, faults = give(wanted, ledger)
        assert not faults
        ledger = allocation.ledger
        by_host: dict[str, set[int]] = {}
        for (host, _owner), port in allocation.ports.items():
            assert port not in by_host.setdefault(host, set())
            by_host[host].add(port)
            assert port not in RESERVED
        assert len(allocation.ports) == 2 * len(wanted)


@given(services)
def test_pins_are_respected(wanted: dict[tuple[str, str], int | None]) -> None:
    wanted = without_collisions(wanted)
    allocation, _faults = give(wanted, {})
    for (host, name), pin in wanted.items():
        if pin is not None:
            assert allocation.ports[host, f"e/{name}/1/a"] == pin


@given(services)
def test_a_second_run_changes_nothing(wanted: dict[tuple[str, str], int | None]) -> None:
    wanted = without_collisions(wanted)
    first, _faults = give(wanted, {})
    second, _faults = give(wanted, first.ledger)
    assert render_lock(second.ledger) == render_lock(first.ledger)
    assert second.ports == first.ports


@given(services, services, st.randoms())
def test_others_never_move(
    kept: dict[tuple[str, str], int | None],
    added: dict[tuple[str, str], int | None],
    order: random.Random,
) -> None:
    """Adding, removing, renaming and reordering leave the ports of the others alone."""
    kept = without_collisions(kept)
    first, _faults = give(kept, {})
    # New services, unpinned: a pin may take a port, and says so.
    grown = {**{key: None for key in added if key not in kept}, **kept}
    items = list(grown.items())
    order.shuffle(items)
    second, _faults = give(dict(items), first.ledger)
    for claim, port in first.ports.items():
        assert second.ports[claim] == port
    third, _faults = give(kept, second.ledger)
    assert third.ports == first.ports


@given(services)
def test_the_same_catalog_gives_the_same_ports_in_any_order(
    wanted: dict[tuple[str, str], int | None],
) -> None:
    from catalogs import inventory

    variables = {
        **RIGHT,
        "platform_ports": {"range": "5000-5199"},
        "platform_services": {
            name: {"hosts": host, "command": "/bin/x"} for (host, name) in wanted
        },
    }
    place = inventory(edge=["h1"], apps=["h1", "h2"])
    plan, faults = plan_of(variables, place)
    turned = {
        **variables,
        "platform_services": dict(reversed(variables["platform_services"].items())),
    }
    again, _faults = plan_of(turned, place)
    assert not faults and plan is not None and again is not None
    assert render_lock(plan.allocation.ledger) == render_lock(again.allocation.ledger)


@given(services)
def test_the_lock_survives_being_written_and_read(
    wanted: dict[tuple[str, str], int | None],
) -> None:
    wanted = without_collisions(wanted)
    first, _faults = give(wanted, {})
    second, _faults = give({}, first.ledger)  # everything freed
    for ledger in (first.ledger, second.ledger):
        text = render_lock(ledger)
        assert render_lock(lock(text)) == text


def test_a_freed_port_is_not_used_again_at_once_but_comes_back_to_its_owner() -> None:
    first, _ = give({("h1", "old"): None}, {})
    old = first.ports["h1", "e/old/1/a"]
    second, _ = give({("h1", "new"): None}, first.ledger)
    assert old not in second.ports.values()
    assert second.ledger["h1"].freed[old] == "e/old/1/a"
    third, _ = give({("h1", "new"): None, ("h1", "old"): None}, second.ledger)
    assert third.ports["h1", "e/old/1/a"] == old
    assert not third.ledger["h1"].freed


def test_an_exhausted_range_takes_the_longest_freed_port_then_tells() -> None:
    ledger: Ledger = {}
    for name in ("a", "b"):
        allocation = allocate(
            [Claim("h1", f"e/{name}", name)], ledger, "e", (5000, 5001), (), Faults()
        )
        ledger = allocation.ledger
    assert ledger["h1"].ports == {5001: "e/b"}
    full = allocate(
        [Claim("h1", "e/b", "b"), Claim("h1", "e/c", "c")], ledger, "e", (5000, 5001), (), Faults()
    )
    assert full.ports["h1", "e/c"] == 5000
    faults = Faults()
    allocate([Claim("h1", f"e/{n}", n) for n in "bcd"], full.ledger, "e", (5000, 5001), (), faults)
    assert "finds no free port on h1: the range 5000-5001 is exhausted" in faults.lines()[0]


def test_a_pin_takes_the_port_of_an_unpinned_service_and_says_so() -> None:
    first, _ = give({("h1", "a"): None}, {})
    port = first.ports["h1", "e/a/1/a"]
    second, faults = give({("h1", "a"): None, ("h1", "b"): port}, first.ledger)
    assert not faults
    assert second.ports["h1", "e/b/1/a"] == port
    assert second.ports["h1", "e/a/1/a"] != port
    assert second.moved == [f"services.a.port leaves port {port} on h1"]


def test_ssh_belongs_to_the_host_and_moves_with_it() -> None:
    from ansible_collections.berth.platform.plugins.module_utils.ports import SSH

    ledger: Ledger = {}
    for estate, port in (("shop-prod", 22), ("shop-qa", 22), ("shop-qa", 2222)):
        faults = Faults()
        wish = [Claim("h1", SSH, "ssh", port, fixed=True)]
        ledger = allocate(wish, ledger, estate, RANGE, (), faults).ledger
        assert not faults
        assert ledger["h1"].ports == {port: SSH}


def test_environments_that_share_a_host_share_the_ledger() -> None:
    prod, _ = give({("h1", "a"): 5001}, {}, "shop-prod")
    qa, faults = give({("h1", "a"): None}, prod.ledger, "shop-qa")
    assert not faults
    assert not set(prod.ports.values()) & set(qa.ports.values())
    assert qa.ledger["h1"].ports[5001] == "shop-prod/a/1/a"
    _third, faults = give({("h1", "a"): 5001}, prod.ledger, "shop-qa")
    assert "shop-prod has it on h1 already" in faults.lines()[0]


CONFLICTS = {
    "conflict markers": ("<<<<<<< HEAD\n      5001: e/a\n", "an unresolved merge conflict"),
    "one port twice": ("      5001: e/a\n      5001: e/b\n", "gives port 5001 to e/a already"),
    "one owner twice": ("      5001: e/a\n      5002: e/a\n", "e/a has another port on h1 already"),
    "nonsense": ("      five: e/a\n", "is not a line of a port lock"),
    "no port": ("      70000: e/a\n", "is no port; use 1-65535"),
}


@pytest.mark.parametrize(("lines", "told"), CONFLICTS.values(), ids=CONFLICTS)
def test_a_damaged_lock_is_refused(lines: str, told: str) -> None:
    faults = Faults()
    read_lock(f"version: 1\nhosts:\n  h1:\n    ports:\n{lines}", "ports.lock.yml", faults)
    assert told in "\n".join(faults.lines())
    assert "ports.lock.yml:" in faults.lines()[0]


@settings(max_examples=1)
@given(st.none())
def test_ten_thousand_services_in_three_environments_in_a_second(_nothing: None) -> None:
    """Allocation under 1 s for all three; each environment has 10,000 services on 20 hosts."""
    ledger: Ledger = {}
    wishes = {
        env: [
            Claim(f"h{number % 20}", f"{env}/s{number}/1/{slot}", f"s{number}")
            for slot in "ab"
            for number in range(10_000)
        ]
        for env in ("prod", "qa", "dev")
    }
    start = time.process_time()
    for env, wanted in wishes.items():
        faults = Faults()
        ledger = allocate(wanted, ledger, env, (1024, 65535), (), faults).ledger
        assert not faults
    spent = time.process_time() - start
    assert sum(len(host.ports) for host in ledger.values()) == 60_000
    assert spent < 1, f"{spent:.2f} s"


def test_ten_thousand_services_are_validated_and_planned_in_three_seconds() -> None:
    hosts = [f"h{number}" for number in range(20)]
    from catalogs import inventory

    environments = []
    for env, count in (("prod", 3334), ("qa", 3333), ("dev", 3333)):
        environments.append(
            {
                "platform_name": "big",
                "platform_env": env,
                "platform_domain": "example.com",
                "platform_ports": {"range": "10000-60000"},
                "platform_services": {
                    f"s{number}": {
                        "hosts": hosts[number % 20],
                        "command": "/usr/bin/x --port {port}",
                        "artifact": {"path": "build/x"},
                        "needs": ["postgresql", "rabbitmq"],
                        "routes": [{"domain": f"s{number}.{env}.example.com"}],
                        "limits": {"memory": "1G"},
                        "env": {"A": "{service}"},
                    }
                    for number in range(count)
                },
            }
        )
    from ansible_collections.berth.platform.plugins.module_utils.catalog import read_catalog
    from ansible_collections.berth.platform.plugins.module_utils.plan import build

    ledger: Ledger = {}
    start = time.process_time()
    for variables in environments:
        faults = Faults()
        own = [f"{variables['platform_env']}1"]  # the environments share the hosts of the services
        place = inventory(edge=own, apps=hosts, postgresql=own, rabbitmq=own)
        catalog = read_catalog(variables, faults)
        assert catalog is not None
        plan = build(catalog, place, ledger, faults)
        assert plan is not None and not faults, faults.lines()[:3]
        ledger = plan.allocation.ledger
    spent = time.process_time() - start
    assert spent < 3, f"{spent:.2f} s"
