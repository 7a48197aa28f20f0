"""The backup role without a host: what pgBackRest and systemd are told, and where secrets go."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

FACTS: dict[str, Any] = {
    **host(cores=8),
    "berth_postgresql": {
        "version": 17,
        "port": 5433,
        "data_directory": "/var/lib/postgresql/17/main",
    },
}
S3 = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "b",
    "access_key": "AK",
    "secret_key": "hush-key",
    "cipher_pass": "hush-pass",
}
BOTH = {"ansible_facts": FACTS, "backup_repositories": [{"name": "local"}, S3]}


def conf(variables: dict[str, Any] | None = None) -> configparser.ConfigParser:
    text = render("backup", "pgbackrest.conf.j2", {**BOTH, **(variables or {})})
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_the_cluster_is_the_one_found_on_the_host() -> None:
    section = conf()["main"]
    assert section["pg1-path"] == "/var/lib/postgresql/17/main"
    assert section["pg1-port"] == "5433"


def test_a_given_cluster_wins() -> None:
    section = conf({"backup_postgresql": {"version": 15, "data_directory": ""}})["main"]
    assert section["pg1-path"] == "/var/lib/postgresql/15/main"


def test_every_repository_has_its_options() -> None:
    section = conf()["global"]
    assert section["repo1-path"] == "/var/lib/pgbackrest"
    assert section["repo2-s3-key-secret"] == "hush-key"
    assert section["repo2-cipher-pass"] == "hush-pass"
    assert section["process-max"] == "4"


def test_wal_is_never_thrown_away() -> None:
    assert "archive-push-queue-max" not in conf()["global"]


def test_options_of_the_user() -> None:
    section = conf({"backup_settings": {"delta": True, "buffer-size": "16MiB"}})["global"]
    assert (section["delta"], section["buffer-size"]) == ("y", "16MiB")


def test_the_program_is_told_no_secret() -> None:
    text = render("backup", "backup.json.j2", BOTH)
    assert "hush" not in text
    raw = json.loads(text)
    assert raw["repositories"] == [
        {"key": 1, "name": "local", "path": "/var/lib/pgbackrest"},
        {"key": 2, "name": "offsite", "path": ""},
    ]
    assert raw["check_repositories"] == [1, 2]
    assert raw["version"] == 17
    assert raw["check_seconds"] == 21600


def test_a_part_of_the_trial_restore_may_be_given() -> None:
    given = {"repositories": ["offsite"], "queries": [{"database": "a", "query": "SELECT 1"}]}
    raw = json.loads(render("backup", "backup.json.j2", {**BOTH, "backup_restore_check": given}))
    assert raw["check_repositories"] == [2]
    assert raw["check_queries"] == given["queries"]
    assert raw["check_directory"] == "/var/lib/berth/backup/restore-check"


def test_only_the_servers_group_reads_the_secrets() -> None:
    (entry,) = [
        one
        for one in evaluate("backup", "__backup_files", BOTH)
        if one["path"].endswith(".conf") and "pgbackrest/" in one["path"]
    ]
    assert (entry["group"], entry["mode"], entry["secret"]) == ("postgres", "0640", True)


def test_a_failure_is_told() -> None:
    variables = {**BOTH, "job": "j", "verb": "check", "backup_on_failure": ["tell@%n.service"]}
    assert "OnFailure=tell@%n.service\n" in render("backup", "service.j2", variables)
    assert "OnFailure" not in render("backup", "service.j2", {**BOTH, "job": "j", "verb": "check"})


def test_only_the_trial_restore_cleans_up() -> None:
    variables = {**BOTH, "job": "j", "verb": "restore-check"}
    assert "ExecStopPost" not in render("backup", "service.j2", variables)
    assert "ExecStopPost" in render("backup", "service.j2", {**variables, "clean": True})


def test_a_schedule_may_be_given_in_part_or_switched_off() -> None:
    variables = {**BOTH, "backup_schedule": {"full": "daily", "restore_check": ""}}
    assert evaluate("backup", "__backup_timers", variables) == [
        "berth-backup-full.timer",
        "berth-backup-diff.timer",
        "berth-backup-check.timer",
    ]
    assert evaluate("backup", "__backup_idle_timers", variables) == []
    units = {"berth-restore-check.timer": {}, "berth-backup-full.timer": {}}
    facts = {**host(units=units), "berth_postgresql": FACTS["berth_postgresql"]}
    assert evaluate("backup", "__backup_idle_timers", {**variables, "ansible_facts": facts}) == [
        "berth-restore-check.timer"
    ]
    calendars = {
        one["label"]: one["vars"]["calendar"]
        for one in evaluate("backup", "__backup_timer_files", variables)
    }
    assert calendars["full"] == "daily"
    assert calendars["diff"] == "Mon..Sat *-*-* 02:00:00"


def test_timers_are_restarted_and_enabled() -> None:
    units = evaluate("backup", "__backup_timer_units", BOTH)
    assert units[0] == {"name": "berth-backup-full.timer", "state": "restarted", "enabled": True}


def test_wrong_repositories_are_an_error() -> None:
    with pytest.raises(Exception, match="share one place"):
        conf({"backup_repositories": [{"name": "a"}, {"name": "b"}]})


def test_specification() -> None:
    assert spec_errors("backup", {"backup_repositories": [{"name": "local"}, S3]}) == []
    assert spec_errors("backup", {"backup_repositories": [{"typ": "s3"}]})
    assert spec_errors("backup", {"backup_initial": "later"})
