"""The status page and its text: true to what was seen, and harmless whatever that is."""

from __future__ import annotations

import datetime
import html.parser
import json
import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.report import topology
from ansible_collections.berth.platform.plugins.module_utils.report.from_plan import report_of
from ansible_collections.berth.platform.plugins.module_utils.report.markup import Markup, tag
from ansible_collections.berth.platform.plugins.module_utils.report.model import (
    Certificate,
    Edge,
    Host,
    Port,
    Probe,
    Report,
    Rule,
    Service,
)
from ansible_collections.berth.platform.plugins.module_utils.report.page import page, sources
from ansible_collections.berth.platform.plugins.module_utils.report.text import text
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime.datetime(2026, 11, 20, 19, 40, tzinfo=datetime.timezone.utc)
HOSTILE = "<script>alert(1)</script>\"'&</title></style>"


def seen(name: str, kind: str, target: str, **keys: Any) -> dict[str, Any]:
    """A result as health_probe returns it."""
    return {
        "name": name,
        "type": kind,
        "target": target,
        "unit": None,
        "healthy": True,
        "attempts": 1,
        "elapsed": 0.01,
        "latency": 0.004,
        "first_error": None,
        "last_error": None,
        "detail": {},
        **keys,
    }


PLAN: dict[str, Any] = {
    "name": "shop",
    "env": "prod",
    "hosts": {
        "web1": {
            "address": "10.0.0.1",
            "components": ["edge"],
            "app": {
                "services": [
                    {
                        "name": "sales",
                        "unit": "shop-sales",
                        "instances": [{"unit": "shop-sales", "port": 5001, "standby_port": 5002}],
                    }
                ]
            },
            "static_site": {"sites": [{"name": "shop-front-prod"}]},
        },
        "db1": {"address": "10.0.0.2", "components": ["postgresql"], "app": {"services": []}},
    },
    "edges": [
        {"source": "edge", "target": "sales", "port": 5001, "why": "route"},
        {"source": "edge", "target": "front", "port": 443, "why": "route"},
        {"source": "sales", "target": "postgresql", "port": 5432, "why": "needs"},
    ],
    "ports": [
        {"host": "web1", "port": 443, "owner": "shop-prod/https", "kind": "component"},
        {"host": "web1", "port": 5001, "owner": "shop-prod/sales/1/a", "kind": "active"},
        {"host": "web1", "port": 5002, "owner": "shop-prod/sales/1/b", "kind": "standby"},
        {"host": "db1", "port": 5432, "owner": "shop-prod/postgresql", "kind": "component"},
    ],
    "reachability": [
        {"host": "web1", "port": 443, "protocol": "tcp", "sources": ["any"], "why": ["https"]},
        {
            "host": "db1",
            "port": 5432,
            "protocol": "tcp",
            "sources": ["10.0.0.1/32", "192.168.0.0/16"],
            "why": ["sales → postgresql"],
        },
    ],
}
HEALTH: dict[str, Any] = {
    "web1": {
        "probes": [
            seen("sales unit", "systemd", "shop-sales.service", unit="shop-sales.service"),
            seen("sales ready", "http", "http://127.0.0.1:5001/ready", detail={"status": 200}),
            seen(
                "certificate",
                "tls",
                "127.0.0.1:443",
                detail={"days": 9.5, "not_after": "2026-11-30T07:40:00Z", "names": ["shop.test"]},
            ),
        ]
    },
    "db1": {
        "probes": [
            seen(
                "database",
                "postgresql",
                "127.0.0.1:5432",
                healthy=False,
                latency=None,
                last_error="57P03 the database system is starting up",
                unit="postgresql.service",
            )
        ]
    },
}
BACKUPS: dict[str, Any] = {
    "db1": {
        "stanza": "shop",
        "problems": [
            "WAL is not archived: 00000001 failed last",
            "repository offsite holds no backup",
        ],
        "repositories": [
            {
                "name": "local",
                "ok": True,
                "message": "ok",
                "backups": 3,
                "latest": {"label": "20261120-020000F", "age_hours": 17.6, "size": 2048},
            },
            {"name": "offsite", "ok": False, "message": "no valid backups", "backups": 0},
        ],
        "restore_check": {
            "ok": True,
            "repositories": [{"repository": "local", "ok": True, "rows": 7}],
        },
    }
}


