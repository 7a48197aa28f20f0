"""Backups as an operator needs them: restored to a moment, proven, and loud when they fail.

The tests build on one another in the order of the file: a restored database stays restored.
"""

from __future__ import annotations

import time
from shlex import quote
from typing import Any

import pytest
from operator_view import (
    REPOSITORIES,
    SECRETS,
    moment,
    name_of,
    nothing_left,
    repository,
    restore,
    rows,
    sql,
    status,
)


@pytest.fixture(scope="module", autouse=True)
def _first_rows(hosts: dict[str, Any]) -> None:
    for host in hosts.values():
        sql(host, "DROP TABLE IF EXISTS orders; CREATE TABLE orders (what text)")
        sql(host, "INSERT INTO orders VALUES ('1'), ('2'), ('3')")


class TestConverged:
    @pytest.mark.parametrize("name", REPOSITORIES)
    def test_each_repository_holds_a_full_backup_and_wal(self, host: Any, name: str) -> None:
        found = repository(host, name)
        assert found["ok"], found["message"]
        assert found["full"]["age_hours"] < 1
        assert found["last_wal"]

    def test_all_is_well(self, host: Any) -> None:
        assert host.run("systemctl start berth-backup-check").rc == 0
        assert status(host)["problems"] == []

    def test_timers_wait_for_their_hour(self, host: Any) -> None:
        listing = host.check_output("systemctl list-timers --all --no-pager --no-legend 'berth-*'")
        for timer in ("backup-full", "backup-diff", "backup-check", "restore-check"):
            assert f"berth-{timer}.timer" in listing
            assert host.check_output(f"systemctl is-enabled berth-{timer}.timer") == "enabled"
        calendar = host.check_output("systemctl show -P TimersCalendar berth-backup-diff.timer")
        assert "OnCalendar=*-*-* 02:00:00" in calendar

    def test_the_offsite_repository_is_encrypted(self, hosts: dict[str, Any]) -> None:
        store = hosts["bookworm"]
        found = store.check_output(
            "find /var/lib/object-store/data -type f -name backup.info"
        ).splitlines()
        assert found
        for path in found:
            assert store.run(f"grep -q backup:current {path}").rc == 1

    def test_secrets_stay_in_one_file(self, host: Any) -> None:
        mode = host.check_output("stat -c '%U:%G %a' /etc/pgbackrest/pgbackrest.conf")
        assert mode == "root:postgres 640"
        for secret in SECRETS:
            pattern = quote(f"[{secret[0]}]{secret[1:]}")
            logs = "/var/log/pgbackrest /var/log/postgresql /etc/berth /var/lib/berth/backup"
            assert host.run(f"grep -rl {pattern} {logs}").stdout == ""
            assert host.run(f"journalctl --no-pager | grep {pattern}").stdout == ""
            assert host.run(f"ps axww | grep {pattern}").stdout == ""


class TestRestore:
    def test_without_confirmation_nothing_happens(self, host: Any) -> None:
        since = sql(host, "SELECT pg_postmaster_start_time()")
        said = restore(host, "restore_time=latest", check=False)
        assert "backup: 2" in said
        assert f"restore_confirm={name_of(host)}" in said
        assert sql(host, "SELECT pg_postmaster_start_time()") == since

    def test_between_two_writes_holds_exactly_the_first(self, host: Any) -> None:
        sql(host, "INSERT INTO orders VALUES ('A')")
        between = moment(host)
        sql(host, "INSERT INTO orders VALUES ('B')")
        before = host.check_output("systemctl show -P ActiveEnterTimestampMonotonic shop.service")
        restore(
            host,
            f"restore_time={between}",
            f"restore_confirm={name_of(host)}",
        )
        assert rows(host) == ["1", "2", "3", "A"]
        sql(host, "INSERT INTO orders VALUES ('C')")
        after = host.check_output("systemctl show -P ActiveEnterTimestampMonotonic shop.service")
        assert int(after) > int(before)
        assert host.check_output("systemctl is-active shop.service") == "active"
        for name in REPOSITORIES:
            # The new full backup is of the new history.
            assert repository(host, name)["full"]["completed"] > time.time() - 600
        assert status(host)["problems"] == []

    def test_the_history_that_was_left_can_be_had_again(self, host: Any) -> None:
        restore(
            host,
            "restore_time=latest",
            "restore_timeline=1",
            "restore_repository=offsite",
            f"restore_confirm={name_of(host)}",
        )
        assert rows(host) == ["1", "2", "3", "A", "B"]

    def test_the_latest_is_all_there_is(self, host: Any) -> None:
        sql(host, "INSERT INTO orders VALUES ('D')")
        restore(
            host,
            "restore_time=latest",
            f"restore_confirm={name_of(host)}",
        )
        assert rows(host) == ["1", "2", "3", "A", "B", "D"]

    @pytest.mark.parametrize(
        ("variable", "words"),
        [
            ("restore_time=2020-01-01T00:00:00Z", "reaches back to"),
            ("restore_time=2020-01-01T00:00:00", "no moment with a time zone"),
            ("restore_time=2099-01-01T00:00:00Z", "has not come yet"),
        ],
    )
    def test_what_cannot_be_is_said(self, host: Any, variable: str, words: str) -> None:
        said = restore(host, variable, f"restore_confirm={name_of(host)}", check=False)
        assert words in said
        assert len(rows(host)) == 6


class TestRestoreCheck:
    def test_every_repository_is_proven(self, host: Any) -> None:
        done = host.run("systemctl start berth-restore-check")
        assert done.rc == 0, host.run("journalctl -u berth-restore-check -n 30 --no-pager").stdout
        report = status(host)["restore_check"]
        assert report["ok"]
        assert [one["repository"] for one in report["repositories"]] == list(REPOSITORIES)
        for one in report["repositories"]:
            assert one["databases"]["shop"] == {"public.orders": 6}
            assert set(one["databases"]) == {"postgres", "shop", "crm"}
            assert one["reached_lsn"] == one["target_lsn"]
            assert one["queries"][0]["value"] == 6
            assert one["seconds"]["total"] > 0
        metrics = host.file("/var/lib/berth/backup/backup.prom").content_string
        assert (
            f'berth_restore_check_ok{{stanza="{name_of(host)}",repository="offsite"}} 1' in metrics
        )
        assert "berth_restore_check_duration_seconds" in metrics
        assert host.file("/var/lib/berth/backup/backup.prom").mode == 0o644

    def test_nothing_is_left_behind(self, host: Any) -> None:
        nothing_left(host)

    def test_nor_by_one_that_is_killed(self, host: Any) -> None:
        host.check_output("systemctl start --no-block berth-restore-check")
        for _ in range(100):
            if host.run("ls /var/lib/berth/backup/restore-check/1/data/PG_VERSION").rc == 0:
                break
            time.sleep(0.1)
        host.check_output("systemctl kill -s KILL berth-restore-check")
        for _ in range(100):
            if host.run("systemctl is-failed berth-restore-check").rc == 0:
                break
            time.sleep(0.1)
        nothing_left(host)
        host.check_output("systemctl reset-failed berth-restore-check")

    def test_a_query_that_is_not_met_fails(self, host: Any) -> None:
        sql(host, "DELETE FROM orders WHERE what IN ('A', 'B', 'C', 'D', '3')")
        assert host.run("systemctl start berth-restore-check").rc != 0
        report = status(host)["restore_check"]
        assert not report["ok"]
        assert "gives 2, not at least 3" in report["repositories"][0]["error"]
        sql(host, "INSERT INTO orders VALUES ('3')")
