"""The program on the database host: what it reads, what it decides, what it writes."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "roles/backup/files/berth_backup.py"
_spec = importlib.util.spec_from_file_location("berth_backup", SOURCE)
assert _spec and _spec.loader
program: Any = importlib.util.module_from_spec(_spec)
sys.modules["berth_backup"] = program
_spec.loader.exec_module(program)

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
RAW: dict[str, Any] = {
    "stanza": "main",
    "repositories": [
        {"key": 1, "name": "local", "path": "/var/lib/pgbackrest"},
        {"key": 2, "name": "offsite", "path": ""},
    ],
    "version": 17,
    "port": 5432,
    "data_directory": "/var/lib/postgresql/17/main",
    "check_queries": [{"database": "shop", "query": "SELECT 1"}],
}
CONFIGURATION = program.parse_configuration(RAW)


def at(hours_ago: float) -> int:
    return int((NOW - timedelta(hours=hours_ago)).timestamp())


def backup(
    repository: int, hours_ago: float, kind: str = "full", *, timeline: int = 2, **more: Any
) -> dict[str, Any]:
    return {
        "archive": {"start": f"{timeline:08X}0000000000000002"},
        "database": {"id": 1, "repo-key": repository},
        "label": f"r{repository}-{hours_ago:g}-{kind}",
        "type": kind,
        "timestamp": {"start": at(hours_ago) - 60, "stop": at(hours_ago)},
        "info": {"size": 30_000_000, "repository": {"delta": 4_000_000}},
        "lsn": {"start": "0/2000028", "stop": "0/2000100"},
        "error": False,
        **more,
    }


def info(*backups: dict[str, Any], codes: tuple[int, int] = (0, 0)) -> list[dict[str, Any]]:
    messages = {
        0: "ok",
        1: "missing stanza path",
        2: "no valid backups",
        99: "[HostError] no route",
    }
    return [
        {
            "name": "main",
            "repo": [
                {"key": key, "status": {"code": code, "message": messages[code]}}
                for key, code in zip((1, 2), codes, strict=True)
            ],
            "backup": list(backups),
            "archive": [
                {
                    "database": {"id": 1, "repo-key": 1},
                    "id": "15-1",
                    "max": "000000010000000000000009",
                },
                {
                    "database": {"id": 2, "repo-key": 1},
                    "id": "17-2",
                    "max": "000000020000000000000003",
                },
                {"database": {"id": 1, "repo-key": 2}, "id": "17-1", "max": None},
            ],
            "db": [
                {"id": 1, "repo-key": 1, "system-id": 41},
                {"id": 2, "repo-key": 1, "system-id": 42},
                {"id": 1, "repo-key": 2, "system-id": 42},
            ],
        }
    ]


def stores(*backups: dict[str, Any], codes: tuple[int, int] = (0, 0)) -> Any:
    raw = info(*backups, codes=codes)
    return [program.parse_store(raw, "main", one) for one in CONFIGURATION.repositories]


def wrong(*backups: dict[str, Any], codes: tuple[int, int] = (0, 0)) -> list[str]:
    found = program.problems(stores(*backups, codes=codes), now=NOW.timestamp(), max_age_hours=30)
    return [str(line) for line in found]


class TestInfo:
    def test_backups_are_sorted_into_their_repositories(self) -> None:
        local, offsite = stores(backup(1, 2), backup(2, 1), backup(1, 30), backup(1, 5, "diff"))
        assert [one.label for one in local.backups] == ["r1-30-full", "r1-5-diff", "r1-2-full"]
        assert local.latest().label == "r1-2-full"
        assert local.latest("diff", "incr").label == "r1-5-diff"
        assert offsite.latest("diff") is None

    def test_timelines_count_before_segments(self) -> None:
        local, offsite = stores()
        assert local.last_wal == "000000020000000000000003"
        assert local.archive == "17-2"
        assert offsite.last_wal == ""

    def test_the_latest_identifier_counts(self) -> None:
        assert [store.system for store in stores()] == [42, 42]

    @pytest.mark.parametrize("raw", [[], [{"name": "other"}]])
    def test_without_a_stanza(self, raw: list[dict[str, Any]]) -> None:
        store = program.parse_store(raw, "main", CONFIGURATION.repositories[0])
        assert (store.code, store.backups) == (1, ())

    def test_a_backup_of_an_old_pgbackrest_has_no_lsn(self) -> None:
        (local, _) = stores(backup(1, 2, lsn=None))
        assert local.backups[0].lsn == ""


class TestProblems:
    def test_none(self) -> None:
        assert wrong(backup(1, 2), backup(2, 29)) == []

    def test_an_old_backup(self) -> None:
        (line,) = wrong(backup(1, 2), backup(2, 31))
        assert "offsite" in line
        assert "31.0 hours old" in line

    def test_no_backup_and_a_broken_repository(self) -> None:
        assert wrong(backup(2, 1), codes=(2, 99)) == [
            "repository local holds no backup",
            "repository offsite: [HostError] no route",
        ]

    def test_damaged_pages(self) -> None:
        (line,) = wrong(backup(1, 1, error=True), backup(2, 1))
        assert "wrong checksums" in line


class TestNeeds:
    def test_nothing(self) -> None:
        needs = program.needs(stores(backup(1, 1), backup(2, 1)), 42)
        assert not needs.stanza
        assert needs.backups == ()

    def test_a_new_repository(self) -> None:
        needs = program.needs(stores(backup(1, 1), codes=(0, 1)), 42)
        assert needs.stanza
        assert [one.name for one in needs.backups] == ["offsite"]

    def test_another_clusters_backups_are_left_alone(self) -> None:
        with pytest.raises(program.BackupError, match="another cluster"):
            program.needs(stores(backup(1, 1)), 7)

    def test_a_repository_that_cannot_be_reached(self) -> None:
        with pytest.raises(program.BackupError, match=r"offsite: .*no route"):
            program.needs(stores(backup(1, 1), codes=(0, 99)), 42)


class TestMoments:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-01-31T11:00:00Z", "2026-01-31T11:00:00"),
            ("2026-01-31 11:00Z", "2026-01-31T11:00:00"),
            ("2026-01-31 11:00:00 UTC", "2026-01-31T11:00:00"),
            ("2026-01-31 12:00:00.25+01", "2026-01-31T11:00:00.250000"),
            ("2026-01-31 16:30:00+05:30", "2026-01-31T11:00:00"),
            ("2026-01-31 06:00:00 -0500", "2026-01-31T11:00:00"),
        ],
    )
    def test_any_zone_is_brought_to_utc(self, text: str, expected: str) -> None:
        moment = program.parse_moment(text, now=NOW)
        assert moment.isoformat() == expected + "+00:00"

    def test_latest(self) -> None:
        assert program.parse_moment(" Latest ", now=NOW) is None

    @pytest.mark.parametrize(
        "text", ["2026-01-31 11:00:00", "2026-01-31", "yesterday", "", "2026-02-30 00:00:00Z"]
    )
    def test_without_a_zone_it_is_no_moment(self, text: str) -> None:
        with pytest.raises(program.BackupError):
            program.parse_moment(text, now=NOW)

    def test_the_future_is_refused(self) -> None:
        with pytest.raises(program.BackupError, match="latest"):
            program.parse_moment("2026-01-31T12:00:01Z", now=NOW)


class TestPlan:
    def plan(self, hours_ago: float | None, wanted: str = "", **more: Any) -> Any:
        found = stores(backup(1, 10), backup(1, 5), backup(2, 40), backup(2, 20), **more)
        moment = None if hours_ago is None else NOW - timedelta(hours=hours_ago)
        repository = CONFIGURATION.repository(wanted) if wanted else None
        return program.plan_restore(found, moment, repository, 0, lambda store, line: (2, {}))

    def test_the_latest_completed_before_the_moment(self) -> None:
        assert self.plan(6).backup.label == "r1-10-full"
        assert self.plan(5).backup.label == "r1-5-full"

    def test_the_next_repository_reaches_further_back(self) -> None:
        assert self.plan(15).backup.label == "r2-20-full"

    def test_a_named_repository(self) -> None:
        assert self.plan(6, "offsite").backup.label == "r2-20-full"
        assert self.plan(6, "2").backup.label == "r2-20-full"

    def test_latest_replays_all_there_is(self) -> None:
        plan = self.plan(None)
        assert plan.options() == ["--repo=1", "--set=r1-5-full"]

    def test_a_moment_in_pgbackrests_words(self) -> None:
        assert self.plan(6).options()[2:] == [
            "--type=time",
            "--target=2026-01-31 06:00:00.000000+00",
            "--target-action=promote",
        ]

    def test_a_broken_repository_is_passed_over(self) -> None:
        assert self.plan(None, codes=(99, 0)).backup.label == "r2-20-full"

    def test_too_long_ago(self) -> None:
        with pytest.raises(program.BackupError, match=r"local reaches back to .* only; .*offsite"):
            self.plan(50)

    def test_an_unknown_repository(self) -> None:
        with pytest.raises(
            program.BackupError, match=r"no repository third; there are 1 \(local\)"
        ):
            self.plan(None, "third")


class TestHistory:
    """After a restore, some backups belong to a past that was left."""

    PAST = {1: "0/2000080"}

    def plan(self, *backups: dict[str, Any], timeline: int = 0) -> Any:
        def history(store: Any, line: int) -> tuple[int, dict[int, str]]:
            return (line, {}) if line else (2, self.PAST)

        return program.plan_restore(stores(*backups), None, None, timeline, history)

    def test_one_from_before_the_fork_leads_to_the_present(self) -> None:
        early = backup(1, 9, timeline=1, lsn={"start": "0/0", "stop": "0/2000080"})
        assert self.plan(early).backup.timeline == 1

    def test_one_from_behind_the_fork_does_not(self) -> None:
        early = backup(1, 9, timeline=1, lsn={"start": "0/0", "stop": "0/2000080"})
        late = backup(1, 5, timeline=1, lsn={"start": "0/0", "stop": "0/2000081"})
        assert self.plan(early, late).backup.label == "r1-9-full"
        with pytest.raises(program.BackupError, match="no backup that leads to timeline 2"):
            self.plan(late)

    def test_but_it_leads_to_its_own(self) -> None:
        late = backup(1, 5, timeline=1, lsn={"start": "0/0", "stop": "0/2000081"})
        new = backup(1, 2, timeline=2)
        plan = self.plan(late, new, timeline=1)
        assert plan.backup.label == "r1-5-full"
        assert plan.options()[-1] == "--target-timeline=1"

    def test_the_latest_is_the_one_that_wal_or_a_history_file_names(self) -> None:
        answers = {
            "repo-ls": "0000000100000000\n00000002.history\n00000003.history\n",
            "repo-get": "1\t0/3000000\tno recovery target specified\n",
        }

        class Answering(program.Tools):  # type: ignore[misc]
            def pgbackrest(self, command: str, *options: str, **_: Any) -> str:
                assert "archive/main/17-2" in options[-1]
                return answers[command]

        tools = Answering(CONFIGURATION)
        (local, _) = stores()
        assert tools.history(local, 0) == (3, {1: "0/3000000"})
        assert tools.history(local, 1) == (1, {})

    def test_the_file(self) -> None:
        text = "1\t0/3000000\tno recovery target specified\n\n2\t0/80074B8\tbefore 2026-01-31\n"
        assert program.parse_history(text) == {1: "0/3000000", 2: "0/80074B8"}


class TestRecent:
    """Whether there are backups, at the end of a run that may have started the first ones."""

    @staticmethod
    def answers(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: list[Any], *, running: list[bool]
    ) -> Any:
        """The tools of a host where each look finds the next of what there is to find."""

        class Answering(program.Tools):  # type: ignore[misc]
            def stores(self) -> Any:
                return found.pop(0)

        monkeypatch.setattr(program, "full_is_running", lambda: running.pop(0))
        monkeypatch.setattr(program.time, "time", NOW.timestamp)
        raw = {**RAW, "state_directory": str(tmp_path)}
        return Answering(program.parse_configuration(raw))

    def test_both_are_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        tools = self.answers(
            monkeypatch, tmp_path, [stores(backup(1, 1), backup(2, 1))], running=[False]
        )
        assert program.recent(tools, 10) == "every repository holds a recent backup"

    def test_the_first_one_is_waited_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        found = [stores(codes=(2, 2)), stores(backup(1, 0), backup(2, 0))]
        tools = self.answers(monkeypatch, tmp_path, found, running=[True, False])
        assert program.recent(tools, 10) == "every repository holds a recent backup"
        assert found == []

    def test_but_not_for_ever(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = [stores(backup(1, 0), codes=(0, 2))]
        tools = self.answers(monkeypatch, tmp_path, found, running=[True])
        assert program.recent(tools, -1) == "a full backup runs: repository offsite holds no backup"

    def test_one_that_failed_says_why(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "runs.json").write_text(
            '{"offsite/full": {"ok": false, "error": "[HostError] no route"}}'
        )
        found = [stores(backup(1, 30.5), codes=(0, 2))]
        tools = self.answers(monkeypatch, tmp_path, found, running=[False])
        with pytest.raises(program.BackupError) as caught:
            program.recent(tools, 10)
        assert "the latest backup r1-30.5-full is 30.5 hours old" in str(caught.value)
        assert "repository offsite holds no backup" in str(caught.value)
        assert "offsite/full failed: [HostError] no route" in str(caught.value)


class TestMetrics:
    def test_format(self) -> None:
        runs = {"local/full": {"ok": True, "ended": 1_770_000_000, "seconds": 2.5, "error": ""}}
        check = {
            "ended": 1_770_000_000,
            "repositories": [
                {"repository": "local", "ok": True, "rows": 12, "seconds": {"total": 3.25}},
                {"repository": "offsite", "ok": False, "rows": 0, "seconds": {"total": 1.0}},
            ],
        }
        text = program.metrics('ma"in', stores(backup(1, 1), codes=(0, 99)), runs, check)
        lines = text.splitlines()
        stanza = 'stanza="ma\\"in"'
        assert f'berth_backup_repository_ok{{{stanza},repository="offsite"}} 0' in lines
        assert (
            f'berth_backup_run_duration_seconds{{{stanza},repository="local",type="full"}} 2.5'
            in lines
        )
        assert f'berth_restore_check_ok{{{stanza},repository="offsite"}} 0' in lines
        assert f'berth_restore_check_rows{{{stanza},repository="local"}} 12' in lines
        assert not any("rows" in line and "offsite" in line for line in lines)
        stop = at(1)
        assert any(line.endswith(f" {stop}") for line in lines)
        # Every family once, its samples behind its type.
        types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
        assert len(types) == len(set(types))

    def test_nothing_known(self) -> None:
        assert program.metrics("main", [], {}, {}) == ""


def test_lsn() -> None:
    assert program.lsn_number("0/FF") < program.lsn_number("0/100") < program.lsn_number("1/0")


def test_what_a_copy_lacks() -> None:
    live = {"shop": {"public.a", "public.b"}, "gone": {"public.x"}}
    copy = {"shop": {"public.a": 3, "public.more": 1}}
    assert program.lost(live, copy) == ["database gone", "table shop.public.b"]
    assert program.lost({}, copy) == []


def test_counts() -> None:
    assert program.parse_counts('public.a|3\npublic."x|y"|4\n') == {
        "public.a": 3,
        'public."x|y"': 4,
    }


def test_the_copy_shares_what_it_has_to_and_reaches_nobody(tmp_path: Path) -> None:
    listing = (
        "max_connections setting:              200\n"
        "max_prepared_xacts setting:           7\n"
        "Latest checkpoint location:           0/2\n"
    )
    control = program.control_settings(listing)
    settings = program.scratch_settings(tmp_path, control, "pg_stat_statements")
    assert settings["max_connections"] == "200"
    assert settings["max_prepared_transactions"] == "7"
    assert settings["listen_addresses"] == ""
    assert settings["archive_mode"] == "off"
    assert settings["shared_preload_libraries"] == "pg_stat_statements"


def test_wal_that_is_nowhere_else(tmp_path: Path) -> None:
    assert program.unarchived(str(tmp_path)) == []
    status = tmp_path / "pg_wal" / "archive_status"
    status.mkdir(parents=True)
    (status / "000000010000000000000003.done").touch()
    (status / "000000010000000000000005.ready").touch()
    assert program.unarchived(str(tmp_path)) == ["000000010000000000000005"]


class Fake:
    """pgBackRest that fails for some repositories."""

    def __init__(self, configuration: Any, failing: set[int]) -> None:
        self.configuration = configuration
        self.failing = failing
        self.calls: list[tuple[str, ...]] = []

    def pgbackrest(self, command: str, *options: str, loud: bool = True) -> str:
        self.calls.append((command, *options))
        for key in self.failing:
            if f"--repo={key}" in options:
                raise program.BackupError("pgbackrest backup: no route")
        return ""

    def stores(self) -> Any:
        return stores(backup(1, 1))


def test_one_failure_keeps_no_other_from_its_backup(tmp_path: Path) -> None:
    configuration = program.parse_configuration(
        {**RAW, "state_directory": str(tmp_path), "metrics_file": str(tmp_path / "m.prom")}
    )
    fake = Fake(configuration, {1})
    with pytest.raises(program.BackupError, match=r"repository local: .*no route"):
        program.run_backups(fake, "diff", configuration.repositories)
    assert fake.calls == [
        ("backup", "--repo=1", "--type=diff"),
        ("backup", "--repo=2", "--type=diff"),
    ]
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert [runs[key]["ok"] for key in ("local/diff", "offsite/diff")] == [False, True]
    assert "berth_backup_run_ok" in (tmp_path / "m.prom").read_text()


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    configuration = program.parse_configuration({**RAW, "state_directory": str(tmp_path)})
    with (
        program.locked(configuration, 1),
        pytest.raises(program.BackupError, match="still runs"),
        program.locked(configuration, 0),
    ):
        pass


def test_what_another_process_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = tmp_path / "pgbackrest"
    busy.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/calls\n"
        f"test $(wc -l < {tmp_path}/calls) -ge 3 && exit 0\n"
        "echo 'P00  ERROR: [050]: unable to acquire lock on file'\nexit 50\n"
    )
    busy.chmod(0o755)
    monkeypatch.setattr(program, "PGBACKREST", str(busy))
    monkeypatch.setattr(program, "identity", lambda user: {})
    tools = program.Tools(CONFIGURATION)
    tools.pgbackrest("stanza-create")
    assert (tmp_path / "calls").read_text().splitlines() == ["asked"] * 3
    (tmp_path / "calls").unlink()
    monkeypatch.setattr(program, "PATIENCE", 0)
    with pytest.raises(program.BackupError, match=r"stanza-create: ERROR: \[050\]"):
        tools.pgbackrest("stanza-create")


def test_an_unreadable_state_is_no_state(tmp_path: Path) -> None:
    configuration = program.parse_configuration({**RAW, "state_directory": str(tmp_path)})
    assert program.read_state(configuration, "runs.json") == {}
    (tmp_path / "runs.json").write_text("{broken")
    assert program.read_state(configuration, "runs.json") == {}


def test_a_missing_configuration_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["--configuration", str(tmp_path / "none.json"), "status"]) == 1
    assert "berth-backup status:" in capsys.readouterr().err


def test_of_pgbackrests_log_only_the_fault_is_told() -> None:
    log = (
        "2026-01-31 20:58:47.048 P00   INFO: backup command begin 2.55.1\n"
        "2026-01-31 20:58:47.048 P00  ERROR: [049]: unable to load info file\n"
        "            HINT: has a stanza-create been performed?\n"
    )
    assert program._FAULT.findall(log) == [
        "ERROR: [049]: unable to load info file",
        "HINT: has a stanza-create been performed?",
    ]


def test_wal_that_would_be_lost_is_refused() -> None:
    program.refuse_loss([])
    with pytest.raises(program.BackupError, match="2 segments of WAL, 05 the first"):
        program.refuse_loss(["05", "06"])