def report(**keys: Any) -> Report:
    given = {"plan": PLAN, "health": HEALTH, "backups": BACKUPS, "made_at": NOW, **keys}
    return report_of(**given)


# From the plan


def test_what_the_plan_says_and_what_was_seen() -> None:
    found = report()
    assert found.hosts[0] == Host(
        "web1",
        "10.0.0.1",
        ("edge",),
        (Service("sales", "shop-sales", 5001, 5002), Service("front")),
    )
    assert [port.owner for port in found.ports] == ["https", "sales", "sales", "postgresql"]
    assert [probe.healthy for probe in found.probes] == [True, True, True, False]
    assert found.probes[1].says == "200" and found.probes[1].port == 5001
    assert found.certificates == (Certificate("web1", ("shop.test",), 9.5, "2026-11-30T07:40:00Z"),)
    assert [(each.repository, each.ok, each.note) for each in found.backups] == [
        ("local", True, "restored on trial: 7 rows"),
        ("offsite", False, "no valid backups"),
    ]
    assert list(found.attention()) == [
        (
            "db1",
            "database: 57P03 the database system is starting up",
            "journalctl -u postgresql.service",
        ),
        ("db1", "backup of shop in offsite: no valid backups", ""),
        ("db1", "WAL is not archived: 00000001 failed last", ""),
    ]
    assert not found.well


def test_a_host_that_was_not_reached() -> None:
    gone = {
        "unreachable": True,
        "msg": "Task failed: Data\ncould not be sent" + " x" * 99 + " timed out",
    }
    found = report(health={**HEALTH, "db1": gone}, backups={"db1": {"msg": "it is not there yet"}})
    reason = found.hosts[1].error
    assert reason.startswith("Data could not be sent x") and reason.endswith(" timed out")
    assert list(found.attention()) == [
        ("db1", "not reached", reason),
        ("db1", "the state of the backups is unknown: it is not there yet", ""),
    ]
    assert "not reached" in page(found) and "not reached" in text(found)


def test_a_plan_alone() -> None:
    found = report(health={}, backups={})
    assert found.well and found.probes == ()
    whole = page(found)
    assert "not probed" in whole and 'id="probes"' not in whole and 'id="ports"' in whole


def test_nothing_at_all() -> None:
    empty = Report("shop", "prod", NOW)
    assert "0 hosts" in page(empty) and "Hosts" in text(empty)


# The page


