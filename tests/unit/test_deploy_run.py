"""A deploy on a host that is played: what the port leads to is ready, whatever happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    DeployFailed,
    Service,
    Slot,
    State,
    dump,
    load,
    services_from,
)
from ansible_collections.berth.platform.plugins.module_utils.deploy_host import Look, Machine
from ansible_collections.berth.platform.plugins.module_utils.deploy_run import Deploy, Outcome


class Killed(BaseException):
    """kill -9."""


class Fake(Machine):
    """A host in memory. Releases whose name begins with C(bad-) misbehave as it says."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.releases = {"v1", "v2", "v3", "bad-exits", "bad-never", "bad-dies", "bad-port"}
        self.saved: dict[str, str] = {}
        self.map: dict[tuple[str, int], int] = {}
        # By unit: port and version, and since when.
        self.running: dict[str, tuple[int, str, float]] = {}
        self.open: dict[int, float] = {}
        self.active: str | None = None
        self.histories: dict[str, list[Mapping[str, Any]]] = {}
        self.calls = 0
        self.kill_at = 0
        self.broken_switch = False
        self.stopped: list[str] = []
        # What watches: whether the port has ever led nowhere since something served.
        self.watch: tuple[str, int] | None = None
        self.outages: list[str] = []

    def tick(self, what: str) -> None:
        self.calls += 1
        if self.watch:
            here = self.map.get(self.watch, self.watch[1])
            if not self.well(here):
                self.outages.append(what)
        if self.kill_at and self.calls == self.kill_at:
            raise Killed(what)

    def well(self, port: int) -> bool:
        for at, version, since in self.running.values():
            if at == port:
                age = self.clock - since
                if version in ("bad-never", "bad-port", "bad-exits"):
                    return False
                return not (version == "bad-dies" and age > 5)
        return False

    # time
    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        self.tick("sleep")

    # state
    def state(self, unit: str) -> State | None:
        return load(self.saved.get(unit, ""))

    def save(self, unit: str, state: State) -> None:
        self.tick("save")
        self.saved[unit] = dump(state)

    def forget(self, unit: str) -> None:
        self.saved.pop(unit, None)

    def states(self) -> dict[str, State]:
        return {unit: state for unit in self.saved if (state := self.state(unit))}

    def record(self, unit: str, entry: Mapping[str, Any]) -> None:
        self.tick("record")
        self.histories.setdefault(unit, []).append(entry)

    # files
    def content(self, path: str) -> str | None:
        return self.files.get(path)

    def bring(self, slot: Slot) -> None:
        self.tick("bring")
        self.files.update({str(each["path"]): str(each["content"]) for each in slot.files})

    def link(self, path: str, target: str) -> None:
        self.tick("link")
        self.links[path] = target

    def unlink(self, path: str) -> None:
        self.tick("unlink")
        self.links.pop(path, None)

    def linked(self, path: str) -> str:
        return self.links.get(path, "").rpartition("/")[2]

    def installed(self, path: str) -> bool:
        return path.rpartition("/")[2] in self.releases

    def current(self, service: Service) -> str | None:
        return self.active

    def finish(self, service: Service) -> list[str]:
        self.tick("finish")
        self.active = service.version
        return []

    # systemd
    def looks(self, units: Sequence[str]) -> dict[str, Look]:
        found = {}
        for unit in units:
            one = self.running.get(unit)
            if one is None:
                found[unit] = Look()
            elif one[1] == "bad-exits" or (one[1] == "bad-dies" and self.clock - one[2] > 5):
                found[unit] = Look("activating", "auto-restart", 1, "exit-code", "3")
            else:
                found[unit] = Look("active", "running")
        return found

    def reload(self, units: Sequence[str]) -> None:
        self.tick("reload")

    def start(self, units: Sequence[str], seconds: float) -> str:
        self.tick("start")
        for unit in units:
            name = unit.removesuffix(".service")
            link = f"/srv/shop/slots/{name}"
            if link in self.links:
                port = int(self.files[f"/etc/berth/services/{name}.env"].partition("=")[2])
                self.running[unit] = (port, self.linked(link), self.clock)
        return ""

    def stop(self, unit: str) -> None:
        self.tick("stop")
        self.running.pop(unit, None)
        self.stopped.append(unit)

    def logs(self, unit: str, files: Sequence[str]) -> str:
        return f"last words of {unit}"

    # network
    def leads(self) -> list[tuple[str, int, int]]:
        return [(address, port, to) for (address, port), to in self.map.items()]

    def switch(self, address: str, port: int, to: int) -> None:
        self.tick("switch")
        if to == port:
            self.map.pop((address, port), None)
        else:
            self.map[(address, port)] = 9 if self.broken_switch else to

    def connections(self, port: int) -> int:
        return int(self.open.get(port, 0) > self.clock)

    def listens(self, unit: str) -> list[str]:
        return ["127.0.0.1:7777"]

    def holder(self, port: int) -> str:
        return ""

    def probe(self, probes: Sequence[Mapping[str, Any]], *, direct: bool) -> str:
        self.tick("probe")
        for each in probes:
            port = int(each["port"])
            if not self.well(port if direct else self.map.get(("127.0.0.1", port), port)):
                return "connection refused"
        return ""


