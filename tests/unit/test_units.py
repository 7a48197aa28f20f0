"""What is done to units, against a systemd that is played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import units_run
from ansible_collections.berth.platform.plugins.module_utils.units_plan import (
    Unit,
    Wanted,
    batches,
    full_name,
    make_steps,
    match_blocks,
    needs_reload,
    parse_seconds,
    read_wanted,
    verdict,
)
from ansible_collections.berth.platform.plugins.module_utils.units_run import (
    Answer,
    Systemd,
    UnitsFailed,
)


def unit(name: str = "a.service", **values: Any) -> Unit:
    return Unit(**{"name": name, "id": name, "load": "loaded", "enabled": "disabled", **values})


def steps(wanted: Wanted, now: Unit, *, check: bool = False, linked: bool = False) -> Any:
    return make_steps([wanted], {now.name: now}, check=check, linked=lambda _unit: linked)


# --- what is wanted ------------------------------------------------------------------


def test_names_are_completed() -> None:
    assert full_name("nginx") == "nginx.service"
    assert full_name("a.timer") == "a.timer"
    assert full_name("postgresql@17-main") == "postgresql@17-main.service"
    assert full_name("app.v2") == "app.v2.service"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "a"}, {"name": "a.service"}], "a.service: named more than once"),
        ([{"name": "db@"}], "db@.service: is a template, name an instance"),
        ([{"name": "a b"}], "not the name of a unit"),
        ([{"name": "-x;rm"}], "not the name of a unit"),
        ([{"name": "a", "masked": True, "state": "started"}], "can neither be enabled nor run"),
        ([{"name": "a", "masked": True, "enabled": True}], "can neither be enabled nor run"),
    ],
)
def test_faulty_wishes(entries: list[dict[str, Any]], words: str) -> None:
    _wanted, faults = read_wanted(entries)
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1min 30s", 90), ("5s", 5), ("infinity", 0), ("", 0), ("1h", 3600)],
)
def test_time_spans(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


# --- enablement ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "linked", "wish", "action"),
    [
        ("disabled", False, True, "enable"),
        ("enabled", False, True, ""),
        ("enabled-runtime", False, True, "enable"),
        ("static", False, True, ""),
        ("generated", False, True, ""),
        ("transient", False, True, ""),
        ("alias", False, True, ""),
        ("indirect", True, True, ""),
        ("indirect", False, True, "enable"),
        ("linked", False, True, "enable"),
        ("", False, True, "enable"),
        ("enabled", False, False, "disable"),
        ("enabled-runtime", False, False, "disable"),
        ("indirect", True, False, "disable"),
        ("indirect", False, False, ""),
        ("disabled", False, False, ""),
        ("static", False, False, ""),
        ("enabled", False, None, ""),
    ],
)
def test_enablement(state: str, linked: bool, wish: bool | None, action: str) -> None:
    found = steps(Wanted("a.service", enabled=wish), unit(enabled=state), linked=linked)
    assert "+".join(found.actions["a.service"]) == action
    assert found.faults == []


def test_an_alias_is_enabled_by_its_real_name_and_a_linked_unit_by_its_path() -> None:
    alias = unit("mysql.service", id="mariadb.service")
    assert steps(Wanted("mysql.service", enabled=True), alias).enable == ["mariadb.service"]
    linked = unit(enabled="linked", fragment="/opt/a/a.service")
    assert steps(Wanted("a.service", enabled=True), linked).enable == ["/opt/a/a.service"]


# --- states --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "extra", "wish", "action", "orders"),
    [
        ("inactive", {}, "started", "start", [("start", "a.service")]),
        ("active", {}, "started", "", []),
        ("reloading", {}, "started", "", []),
        ("failed", {}, "started", "start", [("start", "a.service")]),
        ("activating", {"sub": "auto-restart"}, "started", "", [("start", "a.service")]),
        ("deactivating", {}, "started", "start", [("start", "a.service")]),
        ("active", {}, "stopped", "stop", []),
        ("activating", {}, "stopped", "stop", []),
        ("inactive", {}, "stopped", "", []),
        ("failed", {}, "stopped", "", []),
        ("active", {}, "restarted", "restart", [("restart", "a.service")]),
        ("inactive", {}, "restarted", "start", [("start", "a.service")]),
        ("active", {"can_reload": True}, "reloaded", "reload", [("reload", "a.service")]),
        ("active", {}, "reloaded", "restart", [("restart", "a.service")]),
        ("inactive", {"can_reload": True}, "reloaded", "start", [("start", "a.service")]),
        ("failed", {"can_reload": True}, "reloaded", "start", [("start", "a.service")]),
        ("activating", {"can_reload": True}, "reloaded", "restart", [("restart", "a.service")]),
        ("active", {}, None, "", []),
    ],
)
def test_states(
    active: str, extra: dict[str, Any], wish: str | None, action: str, orders: list[Any]
) -> None:
    found = steps(Wanted("a.service", state=wish), unit(active=active, **extra))
    assert "+".join(found.actions["a.service"]) == action
    assert found.run == orders
    assert (found.reset == ["a.service"]) is (active == "failed" and bool(orders))


def test_masks() -> None:
    masked = unit(load="masked", enabled="masked")
    assert steps(Wanted("a.service", masked=True), masked).any is False
    assert steps(Wanted("a.service", masked=True), unit(active="active")).actions == {
        "a.service": ["mask", "stop"]
    }
    found = steps(Wanted("a.service", masked=False, enabled=True, state="started"), masked)
    assert found.actions == {"a.service": ["unmask", "enable", "start"]}
    refused = steps(Wanted("a.service", state="started"), masked)
    assert "is masked; give `masked: false`" in refused.faults[0]


def test_what_is_not_there() -> None:
    gone = Unit("a.service")
    assert "there is no such unit" in steps(Wanted("a.service", state="started"), gone).faults[0]
    assert "there is no such unit" in steps(Wanted("a.service", enabled=True), gone).faults[0]
    for wish in (Wanted("a.service", state="stopped"), Wanted("a.service", enabled=False)):
        found = steps(wish, gone)
        assert not found.any and not found.faults
    predicted = steps(Wanted("a.service", enabled=True, state="started"), gone, check=True)
    assert predicted.actions == {"a.service": ["enable", "start"]}
    assert predicted.faults == []


def test_a_faulty_unit_file_is_told_with_its_reason() -> None:
    bad = unit(load="bad-setting", load_error='org.x "Unit a.service has a bad unit file setting."')
    assert "bad unit file setting" in steps(Wanted("a.service", state="started"), bad).faults[0]


@pytest.mark.parametrize(
    ("now", "wish", "expected"),
    [
        (unit(stale=True), {}, True),
        (Unit("a.service"), {"state": "started"}, True),
        (Unit("a.service"), {"enabled": True}, True),
        (Unit("a.service"), {"masked": True}, True),
        (Unit("a.service"), {"state": "stopped"}, False),
        (Unit("a.service"), {"enabled": False, "state": "stopped"}, False),
        (unit(), {"state": "started"}, False),
    ],
)
def test_when_unit_files_are_read_again(now: Unit, wish: dict[str, Any], expected: bool) -> None:
    assert needs_reload([Wanted("a.service", **wish)], {"a.service": now}) is expected


def test_neighbours_go_in_one_call() -> None:
    run = [("restart", "a"), ("restart", "b"), ("reload", "c"), ("restart", "d")]
    assert batches(run) == [("restart", ["a", "b"]), ("reload", ["c"]), ("restart", ["d"])]


def test_answers_are_matched_with_names() -> None:
    blocks = [{"Id": "ssh.service", "Names": "ssh.service sshd.service", "LoadState": "loaded"}]
    units = match_blocks(["ssh.service", "sshd.service", "gone.service"], blocks)
    assert units["sshd.service"].id == "ssh.service"
    assert not units["gone.service"].known


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"active": "active", "sub": "running"}, True),
        ({"active": "active", "sub": "waiting"}, True),
        ({"active": "active", "sub": "exited"}, True),
        ({"active": "active", "job": "12"}, None),
        ({"active": "reloading"}, None),
        ({"active": "activating", "sub": "auto-restart"}, None),
        ({"active": "activating", "sub": "start"}, None),
        ({"active": "failed"}, False),
        ({"active": "inactive"}, False),
        ({"active": "inactive", "job": "12"}, None),
        ({"active": "inactive", "type": "oneshot", "result": "success"}, True),
        ({"active": "inactive", "type": "oneshot", "result": "exit-code"}, False),
        ({"active": "inactive", "type": "oneshot", "job": "3"}, None),
        ({"active": "inactive", "type": "oneshot", "remains": True, "result": "success"}, False),
    ],
)
def test_whether_a_unit_is_up(values: dict[str, Any], expected: bool | None) -> None:
    assert verdict(unit(**values)) is expected


# --- the whole, with a systemd that is played -----------------------------------------


@dataclass
class Played:
    """Answers as systemctl and journalctl do, and remembers what it was told."""

    units: dict[str, dict[str, str]]
    hidden: dict[str, dict[str, str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    # What a unit is at each further look after it was started.
    after_start: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def __call__(self, argv: Sequence[str], seconds: float) -> Answer:
        if argv[0] == "journalctl":
            return Answer(0, f"journal of {argv[-1]}\n", "")
        words = [word for word in argv[1:] if not word.startswith("-") or word == "--no-block"]
        verb, names = words[0], words[1:]
        if verb == "--no-block" and verb not in self.refusals:
            self.told.append(" ".join(words))
            words = words[1:]
            verb, names = words[0], words[1:]
            for name in names:
                self.units[name].update(self.after_start[name][0])
            return Answer(0, "", "")
        if verb == "show":
            return Answer(0, "\n".join(self._show(name) for name in names), "")
        self.told.append(" ".join(words))
        if verb in self.refusals:
            return Answer(1, "", self.refusals[verb])
        if verb == "daemon-reload":
            self.units.update(self.hidden)
            for values in self.units.values():
                values.pop("NeedDaemonReload", None)
        for name in names:
            values = self.units.get(name, {})
            if verb in ("start", "restart"):
                values.update({"ActiveState": "active", "SubState": "running"})
                values.update(self.after_start.get(name, [{}])[0])
            elif verb == "stop":
                values.update({"ActiveState": "inactive", "SubState": "dead"})
            elif verb in ("enable", "disable"):
                values["UnitFileState"] = verb + "d"
        return Answer(0, "", "")

    def _show(self, name: str) -> str:
        values = {
            "Id": name,
            "Names": name,
            "LoadState": "not-found",
            "ActiveState": "inactive",
            "SubState": "dead",
            "UnitFileState": "",
            "Type": "simple",
            **self.units.get(name, {}),
        }
        later = self.after_start.get(name)
        if later and values["ActiveState"] != "inactive" and len(later) > 1:
            later.pop(0)
            self.units[name].update(later[0])
        return "".join(f"{key}={value}\n" for key, value in values.items())


def known(**values: str) -> dict[str, str]:
    return {"LoadState": "loaded", "UnitFileState": "disabled", **values}


class Clock:
    """Time passes only when somebody sleeps."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def played_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_run, "time", CLOCK)