class Checker(html.parser.HTMLParser):
    """Every element is closed in its turn; remembers what the page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(name)
        self.attributes += [(key, value or "") for key, value in attributes]
        if name not in ("meta", "br"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)


def checked(found: Report) -> Checker:
    checker = Checker()
    checker.feed(page(found))
    checker.close()
    assert checker.open == []
    return checker


def harmless(checker: Checker) -> None:
    assert not checker.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    for key, value in checker.attributes:
        assert not key.startswith("on") and key not in ("src", "srcset", "action", "xlink:href")
        if key == "href":
            assert value.startswith("#")
        if key == "style":
            assert re.fullmatch(r"(max-)?width:[0-9]+px", value)


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    found = checked(report())
    harmless(found)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert "url(" not in re.sub(r"url\(#head\d\)", "", page(report()))
    assert {"svg", "table", "details"} <= found.tags


def test_everything_is_escaped() -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(each) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each) for each in value]
        return value + HOSTILE if isinstance(value, str) else value

    plan, health = spoil(PLAN), spoil(HEALTH)
    for name in ("web1", "db1"):
        plan["hosts"][name + HOSTILE] = plan["hosts"].pop(name)
        health[name + HOSTILE] = health.pop(name)
    health["gone" + HOSTILE] = {"msg": HOSTILE}
    plan["hosts"]["gone" + HOSTILE] = {"components": ["edge" + HOSTILE]}
    found = report(plan=plan, health=health, backups={"db1" + HOSTILE: spoil(BACKUPS["db1"])})
    harmless(checked(found))
    assert "<script" not in page(found)


def test_sections_and_figures() -> None:
    words = " ".join(checked(report()).words)
    for expected in (
        "3 things to see to",
        "3 of 4",
        "journalctl -u postgresql.service",
        "57P03 the database system is starting up",
        "shop.test",
        "10 days",
        "20261120-020000F",
        "PostgreSQL",
        "everyone",
        "192.168.0.0/16",
        "sales next",
    ):
        assert expected in words, expected


def test_many_things_to_see_to_are_folded() -> None:
    probes = tuple(
        Probe("web1", f"p{n}", "tcp", f"127.0.0.1:{n + 1}", False, None, "connection refused")
        for n in range(30)
    )
    whole = page(Report("shop", "prod", NOW, (Host("web1"),), probes=probes))
    assert "20 more" in whole and whole.count("connection refused") >= 30


def test_sources_are_hosts_networks_and_everyone() -> None:
    assert sources(report()) == ["everyone", "192.168.0.0/16", "web1"]


def test_markup_escapes_by_itself() -> None:
    assert tag("b", "<", Markup("<br>"), None, 1, [">"]) == "<b>&lt;<br>1&gt;</b>"
    assert tag("a", class_="x y", data_name='"', hidden=True, title=None) == (
        '<a class="x y" data-name="&quot;" hidden></a>'
    )


# The topology

slugs = st.text("abcdefgh", min_size=1, max_size=5)


@st.composite
def platforms(draw: st.DrawFn) -> Report:
    names = draw(st.lists(slugs, min_size=1, max_size=12, unique=True))
    services = draw(st.lists(slugs, min_size=1, max_size=20, unique=True))
    engines = ["postgresql", "rabbitmq", "redis"]
    hosts = []
    for name in names:
        own = draw(st.lists(st.sampled_from(services), max_size=25))
        parts = draw(st.lists(st.sampled_from(["edge", *engines]), unique=True))
        hosts.append(Host(name, "", tuple(parts), tuple(Service(each) for each in own)))
    ends = st.sampled_from([*services, *engines, "edge"])
    edges = draw(
        st.lists(st.builds(Edge, ends, ends, st.just(1), st.sampled_from(["needs", "route"])))
    )
    return Report("p", "e", NOW, tuple(hosts), tuple(edges))


def _apart(one: Any, other: Any, one_height: float, other_height: float) -> bool:
    return bool(
        one.x + one.width <= other.x + 0.01
        or other.x + other.width <= one.x + 0.01
        or one.y + one_height <= other.y + 0.01
        or other.y + other_height <= one.y + 0.01
    )


@settings(deadline=None, max_examples=60)
@given(platforms())
def test_nothing_overlaps_and_everything_is_inside(found: Report) -> None:
    drawn = topology.lay_out(found)
    for one, other in combinations(drawn.boxes, 2):
        assert _apart(one, other, one.height, other.height)
    for one, other in combinations(drawn.nodes, 2):
        assert _apart(one, other, topology.NODE_HEIGHT, topology.NODE_HEIGHT)
    for box in drawn.boxes:
        assert box.x >= 0 and box.x + box.width <= drawn.width
        assert box.y >= 0 and box.y + box.height <= drawn.height + 0.01
        for node in box.nodes:
            assert box.x < node.x and node.x + node.width < box.x + box.width
            assert box.y + topology.HEAD <= node.y + 0.01
            assert node.y + topology.NODE_HEIGHT < box.y + box.height
    assert topology.lay_out(found) == drawn
    harmless(checked(found))


def test_arrows_lead_to_what_is_on_the_same_host_and_routes_to_all() -> None:
    def host(name: str) -> Host:
        return Host(name, "", ("postgresql",), (Service("sales"),))

    edges = (Edge("sales", "postgresql", 5432, "needs"), Edge("edge", "sales", 1, "route"))
    front = Host("edge1", "", ("edge",))
    drawn = topology.lay_out(Report("p", "e", NOW, (front, host("a"), host("b")), edges))
    pairs = [
        (drawn.nodes[each.source].host, drawn.nodes[each.target].host) for each in drawn.arrows
    ]
    assert sorted(pairs) == [("a", "a"), ("b", "b"), ("edge1", "a"), ("edge1", "b")]


def test_a_node_is_as_healthy_as_its_probes() -> None:
    drawn = topology.lay_out(report())
    state = {node.name: node.healthy for node in drawn.nodes}
    assert state == {"edge": True, "sales": True, "front": True, "postgresql": False}


def test_many_arrows_are_bundled() -> None:
    services = [Service(f"s{n}") for n in range(50)]
    hosts = [Host(f"h{n}", "", (), tuple(services[n * 5 : n * 5 + 5])) for n in range(10)]
    hosts.append(Host("db", "", ("postgresql", "rabbitmq")))
    edges = [
        Edge(service.name, engine, 1, "needs")
        for service in services
        for engine in ("postgresql", "rabbitmq")
    ]
    drawn = topology.lay_out(Report("p", "e", NOW, tuple(hosts), tuple(edges)))
    assert len(drawn.arrows) == 100
    assert len(drawn.bundles) == 20 and {each.count for each in drawn.bundles} == {5}


def test_a_large_platform_is_still_a_page() -> None:
    hosts = []
    for n in range(100):
        services = tuple(Service(f"s{n}-{k}", "", 5000 + k) for k in range(10))
        hosts.append(Host(f"h{n}", f"10.0.0.{n}", (), services))
    ports = tuple(Port(host.name, 5000 + k, f"s{k}", "active") for host in hosts for k in range(10))
    rules = tuple(Rule(host.name, 22, "tcp", ("any",), ("ssh",)) for host in hosts)
    assert len(page(Report("p", "e", NOW, tuple(hosts), ports=ports, rules=rules))) < 3_000_000


# The text


def test_text() -> None:
    lines = text(report()).splitlines()
    assert lines[0] == "shop prod, looked at 2026-11-20 19:40 UTC"
    assert lines[2] == "To see to (3)"
    assert "sales  postgresql:5432" in lines
    assert "db1   5432/tcp  web1, 192.168.0.0/16  sales → postgresql" in lines
    probes = lines[lines.index("Probes") + 4]
    assert probes.split()[:4] == ["db1", "database", "127.0.0.1:5432", "UNHEALTHY"]


# The action


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        health_result: "{{ health[inventory_hostname] }}"
    - ansible.builtin.set_fact:
        backup_status: {rc: 0, stdout: "{{ backups[inventory_hostname] | to_json }}"}
      when: inventory_hostname in backups
    - berth.platform.report:
        plan: "{{ plan }}"
        html: status.html
        text: status.txt
      register: made
      run_once: true
    - ansible.builtin.debug:
        var: made
      run_once: true
"""


