"""What holds for every system: from fresh hosts to a reboot, seen from outside."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from harness import ROOT, SCANNER, Host, Play, System

# Removed, and not there yet when the packages are only thought of.
BROUGHT_BY_PACKAGES = {"/etc/nginx/sites-enabled/default"}
# Listen where no plan knows of them, so that what is shut is shut by the firewall.
PLANTED_TCP = 47111
PLANTED_UDP = (161, 5353, 47112)
PLANTED = f"""
import selectors, socket
ready = selectors.DefaultSelector()
for port in {PLANTED_UDP}:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    ready.register(s, selectors.EVENT_READ)
tcp = socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("0.0.0.0", {PLANTED_TCP}))
tcp.listen()
print("listening")
while True:
    for key, _ in ready.select():
        key.fileobj.sendto(b"heard", key.fileobj.recvfrom(9)[1])
"""
ASK_UDP = """
import json, socket, sys
data, heard = json.load(sys.stdin), []
for port in data["ports"]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(data["wait"])
        try:
            s.connect((data["target"], port))
            s.send(b"x")
            heard.append((port, s.recv(9).decode()))
        except OSError:
            pass
print(json.dumps([port for port, _ in heard]))
"""
# Tasks that may differ between the prediction and the run, each with its reason.
TOLERATED: dict[str, str] = {}


def by_task(changes: set[tuple[str, str]]) -> set[str]:
    return {f"{host}: {task}" for host, task in changes if task not in TOLERATED}


def assert_all_healthy(system: System, play: Play) -> None:
    """Every probe of the plan was made, and every one was answered."""
    for name, health in system.planned("health").items():
        planned = {probe["name"] for probe in health["probes"]}
        assert planned, f"nothing is probed on {name}"
        seen = play.probes(name)
        assert set(seen) >= planned
        assert all(seen.values()), [probe for probe, healthy in seen.items() if not healthy]


# ------------------------------------------------------------------------- from nothing, and again


@pytest.mark.stage(10)
def test_a_dry_run_over_fresh_hosts_runs_to_its_end(system: System) -> None:
    play = system.first_check
    play.expect(0)
    assert set(play.recap) == set(system.hosts)
    assert play.changes or not system.fresh


@pytest.mark.stage(20)
def test_it_converges_and_every_probe_is_healthy(system: System) -> None:
    play = system.first_run
    play.expect(0)
    assert_all_healthy(system, play)


@pytest.mark.stage(21)
def test_the_dry_run_has_predicted_what_changed(converged: System) -> None:
    predicted, real = by_task(converged.first_check.changes), by_task(converged.first_run.changes)
    assert sorted(predicted - real) == [], "predicted, and did not change"
    assert sorted(real - predicted) == [], "changed, and was not predicted"
    predicted_paths, real_paths = converged.first_check.paths, converged.first_run.paths
    assert sorted(predicted_paths - real_paths) == [], "predicted, and did not change"
    surprises = {path for _host, path in real_paths - predicted_paths} - BROUGHT_BY_PACKAGES
    # What the certificates' marker tells nginx of was predicted, and changed, a role before.
    assert [path for path in surprises if not path.startswith("/etc/berth/tls/")] == []


@pytest.mark.stage(22)
def test_the_ports_are_those_of_the_committed_lock(converged: System) -> None:
    committed = ROOT / "inventories" / converged.entry.name / "ports.lock.yml"
    assert converged.lock.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")


@pytest.mark.stage(30)
def test_a_second_run_changes_nothing(converged: System) -> None:
    before = converged.lock.read_text(encoding="utf-8")
    play = converged.play("site.yml", "--diff")
    assert sorted(play.changes) == []
    assert {name: counts["changed"] for name, counts in play.recap.items()} == dict.fromkeys(
        converged.hosts, 0
    )
    assert [each["task"] for each in play.results if each["handler"]] == []
    assert converged.lock.read_text(encoding="utf-8") == before
    assert_all_healthy(converged, play)


# ------------------------------------------------------------------------------ seen from outside


def listening(host: Host) -> set[int]:
    """The TCP ports on which something listens for others than the host itself."""
    found = set()
    for line in host.out("ss -Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        plain = address.strip("[]").split("%")[0]
        if plain == "*" or not ipaddress.ip_address(plain).is_loopback:
            found.add(int(port))
    return found


def admitted(plan: dict[str, Any], host: str, source: str) -> set[int]:
    """The ports of a host that the plan opens to an address."""

    def within(network: str) -> bool:
        return network == "any" or ipaddress.ip_address(source) in ipaddress.ip_network(network)

    return {
        rule["port"]
        for rule in plan["reachability"]
        if rule["host"] == host and rule["protocol"] == "tcp" and any(map(within, rule["sources"]))
    }


def scan(system: System, name: str, source: str, ports: Any = None) -> set[int]:
    """The open TCP ports of a host, of all or of those given, from an address of the scanner."""
    asked = ports or {"first": 1, "last": 65535}
    target = system.addresses[name]
    answer = system.scanner.script("portscan", target=target, source=source, ports=asked)
    return set(answer["open"])


@pytest.mark.stage(40)
def test_what_is_open_is_what_the_plan_says(converged: System, stranger: str) -> None:
    standby = {(p["host"], p["port"]) for p in converged.plan["ports"] if p["kind"] == "standby"}
    with ExitStack() as stack:
        for host in converged.hosts.values():
            stack.enter_context(host.background(PLANTED))
        wanted, scans = {}, {}
        # Two at a time: each keeps one core busy.
        pool = stack.enter_context(ThreadPoolExecutor(2))
        for source in (converged.addresses[SCANNER], stranger):
            for name, host in converged.hosts.items():
                planned, heard = admitted(converged.plan, name, source), listening(host)
                assert PLANTED_TCP in heard
                silent = {port for port in planned - heard if (name, port) not in standby}
                assert not silent, f"{name}: planned to be open, and nothing listens"
                wanted[name, source] = planned & heard
                scans[name, source] = pool.submit(scan, converged, name, source)
        opened = {each: found.result() for each, found in scans.items()}
        for (name, source), found in opened.items():
            converged.say(f"{name} from {source}: open {sorted(found)}")
        assert opened == wanted


@pytest.mark.stage(41)
def test_no_datagram_gets_through(converged: System) -> None:
    for host in converged.hosts.values():
        with host.background(PLANTED):
            asked = {"ports": PLANTED_UDP, "wait": 0.5}
            command = f"exec python3 -c '{ASK_UDP}'"
            for where, target, heard in (
                (host, "127.0.0.1", list(PLANTED_UDP)),
                (converged.scanner, host.address, []),
            ):
                answer = where.out(command, json.dumps({"target": target, **asked}))
                assert answer == str(heard), f"{host.name} from {where.name}"


# ------------------------------------------------------------------------- who may log in where


def urls(system: System, variable: str) -> Iterator[tuple[Host, str, str]]:
    """Host, unit and address of what each instance is given under a name."""
    for host, _service, instance in system.services():
        if value := instance["secret_environment"].get(variable):
            yield host, instance["unit"], system.reveal(value)


@pytest.mark.stage(42)
@pytest.mark.parametrize("kind", ["postgresql", "rabbitmq"])
def test_credentials_open_nothing_but_their_own(converged: System, kind: str) -> None:
    variable = {"postgresql": "DATABASE_URL", "rabbitmq": "AMQP_URL"}[kind]
    given = list(urls(converged, variable))
    spaces = sorted({url.rpartition("/")[2] for _host, _unit, url in given})
    foreign = [*spaces, *({"postgresql": ["postgres", "template1"], "rabbitmq": ["%2F"]}[kind])]
    assert given
    for host, unit, url in given:
        base, _, own = url.rpartition("/")
        attempts = [{"kind": kind, "url": f"{base}/{space}"} for space in foreign]
        answers = host.script("credentials", attempts=attempts)
        outcomes = {space: each["outcome"] for space, each in zip(foreign, answers, strict=True)}
        expected = {space: "in" if space == own else "denied" for space in foreign}
        assert outcomes == expected, f"{unit}: {answers}"
    # A wrong password is refused, so that it was the right one that got in.
    host, unit, url = given[0]
    wrong = re.sub(r":[^:@/]+@", ":wrong@", url)
    (answer,) = host.script("credentials", attempts=[{"kind": kind, "url": wrong}])
    assert answer["outcome"] == "denied", answer


# ------------------------------------------------------------------------------ parts of a converge


def tags(system: System) -> list[str]:
    """The tags of site.yml that name a part of it."""
    play = system.play("site.yml", "--list-tags")
    found = {
        tag.strip()
        for names in re.findall(r"TASK TAGS: \[(.*?)\]", play.output)
        for tag in names.split(",")
    }
    return sorted(found - {"always", ""})


@pytest.mark.stage(50)
def test_a_part_alone_does_not_fail_and_changes_nothing(converged: System) -> None:
    chosen = tags(converged)
    assert {"base", "firewall", "tls", "postgresql", "rabbitmq", "app", "nginx"} <= set(chosen)
    for tag in chosen if converged.entry.every_tag else ["nginx"]:
        play = converged.play("site.yml", "--diff", "--tags", tag)
        assert sorted(play.changes) == [], tag


@pytest.mark.stage(51)
def test_one_host_alone_does_not_fail_and_changes_nothing(converged: System) -> None:
    if len(converged.hosts) == 1:
        pytest.skip("there is one host")
    last = list(converged.hosts)[-1]
    play = converged.play("site.yml", "--diff", "--limit", last)
    assert sorted(play.changes) == []
    assert set(play.recap) == {last}


# ------------------------------------------------------------------------------ back in time


def items(host: Host, instance: dict[str, Any], **request: Any) -> dict[str, Any]:
    """A request to the service itself, on its own host."""
    answer = host.script(
        "request",
        host="items",
        address=instance["bind"],
        port=instance["port"],
        path="/items",
        **request,
    )
    assert answer["status"] in (200, 201), answer
    found: dict[str, Any] = json.loads(answer["text"])
    return found


@pytest.mark.stage(80)
def test_the_database_goes_back_to_a_moment_between_two_writes(converged: System) -> None:
    (name,) = converged.planned("postgresql")
    database = converged.host(name)
    host, _service, instance = next(
        each for each in converged.services() if "DATABASE_URL" in each[2]["secret_environment"]
    )
    items(host, instance, method="POST", body='{"name": "first"}')
    time.sleep(1.1)
    moment = database.psql("SELECT now()")
    time.sleep(1.1)
    items(host, instance, method="POST", body='{"name": "second"}')
    before = [each["name"] for each in items(host, instance)["items"]]
    assert before[:2] == ["second", "first"]

    asked = ["-e", f"restore_time='{moment}'"]
    refused = converged.play("playbooks/restore.yml", *asked, rc=2)
    assert f"restore_confirm={name}" in refused.output
    assert refused.changes == set()
    converged.play("playbooks/restore.yml", *asked, "-e", f"restore_confirm={name}")
    after = [each["name"] for each in items(host, instance)["items"]]
    assert after == before[1:]
    # It is the live database again: it takes writes, and is backed up and probed as before.
    items(host, instance, method="POST", body='{"name": "third"}')
    assert_all_healthy(converged, converged.play("playbooks/health.yml"))


# ------------------------------------------------------------------------------ a reboot


@pytest.mark.stage(90)
def test_a_reboot_brings_everything_back(converged: System) -> None:
    began = time.monotonic()
    converged.reboot()
    while True:
        play = converged.play("playbooks/health.yml", rc=None)
        if play.rc == 0:
            break
        if time.monotonic() - began > 120:
            play.expect(0)
    converged.say(f"healthy {time.monotonic() - began:.1f} s after the reboot began")
    assert_all_healthy(converged, play)
    # It went down in order, nothing was killed.
    for name in converged.planned("postgresql"):
        started = "ls -t /var/log/postgresql/*.log | head -1 | xargs grep -h 'database system was'"
        assert "was shut down at" in converged.host(name).out(started).splitlines()[-1]


@pytest.mark.stage(91)
def test_the_firewall_is_back_after_the_reboot(converged: System, stranger: str) -> None:
    for name, host in converged.hosts.items():
        with host.background(PLANTED):
            heard = listening(host)
            opened = scan(converged, name, stranger, ports=sorted(heard))
            assert opened == admitted(converged.plan, name, stranger) & heard