def run(played: Played, *wanted: Wanted, **options: Any) -> units_run.Result:
    return Systemd(played, CLOCK.sleep).run(wanted, **{"check": False, **options})


def test_a_fresh_unit_is_read_enabled_and_started() -> None:
    played = Played({}, hidden={"a.service": known()})
    result = run(played, Wanted("a.service", enabled=True, state="started"))
    assert played.told == ["daemon-reload", "enable a.service", "start a.service"]
    assert result.changed and result.daemon_reloaded
    assert result.units["a.service"]["action"] == "enable+start"
    assert result.units["a.service"]["after"]["active"] == "active"
    played.told.clear()
    again = run(played, Wanted("a.service", enabled=True, state="started"))
    assert (again.changed, played.told) == (False, [])


def test_several_are_told_in_one_call_each() -> None:
    played = Played({name: known() for name in ("a.service", "b.timer", "c.socket")})
    wanted = [Wanted(name, enabled=True, state="started") for name in played.units]
    run(played, *wanted)
    assert played.told == ["enable a.service b.timer c.socket", "start a.service b.timer c.socket"]


def test_a_changed_unit_file_is_read_again_and_that_is_a_change() -> None:
    played = Played({"a.service": known(ActiveState="active", NeedDaemonReload="yes")})
    assert run(played, Wanted("a.service", state="started"), check=True).changed
    assert played.told == []
    result = run(played, Wanted("a.service", state="started"))
    assert (result.changed, played.told) == (True, ["daemon-reload"])
    assert not run(played, Wanted("a.service", state="started")).changed
    assert run(played, Wanted("a.service", state="started"), daemon_reload=True).changed