def play(directory: Path, *options: str) -> str:
    """Run the playbook there; what it printed."""
    (directory / "report.yml").write_text(PLAYBOOK)
    values = {"plan": PLAN, "health": HEALTH, "backups": BACKUPS}
    (directory / "values.json").write_text(json.dumps(values))
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "--inventory=web1,db1",
        "--extra-vars=@values.json",
        "report.yml",
        *options,
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work" / "collections"),
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_action_writes_both_and_shows_the_text(tmp_path: Path) -> None:
    printed = play(tmp_path)
    whole = (tmp_path / "status.html").read_text(encoding="utf-8")
    assert whole.startswith("<!doctype html>") and "3 things to see to" in whole
    shown = (tmp_path / "status.txt").read_text(encoding="utf-8")
    assert shown in printed and "To see to (3)" in shown
    assert "well: false" in printed and f"html: {tmp_path}/status.html" in printed


def test_the_action_writes_nothing_in_check_mode(tmp_path: Path) -> None:
    assert "To see to (3)" in play(tmp_path, "--check")
    assert not (tmp_path / "status.html").exists() and not (tmp_path / "status.txt").exists()


@pytest.mark.parametrize("kind", ["edge", "postgresql"])
def test_every_component_has_a_place(kind: str) -> None:
    drawn = topology.lay_out(Report("p", "e", NOW, (Host("h", "", (kind,)),)))
    assert drawn.nodes[0].label == topology.LABELS[kind]
