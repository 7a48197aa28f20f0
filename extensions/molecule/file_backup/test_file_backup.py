"""Backups of files as an operator needs them: brought back byte by byte, and loud when they fail.

The tests build on one another in the order of the file. Both hosts do the same at the same time,
since every call of restic takes a while to make a key of its password.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

PROGRAM = "/usr/local/lib/berth/berth-file-backup"
REPOSITORIES = ("local", "offsite")
SECRETS = ("local-password", "offsite-password", "offsite-secret")
ROOT = Path(__file__).resolve().parents[3]
# What tells whether a tree is the same: kinds, modes, owners, links, times, names, and contents.
TREE = (
    "cd {0} && find . -path ./cache -prune -o -name '*.tmp' -prune -o "
    r"-printf '%y %m %U:%G %T@ %l %p\n' | sort && "
    "find . -path ./cache -prune -o -type f ! -name '*.tmp' -print0 | sort -z | xargs -0 sha256sum"
)


def status(host: Any) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"{PROGRAM} status")))


def repository(host: Any, name: str) -> dict[str, Any]:
    return dict(next(one for one in status(host)["repositories"] if one["name"] == name))


def tree(host: Any, directory: str) -> list[str]:
    found: list[str] = host.check_output(TREE.format(quote(directory))).splitlines()
    assert len(found) > 20
    return found


def failed(host: Any, unit: str) -> str:
    """Start a unit that has to fail and tell it; its last words."""
    host.check_output(f"rm -f /run/told-{unit}.service")
    assert host.run(f"systemctl start {unit}").rc != 0
    for _ in range(50):
        if host.file(f"/run/told-{unit}.service").exists:
            break
        time.sleep(0.1)
    else:
        pytest.fail("nobody was told")
    return str(host.check_output(f"journalctl -u {unit} -n 12 --no-pager"))


def playbook(*variables: str, check: bool = True) -> str:
    """The restore on all hosts, as an operator runs it; what it said."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
    argv = ["ansible-playbook", str(ROOT / "playbooks/restore_files.yml"), "-i", inventory]
    for variable in ("restore_host=all", *variables):
        argv += ["-e", variable]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is check, done.stdout[-3000:] + done.stderr[-1000:]
    return " ".join(done.stdout.split())


Everywhere = Callable[[Callable[[Any], Any]], list[Any]]


@pytest.fixture(scope="module")
def everywhere(hosts: dict[str, Any]) -> Everywhere:
    """Do something on all hosts at once; what it found on each."""

    def do(what: Callable[[Any], Any]) -> list[Any]:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(what, hosts.values()))

    return do


