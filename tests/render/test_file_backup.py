"""The file_backup role without a host: what restic and systemd are told, and where secrets go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from render import ROOT, evaluate, host, render, spec_errors

S3 = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "backups",
    "access_key": "AK",
    "secret_key": "hush-key",
    "password": "hush-offsite",
}
BOTH: dict[str, Any] = {
    "file_backup_paths": ["/srv/shop"],
    "file_backup_repositories": [{"name": "local", "password": "hush-local"}, S3],
}


def program(**variables: Any) -> dict[str, Any]:
    return dict(json.loads(render("file_backup", "file-backup.json.j2", {**BOTH, **variables})))


def test_the_program_is_told_all_and_no_secret() -> None:
    raw = program(file_backup_restore_check={"repositories": ["offsite"]})
    assert "hush" not in json.dumps(raw)
    assert [one["url"] for one in raw["repositories"]] == [
        "/var/lib/restic",
        "s3:https://s3.example.com/backups/restic",
    ]
    assert (raw["name"], raw["paths"], raw["check_repositories"]) == (
        "h1",
        ["/srv/shop"],
        ["offsite"],
    )
    assert (raw["check_seconds"], raw["one_file_system"], raw["command"]) == (21600, True, [])
    assert raw["check_directory"] == "/var/lib/berth/file-backup/restore-check"
    assert program(file_backup_name="old")["name"] == "old"


def test_what_backups_write_is_left_out() -> None:
    excludes = program(file_backup_paths=["/var"], file_backup_excludes=["*.tmp"])["excludes"]
    assert excludes == [
        "*.tmp",
        "/var/lib/restic",
        "/var/cache/berth-file-backup",
        "/var/lib/berth/file-backup/restore-check",
    ]


def test_secrets_are_roots_alone() -> None:
    files = evaluate("file_backup", "__file_backup_layout.files", BOTH)
    assert [one["path"] for one in files] == [
        "/etc/berth/file-backup/local.password",
        "/etc/berth/file-backup/offsite.password",
        "/etc/berth/file-backup/offsite.keys",
    ]
    assert {(one["mode"], one["secret"]) for one in files} == {("0600", True)}
    for template in ("service.j2", "file-backup.json.j2"):
        text = render("file_backup", template, {**BOTH, "job": "j", "verb": "run"})
        assert "hush" not in text


def test_the_program_is_one() -> None:
    (entry,) = [
        one
        for one in evaluate("file_backup", "__file_backup_files", BOTH)
        if one["path"].endswith("lib/berth/berth-file-backup")
    ]
    source = (ROOT / "roles/file_backup/files/berth_file_backup.py").read_text(encoding="utf-8")
    assert entry["content"] == f"#!/usr/bin/python3\n{source}"
    assert entry["mode"] == "0755"


def test_a_failure_is_told() -> None:
    variables = {**BOTH, "job": "j", "verb": "check", "file_backup_on_failure": ["tell@%n.service"]}
    assert "OnFailure=tell@%n.service\n" in render("file_backup", "service.j2", variables)


def test_a_command_before_the_snapshot_is_not_confined() -> None:
    variables = {**BOTH, "job": "j", "verb": "run"}
    assert "ProtectSystem" in render("file_backup", "service.j2", variables)
    assert "ProtectSystem" not in render(
        "file_backup", "service.j2", {**variables, "confined": False}
    )
    (unit,) = [
        one
        for one in evaluate(
            "file_backup", "__file_backup_files", {**BOTH, "file_backup_command": ["dump"]}
        )
        if one["path"].endswith("/berth-file-backup.service")
    ]
    assert unit["vars"]["confined"] is False
    assert program(file_backup_command=["dump", "a b"])["command"] == ["dump", "a b"]


def test_a_schedule_may_be_given_in_part_or_switched_off() -> None:
    variables = {**BOTH, "file_backup_schedule": {"run": "hourly", "restore_check": ""}}
    assert evaluate("file_backup", "__file_backup_timers", variables) == [
        "berth-file-backup.timer",
        "berth-file-backup-check.timer",
    ]
    units = {"berth-file-restore-check.timer": {}, "berth-file-backup.timer": {}}
    assert evaluate(
        "file_backup",
        "__file_backup_idle_timers",
        {**variables, "ansible_facts": host(units=units)},
    ) == ["berth-file-restore-check.timer"]
    calendars = {
        one["label"]: one["vars"]["calendar"]
        for one in evaluate("file_backup", "__file_backup_timer_files", variables)
    }
    assert (calendars["run"], calendars["check"]) == ("hourly", "*-*-* 04:30:00")


def test_the_restore_command() -> None:
    variables = {
        **BOTH,
        "file_backup_restore_target": "/",
        "file_backup_restore_paths": ["/srv/a b"],
        "file_backup_restore_overwrite": True,
    }
    assert evaluate("file_backup", "__file_backup_restore_command", variables) == [
        "/usr/local/lib/berth/berth-file-backup",
        "restore",
        "--target=/",
        "--time=latest",
        "--snapshot=",
        "--repository=",
        "--path=/srv/a b",
        "--overwrite",
    ]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(Exception, match="password is missing"):
        program(file_backup_repositories=[{"name": "local"}])
    with pytest.raises(Exception, match="there is no path"):
        program(file_backup_paths=[])


def test_specification() -> None:
    assert spec_errors("file_backup", BOTH) == []
    assert spec_errors("file_backup", {"file_backup_repositories": [{"typ": "s3"}]})
    assert spec_errors("file_backup", {"file_backup_initial": "later"})