def given(name: str = "shop", count: int = 1, env: str = "", **more: Any) -> dict[str, Any]:
    def slot(unit: str, port: int) -> dict[str, Any]:
        return {
            "unit": unit,
            "port": port,
            "link": f"/srv/shop/slots/{unit}",
            "credentials": f"/etc/berth/credentials/{unit}",
            "files": [
                {
                    "path": f"/etc/berth/services/{unit}.env",
                    "content": f"PORT={port}",
                    "mode": "0600",
                },
                {
                    "path": f"/etc/systemd/system/{unit}.service",
                    "content": f"unit {env}",
                    "mode": "0644",
                },
            ],
            "probes": [{"port": port}],
        }

    return {
        "name": name,
        "unit": name,
        "home": "/srv/shop",
        "patience": 10,
        "stable": 8,
        "drain": 30,
        "instances": [
            {
                "unit": f"{name}-{number}",
                "address": "127.0.0.1",
                "port": 5000 + 2 * number,
                "slots": {
                    "a": slot(f"{name}-{number}", 5000 + 2 * number),
                    "b": slot(f"{name}-{number}-b", 5001 + 2 * number),
                },
                "probes": [{"port": 5000 + 2 * number}],
            }
            for number in range(1, count + 1)
        ],
        **more,
    }


def deploy(machine: Fake, version: str, action: str = "converge", **more: Any) -> Outcome:
    """One deploy of the shop; what it said is in its lines."""
    lines: list[str] = []
    runner = Deploy(machine, lines.append, who="me", action=action, clock=lambda: "now")
    (outcome,) = runner.run(services_from([given(**more)], {"shop": version}))
    outcome.pruned = lines
    return outcome


def serving(machine: Fake, number: int = 1) -> str:
    """The release that answers on an instance's port."""
    port = machine.map.get(("127.0.0.1", 5000 + 2 * number), 5000 + 2 * number)
    versions = [version for at, version, _since in machine.running.values() if at == port]
    return versions[0] if versions and machine.well(port) else "nothing"


@pytest.fixture
def host() -> Fake:
    """A host on which v1 serves."""
    machine = Fake()
    assert deploy(machine, "v1").result == "ok"
    machine.watch = ("127.0.0.1", 5002)
    return machine


class TestFirst:
    def test_it_starts_in_the_first_slot(self) -> None:
        machine = Fake()
        outcome = deploy(machine, "v1")
        assert (outcome.result, outcome.reasons) == ("ok", ["shop-1: it is new"])
        assert serving(machine) == "v1"
        assert machine.map == {}
        assert machine.active == "v1"
        assert machine.links == {"/srv/shop/slots/shop-1": "../releases/v1"}

    def test_unchanged(self, host: Fake) -> None:
        calls = host.calls
        assert deploy(host, "v1").result == "unchanged"
        assert host.calls == calls

    def test_one_that_is_never_ready_is_told(self) -> None:
        machine = Fake()
        outcome = deploy(machine, "bad-never")
        assert outcome.result == "failed"
        assert "the step 'probe' failed: is not ready after 10 s" in outcome.message
        assert "serves on" not in outcome.message
        assert deploy(machine, "bad-never").result == "failed"
        assert deploy(machine, "v1").result == "ok"
        assert serving(machine) == "v1"

    def test_a_unit_that_was_restarted_before_is_adopted(self) -> None:
        machine = Fake()
        machine.running["shop-1.service"] = (5002, "v1", 0.0)
        machine.active = "v1"
        machine.watch = ("127.0.0.1", 5002)
        assert deploy(machine, "v1").result == "ok"
        assert machine.running.keys() == {"shop-1-b.service"}
        assert machine.outages == []

    def test_what_does_not_run_is_started_where_it_was(self, host: Fake) -> None:
        deploy(host, "v2")
        host.running.clear()
        assert deploy(host, "v2").result == "ok"
        assert host.running.keys() == {"shop-1-b.service"}
        assert serving(host) == "v2"


