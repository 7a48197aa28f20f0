"""The host is lost: a new one with an empty cluster becomes the old one again."""

from __future__ import annotations

from typing import Any

from operator_view import name_of, play, restore, rows, sql, status

# One of the two is enough.
testinfra_hosts = ["ansible://trixie"]


def test_a_new_host_becomes_the_old_one(host: Any) -> None:
    before = rows(host)
    assert before
    sql(host, "SELECT pg_switch_wal()")
    host.check_output("systemctl start berth-backup-check")
    host.check_output("pg_dropcluster --stop 17 main")
    host.check_output("rm -rf /var/lib/berth/backup /var/lib/berth/postgresql")

    # The new cluster is no continuation of the old: its repositories are not touched.
    assert "backups of another cluster" in play(host, "converge.yml", check=False)
    confirmed = ("restore_time=latest", f"restore_confirm={name_of(host)}")
    assert "restore with force" in restore(host, *confirmed, check=False)
    restore(host, *confirmed, "restore_force=true")
    assert rows(host) == before

    play(host, "converge.yml")
    assert status(host)["problems"] == []
    assert sql(host, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop'") == "t"