def test_a_failed_unit_is_reset_first() -> None:
    played = Played({"a.service": known(ActiveState="failed")})
    run(played, Wanted("a.service", state="started"))
    assert played.told == ["reset-failed a.service", "start a.service"]


def test_a_unit_that_dies_a_moment_later_is_an_error() -> None:
    dead = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
    played = Played(
        {"a.service": known(), "b.service": known()},
        after_start={"a.service": [{}, {}, {"ExecMainStatus": "3", **dead}]},
    )
    with pytest.raises(UnitsFailed) as caught:
        run(played, Wanted("a.service", state="started"), Wanted("b.service", state="started"))
    message = str(caught.value)
    assert "a.service: is failed (failed), result exit-code, last exit status 3" in message
    assert "journal of --unit=a.service" in message
    assert "b.service" not in message
    assert caught.value.units["a.service"]["active"] == "failed"


LOOP = {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "1"}
UP = {"ActiveState": "active", "SubState": "running"}


def test_a_service_that_comes_up_at_the_second_attempt_is_fine() -> None:
    played = Played(
        {"a.service": known()},
        after_start={"a.service": [{}, LOOP, LOOP, {**UP, "NRestarts": "1"}]},
    )
    assert run(played, Wanted("a.service", state="started")).changed


def test_a_crash_loop_is_an_error_after_the_wait() -> None:
    states = []
    for count in range(300):
        states += [{**LOOP, "NRestarts": str(count)}] * 3 + [{**UP, "NRestarts": str(count)}] * 2
    played = Played({"a.service": known()}, after_start={"a.service": [{}, *states]})
    with pytest.raises(UnitsFailed, match=r"restarted \d+ times by systemd"):
        run(played, Wanted("a.service", state="started"), wait=10)