class TestReplaced:
    def test_to_and_fro(self, host: Fake) -> None:
        for version, unit in ("v2", "shop-1-b"), ("v3", "shop-1"), ("v1", "shop-1-b"):
            assert deploy(host, version).result == "ok"
            assert serving(host) == version
            assert host.running.keys() == {f"{unit}.service"}
            assert host.links == {f"/srv/shop/slots/{unit}": f"../releases/{version}"}
            assert host.active == version
        assert host.outages == []

    def test_a_changed_environment_is_reason_enough(self, host: Fake) -> None:
        outcome = deploy(host, "v1", env="changed")
        assert outcome.reasons == ["shop-1: its unit, environment or credentials changed"]
        assert host.running.keys() == {"shop-1-b.service"}

    def test_a_file_changed_by_hand(self, host: Fake) -> None:
        host.files["/etc/systemd/system/shop-1.service"] = "else"
        assert deploy(host, "v1").reasons == ["shop-1: its files were changed by hand"]

    def test_open_connections_end_first(self, host: Fake) -> None:
        host.open[5002] = host.clock + 20
        started = host.clock
        deploy(host, "v2")
        assert 20 < host.clock - started < 32

    def test_but_not_later_than_they_may(self, host: Fake) -> None:
        host.open[5002] = host.clock + 1000
        started = host.clock
        deploy(host, "v2")
        assert 38 <= host.clock - started < 42

    def test_a_rollback_is_quick(self, host: Fake) -> None:
        deploy(host, "v2")
        started = host.clock
        assert deploy(host, "v1", "rollback").result == "ok"
        assert host.clock - started < 3

    def test_history(self, host: Fake) -> None:
        deploy(host, "v2")
        last = host.histories["shop"][-1]
        assert (last["version"], last["before"], last["result"], last["who"]) == (
            "v2",
            "v1",
            "ok",
            "me",
        )

    def test_a_flushed_table_is_made_good(self, host: Fake) -> None:
        deploy(host, "v2")
        host.map.clear()
        assert serving(host) == "nothing"
        assert deploy(host, "v2").reasons == ["shop-1: its port leads elsewhere"]
        assert serving(host) == "v2"
        assert host.running.keys() == {"shop-1-b.service"}

    def test_a_port_that_moved(self, host: Fake) -> None:
        deploy(host, "v2")
        moved = given()
        for each in moved["instances"]:
            each["port"] = each["probes"][0]["port"] = 6002
            for slot, port in ("a", 6002), ("b", 6003):
                each["slots"][slot]["port"] = port
                each["slots"][slot]["probes"] = [{"port": port}]
                each["slots"][slot]["files"][0]["content"] = f"PORT={port}"
        runner = Deploy(host, lambda line: None)
        (outcome,) = runner.run(services_from([moved], {"shop": "v2"}))
        assert outcome.result == "ok"
        assert host.map == {}
        assert host.running["shop-1.service"][0] == 6002

    def test_retired(self, host: Fake) -> None:
        deploy(host, "v2")
        runner = Deploy(host, lambda line: None)
        assert runner.retire(["other"]) == []
        assert runner.retire(["shop-1-b"]) == ["shop-1"]
        assert (host.map, host.links, host.saved) == ({}, {}, {})


