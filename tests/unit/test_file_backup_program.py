"""The program that backs up files: what it reads, what it decides, what it writes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "roles/file_backup/files/berth_file_backup.py"
_spec = importlib.util.spec_from_file_location("berth_file_backup", SOURCE)
assert _spec and _spec.loader
program: Any = importlib.util.module_from_spec(_spec)
sys.modules["berth_file_backup"] = program
_spec.loader.exec_module(program)

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)


def configuration(**more: Any) -> Any:
    raw = {
        "name": "h1",
        "paths": ["/srv/shop", "/var/log"],
        "repositories": [
            {"name": name, "url": f"/srv/{name}", "password_file": f"/etc/{name}", "keep": ["-l=1"]}
            for name in ("local", "offsite")
        ],
        **more,
    }
    return program.parse_configuration(raw)


LOCAL, OFFSITE = configuration().repositories


def snapshot(hours_ago: float, *paths: str) -> dict[str, Any]:
    return {
        "id": f"{hours_ago:g}".rjust(8, "0") + "f" * 56,
        "time": (NOW - timedelta(hours=hours_ago)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
        "paths": list(paths) or ["/srv/shop", "/var/log"],
    }


def store(repository: Any, *snapshots: dict[str, Any], code: int = 0, message: str = "") -> Any:
    found = program.parse_snapshots(json.dumps(snapshots))
    return program.Store(repository, code, message, found)


class TestReading:
    def test_snapshots_are_in_their_order(self) -> None:
        found = program.parse_snapshots(json.dumps([snapshot(1), snapshot(3), snapshot(2)]))
        assert [one.label for one in found] == ["00000003", "00000002", "00000001"]
        assert found[0].taken == pytest.approx(NOW.timestamp() - 3 * 3600, abs=1)

    @pytest.mark.parametrize("text", ["null", "[]", ""])
    def test_none(self, text: str) -> None:
        assert program.parse_snapshots(text) == ()

    def test_times_have_a_zone(self) -> None:
        assert program.parse_time("1970-01-01T01:00:00.5+01:00") == 0.5
        with pytest.raises(ValueError, match="no time"):
            program.parse_time("1970-01-01T01:00:00")

    def test_modes_as_go_has_them(self) -> None:
        raw = {
            "struct_type": "node",
            "path": "/a",
            "type": "file",
            "size": 2,
            "mode": 8389101,
            "uid": 1,
            "gid": 2,
            "mtime": "2026-11-21T02:45:09.656683938Z",
        }
        node = program.parse_node(json.dumps(raw))
        assert (oct(node.mode), node.uid, node.gid, node.size) == ("0o4755", 1, 2, 2)
        directory = {**raw, "type": "dir", "mode": 2148532735}
        assert oct(program.parse_node(json.dumps(directory)).mode) == "0o1777"
        assert program.parse_node('{"struct_type": "snapshot"}') is None

    def test_what_it_complains_of(self) -> None:
        old = "a\nb\npack x is damaged\nc\nFatal: repository contains errors\nIs there a hint?\n"
        assert program.said(old) == [
            "a",
            "b",
            "c",
            "Fatal: repository contains errors",
        ]
        new = json.dumps({"message_type": "exit_error", "code": 1, "message": "Fatal: no"})
        assert program.said(f'{{"message_type":"error"}}\n{new}\n') == ["Fatal: no"]
        assert program.said("a\nb\n") == ["a", "b"]

    def test_what_is_deleted_meanwhile_is_not_unread(self, tmp_path: Path) -> None:
        (tmp_path / "there").write_text("")
        there, gone = tmp_path / "there", tmp_path / "gone"
        lines: list[Any] = [
            {"message_type": "error", "error": {"Op": "lstat", "Err": 2}, "item": str(there)},
            {"message_type": "error", "error": {"Op": "read", "Err": 5}, "item": str(gone)},
            {
                "message_type": "error",
                "error": {"message": f"lstat {there}: no such file or directory"},
                "item": str(there),
            },
            {"message_type": "exit_error", "message": "Warning: at least one"},
        ]
        text = "\n".join(json.dumps(one) for one in lines)
        assert program.unread(text + "\nWarning: plain\n") == []
        broken = {"message_type": "error", "error": {"Err": 5}, "item": str(there)}
        assert program.unread(json.dumps(broken) + "\n" + json.dumps(broken)) == [
            f"{there}: Input/output error"
        ]


class TestProblems:
    def wrong(self, *stores: Any, runs: dict[str, Any] | None = None) -> list[str]:
        paths = configuration().paths
        found = program.problems(
            stores, runs or {}, paths=paths, now=NOW.timestamp(), max_age_hours=30
        )
        return [str(line) for line in found]

    def test_none(self) -> None:
        assert self.wrong(store(LOCAL, snapshot(29)), store(OFFSITE, snapshot(1))) == []

    def test_old_missing_and_broken(self) -> None:
        lines = self.wrong(
            store(LOCAL, snapshot(31)), store(OFFSITE), store(OFFSITE, code=99, message="no route")
        )
        assert "31.0 hours old, more than 30" in lines[0]
        assert lines[1:] == [
            "repository offsite holds no snapshot",
            "repository offsite: no route",
        ]

    def test_one_without_a_path_does_not_count(self) -> None:
        (line,) = self.wrong(store(LOCAL, snapshot(1, "/srv/shop")))
        assert line == "repository local: the latest snapshot 00000001 lacks /var/log"
        assert self.wrong(store(LOCAL, snapshot(1, "/srv/shop"), snapshot(2))) == []

    def test_a_failed_run(self) -> None:
        runs = {"local": {"ok": False, "error": "/x does not exist"}}
        (line,) = self.wrong(store(LOCAL, snapshot(1)), runs=runs)
        assert line == "repository local: the last backup failed: /x does not exist"


class TestChoice:
    STORES = (
        store(LOCAL, snapshot(10), snapshot(5, "/srv/shop")),
        store(OFFSITE, snapshot(40), snapshot(20)),
    )

    def choose(self, hours: float | None = None, wanted: str = "", **more: Any) -> str:
        moment = None if hours is None else NOW - timedelta(hours=hours)
        repository, found = program.choose(
            more.get("stores", self.STORES),
            moment,
            wanted,
            more.get("repository"),
            more.get("paths", []),
        )
        return f"{repository.name} {found.label.lstrip('0')}"

    def test_the_latest_of_the_first_repository_that_has_one(self) -> None:
        assert self.choose() == "local 5"
        assert self.choose(6) == "local 10"
        assert self.choose(15) == "offsite 20"
        assert self.choose(repository=OFFSITE) == "offsite 20"
        assert self.choose(wanted="00000040") == "offsite 40"

    def test_it_has_the_paths(self) -> None:
        assert self.choose(paths=["/srv/shop/uploads"]) == "local 5"
        assert self.choose(paths=["/var/log/x"]) == "local 10"
        assert self.choose(paths=["/var"]) == "local 10"
        with pytest.raises(program.BackupError, match="holds no snapshot with /home"):
            self.choose(paths=["/home"])

    def test_why_there_is_none(self) -> None:
        with pytest.raises(program.BackupError, match="reaches back to 2026-01-29"):
            self.choose(50)
        with pytest.raises(program.BackupError, match="no snapshot beef that fits"):
            self.choose(wanted="beef")
        stores = (store(LOCAL), store(OFFSITE, code=99, message="no route"))
        with pytest.raises(program.BackupError, match=r"local holds no snapshot; .*no route"):
            self.choose(stores=stores)

    @pytest.mark.parametrize("text", ["2026-01-31 11:00:00", "yesterday", ""])
    def test_a_moment_has_a_zone(self, text: str) -> None:
        with pytest.raises(program.BackupError, match="time zone"):
            program.parse_moment(text, now=NOW)

    def test_moments(self) -> None:
        moment = program.parse_moment("2026-01-31 12:30+01:00", now=NOW)
        assert moment.isoformat() == "2026-01-31T11:30:00+00:00"
        assert program.parse_moment("latest", now=NOW) is None
        with pytest.raises(program.BackupError, match="has not come"):
            program.parse_moment("2026-01-31T12:00:01Z", now=NOW)


class TestMounts:
    INFO = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:21 / /proc rw shared:2 - proc proc rw\n"
        "24 22 8:2 / /srv/my\\040disk rw - ext4 /dev/sda2 rw\n"
        "25 22 8:1 /x /srv/bound rw - ext4 /dev/sda1 rw\n"
        "26 24 0:44 / /srv/my\\040disk/nfs rw - nfs4 h:/x rw\n"
    )

    def test_other_file_systems_in_a_path(self) -> None:
        mounts = program.parse_mounts(self.INFO)
        assert mounts[1] == ("/srv/my disk", "8:2")
        assert program.left_out(["/srv"], mounts) == ["/srv/my disk", "/srv/my disk/nfs"]
        assert program.left_out(["/"], mounts) == ["/srv/my disk", "/srv/my disk/nfs"]
        assert program.left_out(["/srv", "/srv/my disk"], mounts) == ["/srv/my disk/nfs"]
        assert program.left_out(["/home"], mounts) == []

    def test_none_if_all_are_wanted(self) -> None:
        assert program.skipped(configuration(one_file_system=False)) == []


class TestPaths:
    def test_missing_ones_and_links(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        missing, link = str(tmp_path / "no"), str(tmp_path / "link")
        assert program.faulty_paths([str(tmp_path), missing, link]) == [
            f"{missing} does not exist",
            f"{link} is a link; name what it leads to, {tmp_path}",
        ]

    def test_a_path_is_no_pattern(self) -> None:
        assert program.escaped(r"/a*b[c]?\d") == r"/a\*b\[c]\?\\d"


class Restic:
    """In place of restic: notes the commands and answers as it is told."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.answers: dict[str, list[tuple[int, str, str]]] = {}
        # The repository that does not answer.
        self.down = ""

    def __call__(self, argv: list[str], **more: Any) -> CompletedProcess[str]:
        argv = argv[argv.index(program.RESTIC) :] if program.RESTIC in argv else argv
        self.commands.append(argv)
        verb = argv[1]
        if self.down and more.get("env", {}).get("RESTIC_REPOSITORY") == self.down:
            return CompletedProcess(argv, 1, "", "Fatal: no route")
        default = "[]" if verb == "snapshots" else ""
        answers = self.answers.get(verb) or [(0, default, "")]
        code, out, err = answers.pop(0) if len(answers) > 1 else answers[0]
        return CompletedProcess(argv, code, out, err)

    def verbs(self) -> list[str]:
        return [argv[1] for argv in self.commands]