def test_a_slow_start_is_an_error_after_the_wait() -> None:
    starting = {"ActiveState": "activating", "SubState": "start", "Type": "notify"}
    played = Played({"a.service": known()}, after_start={"a.service": [starting, starting]})
    with pytest.raises(UnitsFailed, match="not up for good after 5 s"):
        run(played, Wanted("a.service", state="started"), wait=5)


def test_without_a_wait_the_last_is_only_asked_for() -> None:
    starting = {"ActiveState": "activating", "SubState": "start", "Type": "notify"}
    played = Played(
        {"a.service": known(), "b.socket": known(**UP)}, after_start={"a.service": [starting] * 9}
    )
    wanted = [Wanted("b.socket", state="restarted"), Wanted("a.service", state="started")]
    result = run(played, *wanted, wait=0)
    assert played.told == ["restart b.socket", "--no-block start a.service"]
    assert result.changed
    assert result.units["a.service"]["after"]["active"] == "activating"


def test_nor_is_a_refusal_forgotten_without_a_wait() -> None:
    played = Played({"a.service": known()}, refusals={"--no-block": "no such unit"})
    with pytest.raises(UnitsFailed, match="no such unit"):
        run(played, Wanted("a.service", state="started"), wait=0)


def test_words_of_systemctl_are_passed_on() -> None:
    played = Played({"a.service": known()}, refusals={"enable": "Failed to enable unit: reasons"})
    with pytest.raises(UnitsFailed, match=r"`systemctl enable a\.service` failed: .*reasons"):
        run(played, Wanted("a.service", enabled=True, state="started"))
    assert "start a.service" not in played.told
    reload = Played({"a.service": known(CanReload="yes", **UP)}, refusals={"reload": "Job failed."})
    with pytest.raises(UnitsFailed, match=r"`systemctl reload`: Job failed\."):
        run(reload, Wanted("a.service", state="reloaded"))


def test_check_mode_tells_systemd_nothing_and_predicts() -> None:
    played = Played({"a.service": known(**UP), "b.service": known()})
    result = run(
        played,
        Wanted("a.service", enabled=True, state="reloaded"),
        Wanted("b.service", state="stopped"),
        Wanted("new.service", enabled=True, state="started"),
        check=True,
    )
    assert played.told == []
    assert result.changed
    assert {name: value["action"] for name, value in result.units.items()} == {
        "a.service": "enable+restart",
        "b.service": "none",
        "new.service": "enable+start",
    }
    assert result.units["new.service"]["after"]["active"] == "active"


def test_check_mode_without_systemd() -> None:
    def nobody(_argv: Sequence[str], _seconds: float) -> Answer:
        return Answer(127, "", "No such file or directory: 'systemctl'")

    result = Systemd(nobody).run([Wanted("a.service", state="started")], check=True)
    assert result.changed
    with pytest.raises(UnitsFailed, match="systemd does not answer"):
        Systemd(nobody).run([Wanted("a.service", state="started")], check=False)


def test_the_marker_goes(tmp_path: Path) -> None:
    marker = tmp_path / "var/lib/berth/pending/nginx"
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert units_run.remove_marker("nginx", str(tmp_path))
    assert not units_run.remove_marker("nginx", str(tmp_path))
    assert not marker.exists()


def test_a_drop_in_that_systemd_has_not_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd 252 says NeedDaemonReload=no after a unit's first drop-in."""
    monkeypatch.setattr(units_run, "UNIT_FILES", str(tmp_path))
    unit = Unit("a.service", id="a.service", load="loaded")
    assert not units_run._unread(unit).stale
    (tmp_path / "a.service.d").mkdir()
    drop_in = tmp_path / "a.service.d" / "limits.conf"
    drop_in.write_text("[Service]\n")
    assert units_run._unread(unit).stale
    read = Unit("a.service", id="a.service", load="loaded", drop_ins=(str(drop_in),))
    assert not units_run._unread(read).stale
