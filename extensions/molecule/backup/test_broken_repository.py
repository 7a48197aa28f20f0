"""One repository is damaged or down: the other one is there, and nobody can overlook it."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from operator_view import (
    PROGRAM,
    name_of,
    nothing_left,
    repository,
    rows,
    sql,
    status,
)

# One of the two is enough: what is down takes its time.
testinfra_hosts = ["ansible://trixie"]


@contextmanager
def store_down(hosts: dict[str, Any]) -> Generator[None]:
    hosts["bookworm"].check_output("systemctl stop object-store")
    try:
        yield
    finally:
        hosts["bookworm"].check_output("systemctl start object-store")


class TestBrokenRepository:
    def test_a_damaged_backup_fails_and_names_its_repository(self, host: Any) -> None:
        label = repository(host, "local")["latest"]["label"]
        directory = f"/srv/backup/pgbackrest/backup/{name_of(host)}/{label}/bundle"
        host.check_output(
            f"for f in {directory}/*; do dd if=/dev/urandom of=$f bs=1k seek=4 count=64 "
            "conv=notrunc status=none; done"
        )
        assert host.run("systemctl start berth-restore-check").rc != 0
        local, offsite = status(host)["restore_check"]["repositories"]
        assert not local["ok"]
        assert offsite["ok"], offsite["error"]
        assert host.file("/run/told-berth-restore-check.service").exists
        nothing_left(host)
        # A new full one puts it right.
        assert host.run("systemctl start berth-backup-full").rc == 0
        assert host.run("systemctl start berth-restore-check").rc == 0

    def test_the_other_one_gets_all_and_the_units_fail(
        self, host: Any, hosts: dict[str, Any]
    ) -> None:
        with store_down(hosts):
            sql(host, "INSERT INTO orders VALUES ('E')")
            segment = sql(host, "SELECT pg_walfile_name(pg_switch_wal())")
            # WAL still reaches the repository that works.
            archive = f"/srv/backup/pgbackrest/archive/{name_of(host)}"
            for _ in range(150):
                if host.run(f"find {archive} -name '{segment}-*' | grep -q .").rc == 0:
                    break
                time.sleep(1)
            else:
                pytest.fail(f"{segment} did not reach the local repository")

            assert host.run("systemctl start berth-backup-diff").rc != 0
            assert host.check_output("systemctl is-failed berth-backup-diff") == "failed"
            assert host.file("/run/told-berth-backup-diff.service").exists
            runs = status(host)["runs"]
            assert runs["offsite/diff"]["ok"] is False
            words = host.run("journalctl -u berth-backup-diff -n 5 --no-pager").stdout
            assert "repository offsite" in words

            assert host.run("systemctl start berth-backup-check").rc != 0
            assert any("offsite" in line for line in status(host)["problems"])
            done = host.run(f"{PROGRAM} recent")
            assert done.rc == 1
            assert "repository offsite" in done.stderr

            # What no repository holds yet is not thrown away by a restore.
            since = sql(host, "SELECT pg_postmaster_start_time()")
            done = host.run(f"{PROGRAM} restore --time=latest --confirm={name_of(host)}")
            assert done.rc == 1
            assert "would be lost" in done.stderr
            assert "E" in rows(host)
            assert sql(host, "SELECT pg_postmaster_start_time()") == since

    def test_and_all_is_well_again(self, host: Any) -> None:
        for _ in range(90):
            if host.run("systemctl start berth-backup-check").rc == 0:
                break
            time.sleep(1)
        assert host.run("systemctl start berth-backup-diff").rc == 0
        assert repository(host, "offsite")["diff"]["age_hours"] < 0.1
        host.check_output(f"{PROGRAM} recent")
        assert "berth-backup-diff" not in host.check_output("systemctl list-units --failed --plain")
