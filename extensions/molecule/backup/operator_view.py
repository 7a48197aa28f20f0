"""What an operator asks of a database host, and does to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from shlex import quote
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROGRAM = "/usr/local/lib/berth/berth-backup"
REPOSITORIES = ("local", "offsite")
SECRETS = ("offsite-secret-key", "offsite-passphrase", "shop-password")


def sql(host: Any, text: str, database: str = "shop") -> str:
    command = f"cd / && psql -XAtq -v ON_ERROR_STOP=1 -d {database} -c {quote(text)}"
    done = host.run(f"su postgres -c {quote(command)}")
    assert done.rc == 0, done.stderr
    return str(done.stdout.strip())


def name_of(host: Any) -> str:
    return str(host.backend.get_pytest_id().removeprefix("ansible://"))


def status(host: Any) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"{PROGRAM} status")))


def repository(host: Any, name: str) -> dict[str, Any]:
    return dict(next(one for one in status(host)["repositories"] if one["name"] == name))


def moment(host: Any) -> str:
    """A moment that nothing else happens in."""
    time.sleep(1.1)
    text = host.check_output("date -u +%Y-%m-%dT%H:%M:%S.%6NZ")
    time.sleep(1.1)
    return str(text)


def rows(host: Any) -> list[str]:
    return sql(host, "SELECT what FROM orders ORDER BY what").splitlines()


def nothing_left(host: Any) -> None:
    """A trial restore leaves neither files nor a server."""
    assert host.check_output("find /var/lib/berth/backup/restore-check -mindepth 1") == ""
    assert host.run("ps axww | grep [c]luster_name=restore-check").stdout == ""


def play(host: Any, name: str, *variables: str, check: bool = True) -> str:
    """A playbook of this scenario on one host; what it said."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
    argv = ["ansible-playbook", str(HERE / name), "-i", inventory, "--limit", name_of(host)]
    for variable in variables:
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


def restore(host: Any, *variables: str, check: bool = True) -> str:
    """The restore, as an operator runs it."""
    return play(host, "restore.yml", *variables, check=check)
