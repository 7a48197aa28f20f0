# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to a PostgreSQL server on its own host, by psql over its socket, as its own user.

psql comes with every server, so nothing has to be installed for Python. SQL goes in by standard
input, never by arguments, and the session is told not to log what it is asked to run.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ADMIN = "postgres"
SOCKET_DIRECTORY = "/var/run/postgresql"
CONFIGURATION = "/etc/postgresql"
# Whatever the server is set to log, passwords and verifiers in statements stay out of it.
_QUIET = (
    "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic "
    "-c standard_conforming_strings=on -c client_min_messages=warning"
)
_LINE = re.compile(r"psql:<stdin>:(?P<line>\d+): ")


class ServerError(RuntimeError):
    """The server said no, or nothing; in its own words."""


class Unreachable(ServerError):
    """There is no server to talk to."""


class _Shown(Protocol):
    """A statement, and what of it may be seen."""

    @property
    def sql(self) -> str: ...


def identity(user: str = ADMIN) -> dict[str, Any]:
    """What subprocess needs to run as the server's user: nothing if we are it already."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Unreachable(f"there is no user {user}: PostgreSQL is not installed") from None
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def run(
    argv: Sequence[str],
    *,
    user: str | None = ADMIN,
    stdin: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as the server's user unless *user* is None."""
    return subprocess.run(
        list(argv),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(env or {})},
        **(identity(user) if user else {}),
    )


def program(name: str, version: int) -> str:
    """A program of that version; Debian's wrapper of the same name is slower."""
    path = f"/usr/lib/postgresql/{version}/bin/{name}"
    return path if os.path.exists(path) else f"/usr/bin/{name}"


@dataclass(frozen=True)
class Server:
    """One cluster of this host, by its socket."""

    version: int
    port: int = 5432
    socket_directory: str = SOCKET_DIRECTORY

    def _psql(
        self, database: str, script: str, *options: str, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        psql = program("psql", self.version)
        if not os.path.exists(psql):
            raise Unreachable(f"{psql} is not there: PostgreSQL {self.version} is not installed")
        argv = [psql, "-XAtq", "--no-password", "--set=ON_ERROR_STOP=1", *options, "--file=-"]
        env = {
            "PGHOST": self.socket_directory,
            "PGPORT": str(self.port),
            "PGUSER": ADMIN,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "10",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": _QUIET,
        }
        return run(argv, stdin=script, env=env, timeout=timeout)

    def ask(self, database: str, question: str, *, timeout: float | None = None) -> Any:
        """The one JSON value that a query gives."""
        done = self._psql(database, question, timeout=timeout)
        if done.returncode == 2:
            raise Unreachable(done.stderr.strip())
        if done.returncode != 0:
            raise ServerError(done.stderr.strip())
        return json.loads(done.stdout)

    def tell(self, database: str, statements: Iterable[_Shown], *, together: bool) -> None:
        """Run statements in order, *together* in one transaction or each on its own.

        An error is told in the server's words with the statement as it may be shown; terse, since
        the longer form repeats the statement as it was sent.
        """
        listed = list(statements)
        if not listed:
            return
        lines = ["\\set VERBOSITY terse", "\\set SHOW_CONTEXT never"]
        lines += [statement.sql for statement in listed]
        options = ["--single-transaction"] if together else []
        done = self._psql(database, "\n".join(lines) + "\n", *options)
        if done.returncode == 0:
            return
        words = _LINE.sub("", done.stderr.strip())
        found = _LINE.search(done.stderr)
        if found and 0 <= (number := int(found["line"]) - 3) < len(listed):
            words += f" (database {database}: {listed[number]})"
        raise ServerError(words)


# --- clusters and packages -------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterFacts:
    """A line of pg_lsclusters."""

    version: int
    name: str
    port: int
    running: bool
    owner: str
    data_directory: str
    log: str


def parse_clusters(listing: str) -> list[ClusterFacts]:
    """From `pg_lsclusters --no-header`; versions before 10 (9.6) are not ours."""
    found = []
    for line in listing.splitlines():
        words = line.split()
        if len(words) < 6 or not words[0].isdigit() or not words[2].isdigit():
            continue
        version, name, port, status, owner, data = words[:6]
        log = words[6] if len(words) > 6 else ""
        running = status.split(",")[0] == "online"
        found.append(ClusterFacts(int(version), name, int(port), running, owner, data, log))
    return found


def clusters() -> list[ClusterFacts]:
    """The host's clusters; none where Debian's tools are not installed."""
    if not os.path.exists("/usr/bin/pg_lsclusters"):
        return []
    done = run(["/usr/bin/pg_lsclusters", "--no-header"], user=None)
    if done.returncode != 0:
        raise ServerError(f"pg_lsclusters: {done.stderr.strip()}")
    return parse_clusters(done.stdout)


def parse_offered(policy: str) -> list[int]:
    """The versions that `apt-cache policy postgresql-N …` has a candidate for."""
    found = []
    version = 0
    for line in policy.splitlines():
        heading = re.match(r"^postgresql-(\d+):$", line)
        if heading:
            version = int(heading[1])
        elif line.strip().startswith("Candidate:") and version:
            if line.split(":", 1)[1].strip() != "(none)":
                found.append(version)
            version = 0
    return found


def offered(versions: Sequence[int]) -> list[int]:
    """Which of the versions the host's package lists offer."""
    names = [f"postgresql-{version}" for version in versions]
    try:
        done = run(["/usr/bin/apt-cache", "policy", *names], user=None)
    except FileNotFoundError:
        return []
    return parse_offered(done.stdout)


def tail(path: str, before: int = 0, lines: int = 20) -> str:
    """The end of a log file, and nothing of what it held when it was *before* bytes long."""
    try:
        with open(path, "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(before, handle.tell() - 16384))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