@pytest.fixture
def restic(monkeypatch: pytest.MonkeyPatch) -> Restic:
    found = Restic()
    monkeypatch.setattr(program.subprocess, "run", found)
    monkeypatch.setattr(program.time, "sleep", lambda _seconds: None)
    return found


@pytest.fixture
def tools(tmp_path: Path) -> Any:
    (tmp_path / "data").mkdir()
    return program.Tools(
        configuration(
            paths=[str(tmp_path / "data")],
            state_directory=str(tmp_path),
            metrics_file=str(tmp_path / "x.prom"),
            excludes=["*.tmp"],
        )
    )


class TestRun:
    def test_each_repository_gets_a_snapshot_and_forgets(self, tools: Any, restic: Restic) -> None:
        summary = {
            "message_type": "summary",
            "total_files_processed": 3,
            "snapshot_id": "abcdef123",
        }
        restic.answers["backup"] = [(0, json.dumps(summary), "")]
        program.run_backups(tools, tools.configuration.repositories)
        assert restic.verbs()[:6] == ["snapshots"] * 2 + ["backup", "forget"] * 2
        taken = restic.commands[2]
        assert "--exclude=*.tmp" in taken
        assert taken[-2:] == ["--", tools.configuration.paths[0]]
        assert "-l=1" in restic.commands[3]
        run = program.read_state(tools.configuration, "runs.json")["local"]
        assert (run["ok"], run["files"], run["snapshot"]) == (True, 3, "abcdef12")
        text = Path(tools.configuration.metrics_file).read_text()
        assert 'berth_file_backup_run_ok{repository="offsite"} 1' in text
        assert 'berth_file_backup_files{repository="local"} 3' in text

    def test_a_missing_path_fails_and_nothing_is_forgotten(
        self, tmp_path: Path, restic: Restic
    ) -> None:
        paths = [str(tmp_path), "/nowhere/at/all"]
        tools = program.Tools(configuration(paths=paths, state_directory=str(tmp_path)))
        with pytest.raises(program.BackupError, match="/nowhere/at/all does not exist"):
            program.run_backups(tools, tools.configuration.repositories)
        assert "forget" not in restic.verbs()
        assert [one[-1] for one in restic.commands if one[1] == "backup"] == [str(tmp_path)] * 2
        assert not program.read_state(tools.configuration, "runs.json")["offsite"]["ok"]

    def test_one_that_is_down_does_not_keep_the_other(self, tools: Any, restic: Restic) -> None:
        restic.down = "/srv/local"
        with pytest.raises(program.BackupError, match=r"repository local: .*no route") as error:
            program.run_backups(tools, tools.configuration.repositories)
        assert "offsite" not in str(error.value)
        assert restic.verbs()[:4] == ["snapshots", "snapshots", "backup", "forget"]

    def test_an_unreadable_file_fails(self, tools: Any, restic: Restic, tmp_path: Path) -> None:
        line = {"message_type": "error", "error": {"Err": 13}, "item": str(tmp_path)}
        restic.answers["backup"] = [(3, "", json.dumps(line))]
        with pytest.raises(program.BackupError, match=f"{tmp_path}: Permission denied"):
            program.run_backups(tools, tools.configuration.repositories)
        assert "forget" not in restic.verbs()

    def test_a_failing_command_fails_and_files_are_backed_up(
        self, tmp_path: Path, restic: Restic
    ) -> None:
        tools = program.Tools(
            configuration(
                paths=[str(tmp_path)], state_directory=str(tmp_path), command=["dump", "fail"]
            )
        )
        restic.answers["fail"] = [(4, "", "")]
        with pytest.raises(program.BackupError, match="ended with 4"):
            program.run_backups(tools, tools.configuration.repositories)
        assert "backup" in restic.verbs()

    def test_a_stale_lock_is_removed(
        self, tools: Any, restic: Restic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(program, "restic_runs", lambda: False)
        locked = "unable to create lock in backend: repository is already locked by PID 7\n"
        restic.answers["forget"] = [(1, "", locked), (11, "", ""), (0, "", "")]
        program.run_backups(tools, [tools.configuration.repositories[0]])
        assert restic.verbs()[2:7] == ["forget", "unlock", "forget", "unlock", "forget"]
        assert all("--remove-all" not in one for one in restic.commands)

    def test_no_lock_is_removed_while_a_restic_runs(
        self, tools: Any, restic: Restic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(program, "restic_runs", lambda: True)
        restic.answers["forget"] = [(11, "", ""), (0, "", "")]
        program.run_backups(tools, [tools.configuration.repositories[0]])
        assert "unlock" not in restic.verbs()

    @pytest.mark.parametrize(
        ("code", "words", "told"),
        [
            (10, "Fatal: repository does not exist", "there is no repository at"),
            (1, "Fatal: unable to open config file: stat /x: no such file or dir", "Fatal"),
            (1, "Fatal: unable to open config file: Stat: The specified key does not exist.", "no"),
            (12, "Fatal: wrong password or no key found", "password is not the one"),
            (1, "Fatal: wrong password or no key found", "password is not the one"),
        ],
    )
    def test_what_is_wrong_is_told(
        self, tools: Any, restic: Restic, code: int, words: str, told: str
    ) -> None:
        restic.answers["snapshots"] = [(code, "", words)]
        assert told in tools.store(LOCAL).message


class TestPrepare:
    def test_what_is_missing_is_made(self, tools: Any, restic: Restic) -> None:
        restic.answers["snapshots"] = [(10, "", "")]
        actions = program.prepare(tools, initial="none", dry_run=False)
        assert actions == ["repository local is made", "repository offsite is made"]
        assert restic.verbs().count("init") == 2

    def test_a_dry_run_changes_nothing(self, tools: Any, restic: Restic) -> None:
        restic.answers["snapshots"] = [(10, "", "")]
        actions = program.prepare(tools, initial="wait", dry_run=True)
        assert actions[-1] == "first snapshot goes to local, offsite"
        assert set(restic.verbs()) == {"snapshots"}

    def test_nothing_to_do(self, tools: Any, restic: Restic) -> None:
        found = json.dumps([snapshot(1, *tools.configuration.paths)])
        restic.answers["snapshots"] = [(0, found, "")]
        assert program.prepare(tools, initial="wait", dry_run=False) == []

    def test_a_new_path_is_backed_up_at_once(self, tools: Any, restic: Restic) -> None:
        restic.answers["snapshots"] = [(0, json.dumps([snapshot(1, "/srv/old")]), "")]
        actions = program.prepare(tools, initial="wait", dry_run=False)
        assert actions == ["first snapshot goes to local, offsite"]
        assert restic.verbs().count("backup") == 2

    def test_one_that_cannot_be_reached_is_an_error(self, tools: Any, restic: Restic) -> None:
        restic.answers["snapshots"] = [(1, "", "Fatal: no route")]
        with pytest.raises(program.BackupError, match="no route"):
            program.prepare(tools, initial="wait", dry_run=False)


class TestCheck:
    def test_another_part_each_time(self, tools: Any, restic: Restic) -> None:
        found = json.dumps([{**snapshot(0, *tools.configuration.paths), "time": recently()}])
        restic.answers["snapshots"] = [(0, found, "")]
        for _ in range(3):
            program.check(tools, 2)
        parts = [argv[-1] for argv in restic.commands if argv[1] == "check"]
        assert parts == [f"--read-data-subset={part}/2" for part in (1, 1, 2, 2, 1, 1)]

    def test_damage_is_told(self, tools: Any, restic: Restic) -> None:
        restic.answers["check"] = [(1, "", "pack 12 is damaged\nFatal: repository contains errors")]
        with pytest.raises(program.BackupError, match="repository local: restic check: pack 12"):
            program.check(tools, 1)
        assert not program.read_state(tools.configuration, "check.json")["local"]["ok"]


def recently() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class TestRestore:
    def plan(self, target: Path, **more: Any) -> Any:
        found = program.parse_snapshots(json.dumps([snapshot(1)]))[0]
        return program.Plan(LOCAL, found, ("/srv/a*",), str(target), 2, 10, **more)

    def test_a_target_that_is_not_empty_is_refused(
        self, tools: Any, restic: Restic, tmp_path: Path
    ) -> None:
        plan = self.plan(tmp_path, existing=1, occupied=True)
        with pytest.raises(program.BackupError, match="1 of 2 files exist there"):
            program.restore(tools, plan, overwrite=False)
        assert restic.commands == []
        program.restore(tools, plan, overwrite=True)
        assert restic.verbs() == ["version", "restore"]
        assert r"--include=/srv/a\*" in restic.commands[1]

    def test_what_an_old_restic_replaces_is_out_of_its_way(self, tmp_path: Path) -> None:
        node = program.Node("/a", "file", 3, 0o640, 0, 0, 5)
        (tmp_path / "a").write_text("old")
        with pytest.raises(program.BackupError), program.aside([node], str(tmp_path)):
            assert not (tmp_path / "a").exists()
            (tmp_path / "a").write_text("half of the ne")
            raise program.BackupError("no route")
        assert (tmp_path / "a").read_text() == "old"
        with program.aside([node], str(tmp_path)):
            (tmp_path / "a").write_text("new")
        assert (tmp_path / "a").read_text() == "new"
        assert [one.name for one in tmp_path.iterdir()] == ["a"]

    def test_differences_are_found(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("abc")
        path.chmod(0o640)
        os.utime(path, (5, 5))
        node = program.Node("/a", "file", 3, 0o640, os.getuid(), os.getgid(), 5)
        assert program.difference(node, str(tmp_path)) == ""
        for change, words in (
            ({"size": 4}, "3 bytes, not 4"),
            ({"mode": 0o600}, "mode 640, not 600"),
            ({"uid": 99999}, "belongs to"),
            ({"modified": 6}, "time of modification"),
            ({"type": "dir"}, "is no dir"),
            ({"path": "/b"}, "No such file"),
        ):
            assert words in program.difference(dataclasses.replace(node, **change), str(tmp_path))

    def test_only_what_trials_left_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / ".berth-local" / "x").mkdir(parents=True)
        program.clean(configuration(check_directory=str(tmp_path)))
        assert [one.name for one in tmp_path.iterdir()] == ["mine"]


class TestMetrics:
    def test_all_families(self) -> None:
        run = {"ok": True, "ended": 5, "seconds": 1.5, "files": 3, "bytes": 2e9, "added": 7}
        trial = {
            "ended": 9,
            "repositories": [
                {"repository": "local", "ok": True, "files": 3, "bytes": 4, "seconds": {"total": 2}}
            ],
        }
        stores = [store(LOCAL, snapshot(1)), store(OFFSITE, code=99)]
        text = program.metrics(
            ["/srv/shop"], stores, {"local": run}, {"local": {**run, "ok": False}}, trial
        )
        for line in (
            'berth_file_backup_repository_ok{repository="offsite"} 0',
            'berth_file_backup_snapshots{repository="local"} 1',
            'berth_file_backup_size_bytes{repository="local"} 2000000000',
            'berth_file_backup_check_ok{repository="local"} 0',
            'berth_file_restore_check_duration_seconds{repository="local",phase="total"} 2',
        ):
            assert line in text.splitlines()
        assert program.metrics([], [], {}, {}, {}) == ""