def test_the_first_snapshots_are_waited_for(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        said = host.check_output(f"{PROGRAM} recent --wait=60")
        assert said == "every repository holds a recent snapshot"
        found = status(host)
        assert found["problems"] == []
        for one in found["repositories"]:
            assert (one["ok"], one["snapshots"]) == (True, 1), one
        for name in REPOSITORIES:
            assert found["runs"][name]["ok"]
            assert found["runs"][name]["files"] > 10
            assert found["runs"][name]["bytes"] > 8_000_000

    everywhere(look)


def test_timers_wait_for_their_hour(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        listing = host.check_output("systemctl list-timers --all --no-pager --no-legend 'berth-*'")
        for timer in ("file-backup", "file-backup-check", "file-restore-check"):
            assert f"berth-{timer}.timer" in listing
            assert host.check_output(f"systemctl is-enabled berth-{timer}.timer") == "enabled"
        calendar = host.check_output("systemctl show -P TimersCalendar berth-file-backup.timer")
        assert "OnCalendar=*-*-* 02:00:00" in calendar

    everywhere(look)


def test_secrets_are_nobody_elses(everywhere: Everywhere) -> None:
    pattern = quote("|".join(SECRETS))

    def look(host: Any) -> None:
        modes = host.check_output("stat -c '%U %a' /etc/berth/file-backup /etc/berth/file-backup/*")
        assert modes.splitlines() == ["root 700", "root 600", "root 600", "root 600"]
        # Every command line while backup, check and trial restore run.
        host.check_output(
            "for unit in berth-file-backup berth-file-backup-check berth-file-restore-check; do "
            "  systemctl start $unit & job=$!; "
            "  while kill -0 $job 2>/dev/null; do "
            "    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; sleep 0.02; "
            "  done >> /root/argv; wait $job || exit 1; done"
        )
        for verb in ("backup --json", "forget", "check --quiet", "restore "):
            assert host.run(f"grep -q -e {quote('/usr/bin/restic.*' + verb)} /root/argv").rc == 0
        assert host.run(f"grep -cE {pattern} /root/argv").stdout.strip() == "0"
        assert host.run(f"journalctl --no-pager | grep -E {pattern}").stdout == ""
        places = "/etc /run /tmp /usr/local /var/cache/berth-file-backup /var/lib/berth /var/log"
        readable = f"find {places} -type f -perm -004 -print0 | xargs -0 grep -lE {pattern}"
        assert host.run(readable).stdout == ""
        units = host.check_output("systemctl show 'berth-file-*'")
        assert not any(secret in units for secret in SECRETS)

    everywhere(look)


def test_every_repository_was_restored_as_a_trial(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        assert "dumped to /srv/shop/dump.txt" in host.check_output(
            "journalctl -u berth-file-backup --no-pager"
        )
        report = status(host)["restore_check"]
        assert report["ok"]
        assert [one["repository"] for one in report["repositories"]] == list(REPOSITORIES)
        for one in report["repositories"]:
            assert one["files"] > 10
            assert one["directories"] >= 6
            assert one["bytes"] > 8_000_000
            assert set(one["seconds"]) == {"restore", "compare", "total"}
        assert host.check_output("ls -A /var/lib/berth/file-backup/restore-check") == ""
        path = "/var/lib/berth/file-backup/file-backup.prom"
        lines = host.check_output(f"cat {path}").splitlines()
        for name in REPOSITORIES:
            for family in ("backup_run_ok", "backup_check_ok", "restore_check_ok"):
                assert f'berth_file_{family}{{repository="{name}"}} 1' in lines
        assert host.file(path).mode == 0o644

    everywhere(look)


@pytest.fixture(scope="module")
def before(everywhere: Everywhere) -> dict[str, Any]:
    """The tree of a moment by host, after which it and the next snapshot are spoilt."""

    def spoil(host: Any) -> tuple[str, list[str]]:
        found = tree(host, "/srv/shop")
        host.check_output(
            "cd /srv/shop && rm -r private uploads/äöü.txt pipe link && echo spoilt > plain.txt && "
            "chmod 0777 program && chown nobody old && echo new > new.txt && "
            "dd if=/dev/zero of=uploads/image.bin bs=1k seek=100 count=1 conv=notrunc status=none"
        )
        assert tree(host, "/srv/shop") != found
        host.check_output("systemctl start berth-file-backup")
        return str(host.check_output("hostname")), found

    time.sleep(1.1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"moment": moment, **dict(everywhere(spoil))}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_restored_byte_by_byte_with_owners_and_modes(
    everywhere: Everywhere, before: dict[str, Any], name: str
) -> None:
    def look(host: Any) -> None:
        target = f"/var/tmp/back-{name}"
        ask = f"{PROGRAM} restore --target={target} --repository={name} --time={before['moment']}"
        done = json.loads(host.check_output(ask))
        assert (done["repository"], done["target"]) == (name, target)
        assert tree(host, f"{target}/srv/shop") == before[host.check_output("hostname")]
        assert host.check_output(f"cat {target}/srv/note.txt") == "a note"
        assert host.file(f"{target}/var/log/shop/shop.log").size > 0
        assert not host.file(f"{target}/srv/shop/cache").exists
        assert not host.file(f"{target}/srv/shop/uploads/left-out.tmp").exists
        # Whoever may not read the original finds no copy to read.
        assert host.file(target).mode == 0o700

    everywhere(look)


def test_put_back_where_they_were_by_the_playbook(
    everywhere: Everywhere, before: dict[str, Any]
) -> None:
    wanted = (
        "restore_target=/",
        f"restore_time={before['moment']}",
        "restore_repository=offsite",
        "restore_paths=/srv/shop",
    )
    said = playbook(*wanted, check=False)
    assert "restore_overwrite=true" in said
    assert "repository: offsite" in said

    def still_spoilt(host: Any) -> None:
        assert host.check_output("cat /srv/shop/plain.txt") == "spoilt"
        host.check_output("echo later > /srv/note.txt")

    everywhere(still_spoilt)
    playbook(*wanted, "restore_overwrite=true")

    def look(host: Any) -> None:
        # What the snapshot does not have stays, and so do other paths.
        assert host.check_output("cat /srv/note.txt") == "later"
        assert host.check_output("cat /srv/shop/new.txt") == "new"
        host.check_output("rm /srv/shop/new.txt; touch -r /var/tmp/back-local/srv/shop /srv/shop")
        assert tree(host, "/srv/shop") == before[host.check_output("hostname")]
        assert host.check_output("stat -c %h /srv/shop/hard") == "2"

    everywhere(look)


def test_a_single_path_is_brought_back(everywhere: Everywhere) -> None:
    path = '/srv/shop/uploads/a [b] *c? "d".bin'

    def look(host: Any) -> None:
        ask = f"{PROGRAM} restore --target=/var/tmp/one"
        assert json.loads(host.check_output(f"{ask} --path={quote(path)}"))["files"] == 1
        host.check_output(f"cmp {quote(path)} {quote('/var/tmp/one' + path)}")
        assert host.check_output("find /var/tmp/one -type f | wc -l") == "1"
        again = host.run(ask)
        assert (again.rc, "is not empty" in again.stderr) == (1, True)

    everywhere(look)


def test_a_damaged_repository_fails_and_is_named(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        host.check_output(
            "cp -a /srv/restic /srv/restic.good; cd /srv/restic/data; "
            "for pack in $(find . -type f -size +30k); do chmod u+w $pack; "
            "for place in $(seq 20 100 $(($(stat -c %s $pack) / 1024 - 1))); do "
            "dd if=/dev/urandom of=$pack bs=1k seek=$place count=1 conv=notrunc status=none; "
            "done; done"
        )
        assert "repository local" in failed(host, "berth-file-backup-check")
        failed(host, "berth-file-restore-check")
        found = status(host)
        assert (found["check"]["local"]["ok"], found["check"]["offsite"]["ok"]) == (False, True)
        assert any("local: the last check failed" in line for line in found["problems"])
        local, offsite = found["restore_check"]["repositories"]
        assert not local["ok"]
        assert offsite["ok"], offsite["error"]
        assert host.check_output("ls -A /var/lib/berth/file-backup/restore-check") == ""

        host.check_output("rm -r /srv/restic; mv /srv/restic.good /srv/restic")

    everywhere(look)


def test_a_killed_run_is_made_good_by_the_next(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        host.check_output(
            "head -c 50000000 /dev/urandom > /srv/shop/big; "
            "systemctl start --no-block berth-file-backup; "
            # By its full name: a lock that is half written is none.
            "until ls /srv/restic/locks | grep -qx '[0-9a-f]*'; do sleep 0.01; done; "
            "pid=$(grep -lx restic /proc/[0-9]*/comm | head -n 1 | cut -d / -f 3); "
            "systemctl kill -s KILL berth-file-backup; "
            "until systemctl is-failed berth-file-backup; do sleep 0.05; done; "
            "ls /srv/restic/locks | grep -qx '[0-9a-f]*' || exit 1; "
            # The number of the killed process becomes that of one which has nothing to do with it.
            "for try in $(seq 300); do echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid; "
            "sleep 900 > /dev/null 2>&1 < /dev/null & "
            "[ $! = $pid ] && echo $pid > /root/innocent && exit; kill $!; done; exit 1"
        )
        host.check_output("systemctl start berth-file-backup")
        assert host.check_output("ls -A /srv/restic/locks") == ""
        host.check_output("kill $(cat /root/innocent)")
        host.check_output(f"{PROGRAM} recent; rm /srv/shop/big")

    everywhere(look)


def test_a_killed_restore_check_leaves_nothing(everywhere: Everywhere) -> None:
    def look(host: Any) -> None:
        directory = "/var/lib/berth/file-backup/restore-check"
        host.check_output(
            "systemctl start --no-block berth-file-restore-check; "
            f"until ls -A {directory} | grep -q .; do sleep 0.01; done; "
            "systemctl kill -s KILL berth-file-restore-check; "
            "until systemctl is-failed berth-file-restore-check; do sleep 0.05; done"
        )
        assert host.check_output(f"ls -A {directory}") == ""

    everywhere(look)


def test_a_missing_path_and_a_store_that_is_down_fail_and_the_rest_is_backed_up(
    everywhere: Everywhere, hosts: dict[str, Any]
) -> None:
    def missing(host: Any) -> None:
        old = repository(host, "local")
        host.check_output("mv /srv/note.txt /srv/note.away")
        assert "/srv/note.txt does not exist" in failed(host, "berth-file-backup")
        found = repository(host, "local")
        assert found["snapshots"] == old["snapshots"] + 1
        # One without all paths does not count.
        assert found["latest"]["label"] == old["latest"]["label"]
        done = host.run(f"{PROGRAM} recent")
        assert done.rc == 1
        assert "/srv/note.txt does not exist" in done.stderr
        host.check_output("mv /srv/note.away /srv/note.txt")
        host.check_output(
            "sed 's/^{/{\"answer_seconds\": 2,/' /etc/berth/file-backup.json > /root/short.json"
        )

    def down(host: Any) -> None:
        done = host.run(f"{PROGRAM} --configuration=/root/short.json run")
        assert done.rc == 1
        words = done.stderr.splitlines()[-1]
        assert "repository offsite: " in words
        assert "repository local: " not in words

    everywhere(missing)
    hosts["trixie"].check_output("systemctl stop object-store")
    try:
        everywhere(down)
    finally:
        hosts["trixie"].check_output("systemctl start object-store")