class TestBroken:
    @pytest.mark.parametrize(
        ("version", "step", "words"),
        [
            ("bad-exits", "start", "exit status 3, restarted 1 times"),
            ("bad-never", "probe", "is not ready after 10 s: connection refused"),
            ("bad-dies", "probe", "was ready for 5."),
            ("bad-port", "probe", "listens on 127.0.0.1:7777"),
            ("v9", "prepare", "the release v9 is not on this host"),
        ],
    )
    def test_the_old_one_serves_on(self, host: Fake, version: str, step: str, words: str) -> None:
        outcome = deploy(host, version)
        assert (outcome.result, outcome.step) == ("failed", step)
        assert words in outcome.message
        assert "; v1 serves on" in outcome.message
        assert host.outages == []
        assert host.running.keys() == {"shop-1.service"}
        assert host.links == {"/srv/shop/slots/shop-1": "../releases/v1"}
        assert host.active == "v1"
        assert host.histories["shop"][-1]["result"] == "failed"
        assert deploy(host, "v1").result == "unchanged"
        assert deploy(host, "v2").result == "ok"

    def test_a_switch_that_leads_nowhere_is_taken_back(self, host: Fake) -> None:
        host.broken_switch = True
        outcome = deploy(host, "v2")
        assert (outcome.step, serving(host)) == ("verify", "v1")
        # The watcher sees what is broken on purpose.
        assert host.outages

    def test_one_that_dies_while_the_old_is_drained(self, host: Fake) -> None:
        host.open[5002] = host.clock + 1000
        outcome = deploy(host, "bad-dies", stable=1)
        assert outcome.step == "drain"
        assert serving(host) == "v1"

    def test_instances_that_were_replaced_go_back(self) -> None:
        machine = Fake()
        deploy(machine, "v1", count=3)
        real = machine.start

        def start(units: Sequence[str], seconds: float) -> str:
            real(units, seconds)
            if units == ["shop-3-b.service"]:
                machine.running["shop-3-b.service"] = (5007, "bad-exits", machine.clock)
            return ""

        machine.start = start  # type: ignore[method-assign]
        outcome = deploy(machine, "v2", count=3)
        assert outcome.step == "start"
        assert [serving(machine, number) for number in (1, 2, 3)] == ["v1"] * 3
        assert len(machine.running) == 3
        assert machine.active == "v1"
        # The files of the old process are those that it was started with.
        assert deploy(machine, "v1", count=3).result == "unchanged"

    def test_one_service_does_not_hold_up_another(self) -> None:
        machine = Fake()
        runner = Deploy(machine, lambda line: None)
        other = deepcopy(given("other"))
        for each in other["instances"]:
            each["port"] = each["probes"][0]["port"] = 7002
            for slot, port in ("a", 7002), ("b", 7003):
                each["slots"][slot]["port"] = port
                each["slots"][slot]["probes"] = [{"port": port}]
                each["slots"][slot]["files"][0]["content"] = f"PORT={port}"
        both = services_from([given(), other], {"shop": "bad-exits", "other": "v1"})
        assert [each.result for each in runner.run(both)] == ["failed", "ok"]


class TestKilled:
    """After every single thing that is done to a host."""

    @pytest.mark.parametrize("start", ["a", "b"])
    def test_the_next_run_cleans_up(self, start: str) -> None:
        def fresh() -> Fake:
            machine = Fake()
            deploy(machine, "v1")
            if start == "b":
                deploy(machine, "v3")
                deploy(machine, "v1", env="else")
                deploy(machine, "v1")
            machine.watch = ("127.0.0.1", 5002)
            return machine

        whole = fresh()
        before = whole.calls
        deploy(whole, "v2")
        for kill_at in range(before + 1, whole.calls + 1):
            for version in "v1", "v2", "v3":
                machine = fresh()
                machine.kill_at = kill_at
                with pytest.raises(Killed):
                    deploy(machine, "v2")
                machine.kill_at = 0
                assert serving(machine) in ("v1", "v2")
                outcome = deploy(machine, version)
                assert outcome.result in ("ok", "unchanged"), outcome.message
                assert serving(machine) == version
                assert machine.active == version
                assert len(machine.running) == len(machine.links) == 1
                assert machine.outages == []
                state = machine.state("shop-1")
                assert state and state.journal is None
                assert deploy(machine, version).result == "unchanged"

    def test_it_says_so(self, host: Fake) -> None:
        host.kill_at = host.calls + 12
        with pytest.raises(Killed):
            deploy(host, "v2")
        host.kill_at = 0
        outcome = deploy(host, "v1")
        assert outcome.reasons == ["shop-1: a deploy of v2 was interrupted"]
        assert host.histories["shop"][-2]["result"] == "interrupted"

    def test_a_reboot_in_the_middle(self, host: Fake) -> None:
        """Both slots have a release then, and both start."""
        host.kill_at = host.calls + 12
        with pytest.raises(Killed):
            deploy(host, "v2")
        host.kill_at = 0
        units = [f"{link.rpartition('/')[2]}.service" for link in host.links]
        host.running.clear()
        host.start(units, 1)
        assert serving(host) in ("v1", "v2")
        assert deploy(host, "v2").result == "ok"
        assert (serving(host), len(host.running)) == ("v2", 1)


def test_versions_are_asked_for() -> None:
    with pytest.raises(DeployFailed, match="no version"):
        services_from([given()], {})
