#!/usr/bin/python3
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a PostgreSQL cluster: taken, watched, restored, and proven by restoring them.

A layer over pgBackRest for what has to happen on the host itself, without a controller: backups to
every repository, a check that fails when one of them is broken or old, a restore to a moment, and
a trial restore into a scratch directory. Installed by the role berth.platform.backup.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

CONFIGURATION = Path("/etc/berth/backup.json")
PGBACKREST = "/usr/bin/pgbackrest"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# pgBackRest's codes for a repository without the stanza, and for one without a backup.
NO_STANZA = (1, 3)
NO_BACKUP = 2
OTHER = 99
# Its exit status when another process of it holds what a command needs, and the seconds to wait.
BUSY = 50
PATIENCE = 60.0
# Seconds that a repository may take to say what it holds.
ANSWER = 60.0
# The unit that makes full backups.
FULL = "berth-backup-full"
# The part of its log that says what went wrong, without time and process.
_FAULT = re.compile(r"(?:ERROR|HINT):.*")
MIB = 1024 * 1024


class BackupError(RuntimeError):
    """Something is wrong with the backups, in words for who has to mend it."""


# --- what is configured ----------------------------------------------------------------------


@dataclass(frozen=True)
class Repository:
    """A repository by pgBackRest's number and by the name that people use."""

    key: int
    name: str
    # A directory of this host; empty where it is elsewhere.
    path: str = ""


@dataclass(frozen=True)
class Query:
    """A question to the restored copy: its one number has to be at least the minimum."""

    database: str
    query: str
    minimum: float = 1


@dataclass(frozen=True)
class Configuration:
    """What /etc/berth/backup.json says."""

    stanza: str
    repositories: tuple[Repository, ...]
    version: int
    port: int
    data_directory: str
    state_directory: str = "/var/lib/berth/backup"
    metrics_file: str = "/var/lib/berth/backup/backup.prom"
    user: str = "postgres"
    socket_directory: str = "/var/run/postgresql"
    max_age_hours: float = 30
    lock_seconds: float = 7200
    check_directory: str = "/var/lib/berth/backup/restore-check"
    check_repositories: tuple[int, ...] = ()
    check_seconds: float = 21600
    check_queries: tuple[Query, ...] = ()

    @property
    def unit(self) -> str:
        """The cluster's unit."""
        return f"postgresql@{self.version}-main.service"

    @property
    def binaries(self) -> str:
        """Where the programs of this version are."""
        return f"/usr/lib/postgresql/{self.version}/bin"

    def repository(self, wanted: str | int) -> Repository:
        """A repository by its number or name."""
        for one in self.repositories:
            if str(wanted) in (str(one.key), one.name):
                return one
        known = ", ".join(f"{one.key} ({one.name})" for one in self.repositories)
        raise BackupError(f"there is no repository {wanted}; there are {known}")


def parse_configuration(raw: Mapping[str, Any]) -> Configuration:
    """The file's content in its form."""
    values = dict(raw)
    values["repositories"] = tuple(Repository(**one) for one in raw["repositories"])
    values["check_repositories"] = tuple(raw.get("check_repositories", ()))
    values["check_queries"] = tuple(Query(**one) for one in raw.get("check_queries", ()))
    return Configuration(**values)


# --- what pgBackRest knows -------------------------------------------------------------------


@dataclass(frozen=True)
class Backup:
    """A backup in a repository; times are seconds since the epoch."""

    repository: int
    label: str
    type: str
    start: int
    stop: int
    size: int
    stored: int
    lsn: str
    timeline: int
    damaged: bool


@dataclass(frozen=True)
class Store:
    """A repository as pgBackRest sees it."""

    repository: Repository
    code: int
    message: str
    backups: tuple[Backup, ...] = ()
    last_wal: str = ""
    # The directory of the present cluster's WAL, such as 17-1.
    archive: str = ""
    system: int = 0

    def latest(self, *types: str) -> Backup | None:
        """The latest backup, of one of the types if some are given."""
        fitting = [one for one in self.backups if not types or one.type in types]
        return max(fitting, key=lambda one: one.stop, default=None)


def parse_store(raw: Sequence[Mapping[str, Any]], stanza: str, repository: Repository) -> Store:
    """What `pgbackrest info --output=json` says of one repository."""
    found: Mapping[str, Any] = next((one for one in raw if one.get("name") == stanza), {})
    states = {one["key"]: one["status"] for one in found.get("repo", ())}
    state = states.get(repository.key, {"code": NO_STANZA[0], "message": "missing stanza path"})
    backups = [
        Backup(
            repository=repository.key,
            label=one["label"],
            type=one["type"],
            start=one["timestamp"]["start"],
            stop=one["timestamp"]["stop"],
            size=one["info"]["size"],
            stored=one["info"]["repository"].get("delta", 0),
            lsn=(one.get("lsn") or {}).get("stop") or "",
            timeline=int(((one.get("archive") or {}).get("start") or "0")[:8], 16),
            damaged=bool(one.get("error")),
        )
        for one in found.get("backup", ())
        if one["database"]["repo-key"] == repository.key
    ]
    archives = [
        (one["database"]["id"], one["id"], one.get("max") or "")
        for one in found.get("archive", ())
        if one["database"]["repo-key"] == repository.key
    ]
    archive = max(archives, default=(0, "", ""))[1]
    systems = [
        (one["id"], one["system-id"])
        for one in found.get("db", ())
        if one["repo-key"] == repository.key
    ]
    return Store(
        repository=repository,
        code=state["code"],
        # The first line says what is wrong, the others how often it was tried.
        message=(state["message"].splitlines() or [""])[0],
        backups=tuple(sorted(backups, key=lambda one: one.stop)),
        # Timelines count first, as they do in the names of segments.
        last_wal=max((entry[2] for entry in archives), default=""),
        archive=archive,
        system=max(systems, default=(0, 0))[1],
    )


def problems(stores: Iterable[Store], *, now: float, max_age_hours: float) -> list[str]:
    """What is wrong with the repositories, in lines."""
    found = []
    for store in stores:
        name = f"repository {store.repository.name}"
        latest = store.latest()
        if store.code == NO_BACKUP or (store.code == 0 and latest is None):
            found.append(f"{name} holds no backup")
        elif store.code:
            found.append(f"{name}: {store.message}")
        if latest is None:
            continue
        age = (now - latest.stop) / 3600
        if age > max_age_hours:
            found.append(
                f"{name}: the latest backup {latest.label} is {age:.1f} hours old, "
                f"more than {max_age_hours:g}"
            )
        if latest.damaged:
            found.append(f"{name}: backup {latest.label} holds pages with wrong checksums")
    return found


# --- moments ---------------------------------------------------------------------------------

_MOMENT = re.compile(
    r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s*"
    r"(Z|UTC|[+-]\d\d(?::?\d\d)?)$",
    re.IGNORECASE,
)


def parse_moment(text: str, *, now: datetime) -> datetime | None:
    """A moment in UTC, or None for "latest". Its time zone has to be said."""
    if text.strip().lower() == "latest":
        return None
    found = _MOMENT.match(text.strip())
    if not found:
        example = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        raise BackupError(
            f"{text!r} is no moment with a time zone; write it like '{example}', or 'latest'"
        )
    day, clock, zone = found.groups()
    if clock.count(":") == 1:
        clock += ":00"
    whole, _dot, fraction = clock.partition(".")
    zone = "+00:00" if zone.upper() in ("Z", "UTC") else zone.replace(":", "")
    if ":" not in zone:
        zone = f"{zone[:3]}:{zone[3:] or '00'}"
    try:
        moment = datetime.fromisoformat(f"{day}T{whole}.{fraction.ljust(6, '0')}{zone}")
    except ValueError as error:
        raise BackupError(f"{text!r}: {error}") from None
    moment = moment.astimezone(timezone.utc)
    if moment > now:
        raise BackupError(f"{text!r} has not come yet; write 'latest' for all there is")
    return moment


def stamp(seconds: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True)
class Plan:
    """What a restore would use."""

    repository: Repository
    backup: Backup
    moment: datetime | None
    timeline: int = 0
    # Of the cluster that the backups are of.
    system: int = 0

    def options(self) -> list[str]:
        """For pgBackRest."""
        given = [f"--repo={self.repository.key}", f"--set={self.backup.label}"]
        if self.moment is not None:
            target = self.moment.strftime("%Y-%m-%d %H:%M:%S.%f+00")
            given += ["--type=time", f"--target={target}", "--target-action=promote"]
        if self.timeline:
            given.append(f"--target-timeline={self.timeline}")
        return given

    def lines(self) -> list[str]:
        """For people."""
        to = "the end of the archive" if self.moment is None else stamp(self.moment.timestamp())
        return [
            f"target: {to}",
            f"repository: {self.repository.name}",
            f"backup: {self.backup.label}, completed {stamp(self.backup.stop)}, "
            f"{self.backup.size / MIB:.0f} MiB",
        ]


def parse_history(text: str) -> dict[int, str]:
    """Where each earlier timeline was left, from a .history file."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            found[int(words[0])] = words[1]
    return found


def lsn_number(text: str) -> int:
    """A place in the WAL as a number."""
    high, _slash, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def leads_to(backup: Backup, timeline: int, history: Mapping[int, str]) -> bool:
    """Whether replay can get from a backup to a timeline.

    After an earlier restore there are backups of a history that was left: from those, the server
    finds no way to the present one.
    """
    if not timeline or backup.timeline == timeline:
        return True
    left = history.get(backup.timeline)
    return left is not None and (not backup.lsn or lsn_number(backup.lsn) <= lsn_number(left))


# For a repository and a timeline (0: the latest): its number, and where earlier ones were left.
History = Callable[[Store, int], tuple[int, Mapping[int, str]]]


def plan_restore(
    stores: Iterable[Store],
    moment: datetime | None,
    wanted: Repository | None,
    timeline: int,
    history: History,
) -> Plan:
    """The latest backup completed before the moment, in the first repository that has one."""
    reasons = []
    for store in stores:
        if wanted and store.repository != wanted:
            continue
        name = store.repository.name
        if store.code not in (0, NO_BACKUP):
            reasons.append(f"repository {name}: {store.message}")
            continue
        line, past = history(store, timeline) if store.backups else (0, {})
        usable = [one for one in store.backups if leads_to(one, line, past)]
        fitting = [one for one in usable if moment is None or one.stop <= moment.timestamp()]
        if fitting:
            return Plan(store.repository, fitting[-1], moment, timeline, store.system)
        if usable:
            first = stamp(usable[0].stop)
            reasons.append(f"repository {name} reaches back to {first} only")
        elif store.backups:
            reasons.append(f"repository {name} holds no backup that leads to timeline {line}")
        else:
            reasons.append(f"repository {name} holds no backup")
    raise BackupError("nothing to restore from: " + "; ".join(reasons))


# --- running things --------------------------------------------------------------------------


def become(user: str) -> None:
    """Be that user for good, if we are root."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os.environ["HOME"] = entry.pw_dir


def identity(user: str) -> dict[str, Any]:
    """What subprocess needs to run as that user."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(user)
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def say(text: str) -> None:
    """A line for whoever watches; the journal, mostly."""
    print(text, file=sys.stderr, flush=True)


def last_words(text: str, lines: int = 6) -> str:
    """The end of what a program said."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Tools:
    """The programs of the host, for this configuration."""

    configuration: Configuration

    def pgbackrest(
        self, command: str, *options: str, loud: bool = True, timeout: float | None = None
    ) -> str:
        """Run a command of pgBackRest; what it says goes to the journal, its result is returned."""
        argv = [PGBACKREST, f"--stanza={self.configuration.stanza}"]
        argv.append("--log-level-console=info" if loud else "--log-level-console=warn")
        deadline = time.monotonic() + PATIENCE
        while True:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [*argv, command, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if loud else subprocess.PIPE,
                text=True,
                errors="replace",
                cwd="/",
                env=ENVIRONMENT,
                check=False,
                timeout=timeout,
                **identity(self.configuration.user),
            )
            # The server's own pushing of WAL holds the stanza's lock for moments.
            if done.returncode != BUSY or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if loud and done.stdout:
            say(done.stdout.rstrip())
        if done.returncode:
            words = done.stdout if loud else done.stderr or done.stdout
            faults = "\n".join(_FAULT.findall(words))
            raise BackupError(f"pgbackrest {command}: {last_words(faults or words)}")
        return done.stdout

    def store(self, repository: Repository) -> Store:
        """What a repository holds; one that does not answer holds up nobody for long."""
        try:
            answer = self.pgbackrest(
                "info", "--output=json", f"--repo={repository.key}", loud=False, timeout=ANSWER
            )
            return parse_store(json.loads(answer or "[]"), self.configuration.stanza, repository)
        except subprocess.TimeoutExpired:
            return Store(repository, OTHER, f"no answer within {ANSWER:g} s")
        except BackupError as error:
            return Store(repository, OTHER, str(error))

    def stores(self) -> list[Store]:
        """What the repositories hold, asked all at once."""
        repositories = self.configuration.repositories
        with ThreadPoolExecutor(max_workers=min(8, len(repositories))) as pool:
            return list(pool.map(self.store, repositories))

    def history(self, store: Store, timeline: int) -> tuple[int, Mapping[int, str]]:
        """The timeline, the latest if 0, and where those before it were left."""
        repository = f"--repo={store.repository.key}"
        place = f"archive/{self.configuration.stanza}/{store.archive}"
        listing = self.pgbackrest("repo-ls", repository, place, loud=False).split()
        known = {int(name[:8], 16) for name in listing if name.endswith(".history")}
        line = timeline or max({1, int(store.last_wal[:8] or "0", 16), *known})
        if line not in known:
            return line, {}
        name = f"{place}/{line:08X}.history"
        return line, parse_history(self.pgbackrest("repo-get", repository, name, loud=False))

    def ask(
        self,
        sql: str,
        database: str = "postgres",
        *,
        directory: str = "",
        timeout: float | None = None,
    ) -> str:
        """psql over a socket, the live cluster's unless another directory is given."""
        environment = {
            **ENVIRONMENT,
            "PGHOST": directory or self.configuration.socket_directory,
            "PGPORT": str(self.configuration.port),
            "PGUSER": self.configuration.user,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "10",
        }
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [f"{self.configuration.binaries}/psql", "-XAtq", "-vON_ERROR_STOP=1", "-f", "-"],
            input=sql,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=environment,
            check=False,
            timeout=timeout,
            **identity(self.configuration.user),
        )
        if done.returncode:
            raise BackupError(f"psql: {last_words(done.stderr)}")
        return done.stdout.strip()

    def systemctl(self, *words: str) -> str:
        """Run systemctl; its output."""
        done = subprocess.run(
            ["/usr/bin/systemctl", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BackupError(f"systemctl {' '.join(words)}: {last_words(done.stderr)}")
        return done.stdout.strip()


@contextlib.contextmanager
def locked(configuration: Configuration, seconds: float) -> Iterator[None]:
    """One at a time: timers that were missed start together after a boot."""
    path = Path(configuration.state_directory) / "lock"
    # Whoever comes first makes it, root or the server's user; to be locked it need not be written.
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BackupError(
                        f"another backup or restore check still runs after {seconds:g} s"
                    ) from None
            time.sleep(1)
        yield
    finally:
        os.close(handle)


def write(path: Path, text: str) -> None:
    """Replace a file whole, readable for who collects it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(path)


def read_state(configuration: Configuration, name: str) -> dict[str, Any]:
    """What an earlier run wrote down."""
    try:
        text = (Path(configuration.state_directory) / name).read_text(encoding="utf-8")
        return dict(json.loads(text))
    except (OSError, ValueError):
        return {}


def write_state(configuration: Configuration, name: str, state: Mapping[str, Any]) -> None:
    """For the next run, for the status page, and for people."""
    path = Path(configuration.state_directory) / name
    write(path, json.dumps(state, indent=2, ensure_ascii=False) + "\n")


# --- metrics ---------------------------------------------------------------------------------


def _sample(name: str, labels: Mapping[str, Any], value: float) -> str:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    inside = ",".join(f'{key}="{quoted(str(text))}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:g}" if value < 1e6 else f"{name}{{{inside}}} {value:.0f}"


def metrics(
    stanza: str,
    stores: Iterable[Store],
    runs: Mapping[str, Any],
    check: Mapping[str, Any],
) -> str:
    """In Prometheus's text format, for a textfile collector."""
    families: dict[str, tuple[str, list[str]]] = {
        "berth_backup_repository_ok": ("1 if the repository is usable.", []),
        "berth_backup_completed_timestamp_seconds": ("When the latest backup was completed.", []),
        "berth_backup_size_bytes": ("Size of the cluster in the latest backup.", []),
        "berth_backup_run_ok": ("1 if the last attempt succeeded.", []),
        "berth_backup_run_timestamp_seconds": ("When the last attempt ended.", []),
        "berth_backup_run_duration_seconds": ("How long the last attempt took.", []),
        "berth_restore_check_ok": ("1 if the last restore check succeeded.", []),
        "berth_restore_check_timestamp_seconds": ("When the last restore check ended.", []),
        "berth_restore_check_duration_seconds": ("How long each phase of it took.", []),
        "berth_restore_check_rows": ("Rows in all tables of the restored copy.", []),
    }

    def add(name: str, value: float, **labels: Any) -> None:
        families[name][1].append(_sample(name, {"stanza": stanza, **labels}, value))

    for store in stores:
        name = store.repository.name
        add("berth_backup_repository_ok", float(store.code == 0), repository=name)
        for kind in ("full", "diff", "incr"):
            latest = store.latest(kind)
            if latest:
                labels = {"repository": name, "type": kind}
                add("berth_backup_completed_timestamp_seconds", latest.stop, **labels)
                add("berth_backup_size_bytes", latest.size, **labels)
    for key, run in sorted(runs.items()):
        name, _slash, kind = key.rpartition("/")
        labels = {"repository": name, "type": kind}
        add("berth_backup_run_ok", float(run["ok"]), **labels)
        add("berth_backup_run_timestamp_seconds", run["ended"], **labels)
        add("berth_backup_run_duration_seconds", run["seconds"], **labels)
    for one in check.get("repositories", ()):
        name = one["repository"]
        add("berth_restore_check_ok", float(one["ok"]), repository=name)
        add("berth_restore_check_timestamp_seconds", check["ended"], repository=name)
        for phase, seconds in one["seconds"].items():
            duration = "berth_restore_check_duration_seconds"
            add(duration, seconds, repository=name, phase=phase)
        if one["ok"]:
            add("berth_restore_check_rows", one["rows"], repository=name)
    lines = []
    for name, (help_text, samples) in families.items():
        if samples:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", *samples]
    return "\n".join(lines) + "\n" if lines else ""


def publish(tools: Tools, stores: Sequence[Store] | None = None) -> None:
    """Write the metrics; they must never be why a backup counts as failed."""
    configuration = tools.configuration
    try:
        text = metrics(
            configuration.stanza,
            tools.stores() if stores is None else stores,
            read_state(configuration, "runs.json"),
            read_state(configuration, "restore-check.json"),
        )
        write(Path(configuration.metrics_file), text)
    except (BackupError, OSError, KeyError) as error:
        say(f"metrics are not written: {error}")


# --- backups ---------------------------------------------------------------------------------


def run_backups(tools: Tools, kind: str, repositories: Sequence[Repository]) -> None:
    """A backup to each repository; one that fails does not keep the others from theirs."""
    configuration = tools.configuration
    failures = []
    with locked(configuration, configuration.lock_seconds):
        for repository in repositories:
            began = time.time()
            words = ""
            try:
                tools.pgbackrest("backup", f"--repo={repository.key}", f"--type={kind}")
            except BackupError as error:
                words = str(error)
                failures.append(f"repository {repository.name}: {words}")
            runs = read_state(configuration, "runs.json")
            runs[f"{repository.name}/{kind}"] = {
                "ok": not words,
                "ended": round(time.time()),
                "seconds": round(time.time() - began, 3),
                "error": words,
            }
            write_state(configuration, "runs.json", runs)
        publish(tools)
    if failures:
        raise BackupError("; ".join(failures))


def check(tools: Tools) -> None:
    """Archiving works for every repository, and every repository holds a recent backup."""
    configuration = tools.configuration
    found = []
    try:
        tools.pgbackrest("check")
    except BackupError as error:
        found.append(str(error))
    stores = tools.stores()
    found += problems(stores, now=time.time(), max_age_hours=configuration.max_age_hours)
    publish(tools, stores)
    if found:
        raise BackupError("; ".join(dict.fromkeys(found)))


def recent(tools: Tools, wait: float) -> str:
    """Every repository holds a recent backup, or its first one is on its way; a sentence."""
    configuration = tools.configuration
    deadline = time.monotonic() + wait
    while True:
        # Asked first: one that ends in between is found in its repository.
        running = full_is_running()
        stores = tools.stores()
        found = problems(stores, now=time.time(), max_age_hours=configuration.max_age_hours)
        if not found:
            return "every repository holds a recent backup"
        if not running:
            runs = read_state(configuration, "runs.json").items()
            found += [f"{name} failed: {run['error']}" for name, run in runs if not run["ok"]]
            raise BackupError("; ".join(dict.fromkeys(found)))
        if time.monotonic() > deadline:
            return f"a full backup runs: {'; '.join(found)}"
        time.sleep(0.2)


def full_is_running() -> bool:
    """Whether a full backup, as every first one is, runs at this moment."""
    argv = ["/usr/bin/systemctl", "show", "-P", "ActiveState", f"{FULL}.service"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "activating"


def status(tools: Tools) -> dict[str, Any]:
    """All that is known, for a status page."""
    configuration = tools.configuration
    now = time.time()
    found: list[str] = []
    stores: list[Store] = []
    try:
        stores = tools.stores()
        found += problems(stores, now=now, max_age_hours=configuration.max_age_hours)
    except BackupError as error:
        found.append(str(error))
    archiver: dict[str, Any] = {}
    try:
        answer = tools.ask(
            "SELECT jsonb_build_object('last_archived', last_archived_wal, 'archived_at', "
            "extract(epoch FROM last_archived_time), 'last_failed', last_failed_wal, 'failed_at', "
            "extract(epoch FROM last_failed_time), 'failing', coalesce(last_failed_time > "
            "last_archived_time, last_failed_time IS NOT NULL)) FROM pg_stat_archiver;",
            timeout=20,
        )
        archiver = json.loads(answer)
        if archiver["failing"]:
            found.append(f"WAL is not archived: {archiver['last_failed']} failed last")
    except (BackupError, subprocess.TimeoutExpired) as error:
        found.append(f"the server does not answer: {error}")
    restore_check = read_state(configuration, "restore-check.json")
    if restore_check and not restore_check["ok"]:
        found.append("the last restore check failed")

    def brief(backup: Backup | None) -> dict[str, Any] | None:
        if backup is None:
            return None
        age = round((now - backup.stop) / 3600, 2)
        return {
            "label": backup.label,
            "completed": backup.stop,
            "age_hours": age,
            "size": backup.size,
        }

    return {
        "stanza": configuration.stanza,
        "ok": not found,
        "problems": found,
        "repositories": [
            {
                "name": store.repository.name,
                "key": store.repository.key,
                "ok": store.code == 0,
                "message": store.message,
                "backups": len(store.backups),
                "latest": brief(store.latest()),
                "full": brief(store.latest("full")),
                "diff": brief(store.latest("diff", "incr")),
                "last_wal": store.last_wal,
            }
            for store in stores
        ],
        "archiver": archiver,
        "runs": read_state(configuration, "runs.json"),
        "restore_check": restore_check,
    }


# --- the stanza ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needs:
    """What has to be done before backups run by themselves."""

    stanza: bool
    backups: tuple[Repository, ...]


def needs(stores: Sequence[Store], system: int) -> Needs:
    """From what the repositories hold; *system* identifies the running cluster."""
    for store in stores:
        name = store.repository.name
        if store.code not in (0, NO_BACKUP, *NO_STANZA):
            raise BackupError(f"repository {name}: {store.message}")
        if store.system and system and store.system != system:
            raise BackupError(
                f"repository {name} holds the backups of another cluster (system identifier "
                f"{store.system}, this one is {system}). To bring that one back, restore it by "
                "playbooks/restore.yml with restore_force=true. After a major upgrade of this one, "
                "run `pgbackrest stanza-upgrade` as postgres. Otherwise choose another stanza"
            )
    return Needs(
        stanza=any(store.code in NO_STANZA for store in stores),
        backups=tuple(store.repository for store in stores if not store.backups),
    )


def make_directory(path: str, user: str) -> None:
    """For that user alone; what is above it can be passed by anyone."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).mkdir(mode=0o750)
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)


def prepare(tools: Tools, *, initial: str, dry_run: bool) -> list[str]:
    """Stanza and first backups, where they are missing; says what was done."""
    actions = []
    for repository in tools.configuration.repositories:
        if repository.path and not Path(repository.path).is_dir():
            actions.append(f"directory {repository.path} is made")
            if not dry_run:
                make_directory(repository.path, tools.configuration.user)
    system = int(tools.ask("SELECT system_identifier FROM pg_control_system();"))
    wanted = needs(tools.stores(), system)
    if wanted.stanza:
        actions.append(f"stanza {tools.configuration.stanza} is made")
        if not dry_run:
            tools.pgbackrest("stanza-create")
    # A backup proves by itself that WAL arrives.
    proven = initial != "none" and len(wanted.backups) == len(tools.configuration.repositories)
    if (wanted.stanza or wanted.backups) and not (dry_run or proven):
        tools.pgbackrest("check")
    if initial == "background" and wanted.backups and full_is_running():
        return actions
    if wanted.backups and initial != "none":
        names = [one.name for one in wanted.backups]
        actions.append(f"first full backup goes to {', '.join(names)}")
        if not dry_run and initial == "wait":
            # In a process of its own, which becomes the server's user for good.
            chosen = [f"--repository={name}" for name in names]
            argv = [sys.executable, __file__, "run", "--type=full", *chosen]
            done = subprocess.run(
                argv, stderr=subprocess.PIPE, text=True, errors="replace", check=False
            )
            say(done.stderr.rstrip())
            if done.returncode:
                raise BackupError(done.stderr.strip().splitlines()[-1])
        elif not dry_run:
            tools.systemctl("start", "--no-block", f"{FULL}.service")
    return actions


# --- restore ---------------------------------------------------------------------------------


def unarchived(data_directory: str) -> list[str]:
    """Segments of WAL that are nowhere but in the data directory."""
    ready = Path(data_directory, "pg_wal", "archive_status").glob("*.ready")
    return sorted(path.stem for path in ready)


def recent_logs(since: float) -> str:
    """The ends of the server's logs that were written since."""
    words = []
    for path in sorted(Path("/var/log/postgresql").glob("*.log")):
        if path.stat().st_mtime >= since - 1:
            words.append(last_words(path.read_text(encoding="utf-8", errors="replace"), 8))
    return " / ".join(words) or "it says nothing"


def _is_active(configuration: Configuration) -> bool:
    done = subprocess.run(
        ["/usr/bin/systemctl", "is-active", "-q", configuration.unit], check=False
    )
    return done.returncode == 0


def _recover(tools: Tools, began: float, wait: float) -> None:
    """Start the restored server and wait until it has replayed its WAL."""
    unit = tools.configuration.unit
    with contextlib.suppress(BackupError):
        tools.systemctl("start", unit)
    while True:
        with contextlib.suppress(BackupError):
            if tools.ask("SELECT pg_is_in_recovery();") == "f":
                return
        if not _is_active(tools.configuration):
            words = recent_logs(began)
            if "before configured recovery target was reached" in words:
                words += ". The archive ends before that moment: take 'latest' or an earlier one"
            raise BackupError(f"the restored server ended: {words}")
        if time.time() - began > wait:
            raise BackupError(
                f"the restored server still replays WAL after {wait:g} s and goes on: "
                f"see systemctl status {unit}"
            )
        time.sleep(0.2)


FAILING = """\
SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
FROM pg_stat_archiver;
"""


def system_identifier(configuration: Configuration) -> int:
    """What tells the cluster on disk from all others; 0 if there is none."""
    done = subprocess.run(
        [f"{configuration.binaries}/pg_controldata", configuration.data_directory],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    found = re.search(r"^Database system identifier:\s+(\d+)$", done.stdout, re.MULTILINE)
    return int(found[1]) if found else 0


def refuse_loss(waiting: Sequence[str]) -> None:
    """No restore over WAL that no repository has."""
    if waiting:
        raise BackupError(
            f"{len(waiting)} segments of WAL, {waiting[0]} the first, are not archived and would "
            "be lost; mend the archiving, or restore with force if they do not matter. "
            "Nothing was changed"
        )


def restore(tools: Tools, plan: Plan, *, force: bool, wait: float) -> dict[str, Any]:
    """Put the cluster back to a moment. Runs as root; the server is stopped and started here."""
    configuration = tools.configuration
    began = time.time()
    was_active = _is_active(configuration)
    system = system_identifier(configuration)
    if system not in (0, plan.system) and not force:
        raise BackupError(
            f"the cluster of this host (system identifier {system}) is not the one of the backups "
            f"({plan.system}), and none of them holds its data; restore with force if it may be "
            "overwritten. Nothing was changed"
        )
    if was_active and not force:
        # Before anything is stopped, since stopping takes long while archiving fails. A server that
        # does not even answer is judged when it is stopped.
        failing = False
        with contextlib.suppress(BackupError):
            failing = tools.ask(FAILING) == "t"
        if failing:
            refuse_loss(unarchived(configuration.data_directory))
    tools.systemctl("stop", configuration.unit)
    waiting = unarchived(configuration.data_directory)
    if waiting and not force:
        if was_active:
            tools.systemctl("start", configuration.unit)
        refuse_loss(waiting)
    if not Path(configuration.data_directory).is_dir():
        make_directory(configuration.data_directory, configuration.user)
    say("restoring: " + ", ".join(plan.lines()))
    tools.pgbackrest("restore", "--delta", *plan.options())
    restored = time.time()
    _recover(tools, restored, wait)
    facts: dict[str, Any] = json.loads(
        tools.ask(
            "SELECT jsonb_build_object("
            "'last_transaction', to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', "
            "'YYYY-MM-DD HH24:MI:SS.US\" UTC\"'), 'lsn', pg_last_wal_replay_lsn()::text, "
            "'timeline', (SELECT timeline_id FROM pg_control_checkpoint()), "
            "'databases', (SELECT jsonb_object_agg(datname, pg_database_size(oid)) "
            "FROM pg_database WHERE datallowconn AND NOT datistemplate));"
        )
    )
    ended = time.time()
    return {
        **facts,
        "repository": plan.repository.name,
        "backup": plan.backup.label,
        "target": "latest" if plan.moment is None else plan.moment.isoformat(),
        "seconds": {
            "restore": round(restored - began, 3),
            "recovery": round(ended - restored, 3),
            "total": round(ended - began, 3),
        },
    }


# --- restore check ---------------------------------------------------------------------------

LIVE_QUESTION = """\
SELECT jsonb_build_object('name', current_database(), 'tables',
  (SELECT coalesce(jsonb_agg(format('%I.%I', nspname, relname)), '[]')
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE relkind = 'r' AND relpersistence = 'p' AND nspname !~ '^pg_'
   AND nspname <> 'information_schema'));
"""
COUNT_SCRIPT = """\
SELECT format('SELECT %L, count(*) FROM %s;', name, name) FROM (
  SELECT format('%I.%I', nspname, relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE relkind = 'r' AND relpersistence = 'p' AND nspname !~ '^pg_'
  AND nspname <> 'information_schema') t ORDER BY name
\\gexec
"""
DATABASES = (
    "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname;"
)


@dataclass
class Baseline:
    """What the live cluster had at a marked place of its WAL."""

    name: str
    lsn: str
    tables: dict[str, set[str]] = field(default_factory=dict)
    libraries: str = ""


def mark(tools: Tools, wait: float = 180) -> Baseline:
    """Mark a place in the live cluster's WAL and wait until the archive holds it."""
    tables = {}
    for database in tools.ask(DATABASES).splitlines():
        raw = json.loads(tools.ask(LIVE_QUESTION, database))
        tables[database] = set(raw["tables"])
    name = f"berth_check_{time.time_ns()}"
    lsn, segment = tools.ask(
        f"SELECT lsn, pg_walfile_name(lsn) FROM pg_create_restore_point('{name}') lsn;"
    ).split("|")
    tools.ask("SELECT pg_switch_wal();")
    libraries = tools.ask("SHOW shared_preload_libraries;")
    done = Path(tools.configuration.data_directory, "pg_wal", "archive_status", f"{segment}.done")
    deadline = time.monotonic() + wait
    sql = f"SELECT coalesce(last_archived_wal >= '{segment}', false) FROM pg_stat_archiver;"
    while not done.exists() and tools.ask(sql) != "t":
        if time.monotonic() > deadline:
            raise BackupError(f"WAL {segment} was not archived within {wait:g} s")
        time.sleep(0.2)
    return Baseline(name, lsn, tables, libraries)


_CONTROL = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}


def control_settings(listing: str) -> dict[str, str]:
    """The settings that a copy has to share with its original, from pg_controldata."""
    values = dict(
        (key.strip(), value.strip())
        for key, _colon, value in (line.partition(":") for line in listing.splitlines())
    )
    return {name: values[key] for name, key in _CONTROL.items() if key in values}


def scratch_settings(scratch: Path, control: Mapping[str, str], libraries: str) -> dict[str, str]:
    """A server that nobody but us can reach and that archives nothing."""
    return {
        **control,
        "listen_addresses": "",
        "unix_socket_directories": str(scratch / "run"),
        "unix_socket_permissions": "0700",
        "hba_file": str(scratch / "pg_hba.conf"),
        "ident_file": str(scratch / "pg_ident.conf"),
        "archive_mode": "off",
        "primary_conninfo": "",
        "hot_standby": "off",
        "shared_buffers": "128MB",
        "shared_preload_libraries": libraries,
        "autovacuum": "off",
        "fsync": "off",
        "full_page_writes": "off",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_messages": "warning",
        "cluster_name": "restore-check",
    }


def parse_counts(listing: str) -> dict[str, int]:
    """Lines of "table|rows"; the name may hold a bar, the number may not."""
    counts = {}
    for line in listing.splitlines():
        table, found, rows = line.rpartition("|")
        if found:
            counts[table] = int(rows)
    return counts


@dataclass
class Verdict:
    """How the trial restore of one repository went."""

    repository: str
    backup: str = ""
    ok: bool = False
    error: str = ""
    rows: int = 0
    tables: int = 0
    databases: dict[str, dict[str, int]] = field(default_factory=dict)
    target_lsn: str = ""
    reached_lsn: str = ""
    last_transaction: str = ""
    queries: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Trial:
    """Restores one repository's latest backup into a scratch directory and looks at it."""

    def __init__(self, tools: Tools, repository: Repository, baseline: Baseline | None) -> None:
        self.tools = tools
        self.configuration = tools.configuration
        self.repository = repository
        self.baseline = baseline
        self.scratch = Path(self.configuration.check_directory) / str(repository.key)
        self.server: subprocess.Popen[bytes] | None = None
        self.verdict = Verdict(repository.name)
        self.deadline = time.monotonic() + self.configuration.check_seconds

    def run(self) -> Verdict:
        """The whole trial; whatever happens, nothing is left behind."""
        began = time.monotonic()
        try:
            self.remove()
            self.restore()
            self.start()
            self.look()
            self.verdict.ok = True
        except (BackupError, OSError, subprocess.SubprocessError, ValueError) as error:
            self.verdict.error = str(error)
        finally:
            self.stop()
            self.remove()
        self.verdict.seconds["total"] = round(time.monotonic() - began, 3)
        return self.verdict

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.verdict.seconds[phase] = round(time.monotonic() - began, 3)

    def remove(self) -> None:
        if self.scratch.exists():
            shutil.rmtree(self.scratch)

    def restore(self) -> None:
        store = next(
            one for one in self.tools.stores() if one.repository.key == self.repository.key
        )
        backup = store.latest()
        if store.code or backup is None:
            raise BackupError(store.message if store.code else "there is no backup")
        self.verdict.backup = backup.label
        for name in ("data", "run", "tablespaces", "lock", "spool"):
            (self.scratch / name).mkdir(parents=True, mode=0o700)
        free = shutil.disk_usage(self.scratch).free
        needed = int(backup.size * 1.1) + 512 * MIB
        if free < needed:
            raise BackupError(
                f"{self.scratch} has {free / MIB:.0f} MiB free, {needed / MIB:.0f} MiB are needed"
            )
        options = [
            f"--repo={self.repository.key}",
            f"--set={backup.label}",
            f"--pg1-path={self.scratch / 'data'}",
            f"--tablespace-map-all={self.scratch / 'tablespaces'}",
            f"--lock-path={self.scratch / 'lock'}",
            f"--spool-path={self.scratch / 'spool'}",
            "--archive-mode=off",
            "--log-level-file=off",
        ]
        if self.baseline:
            options += ["--type=name", f"--target={self.baseline.name}", "--target-action=promote"]
        with self.timed("restore"):
            self.tools.pgbackrest("restore", *options)

    def start(self) -> None:
        data = str(self.scratch / "data")
        (self.scratch / "pg_hba.conf").write_text(f"local all {self.configuration.user} peer\n")
        (self.scratch / "pg_ident.conf").write_text("")
        listing = subprocess.run(
            [f"{self.configuration.binaries}/pg_controldata", data],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            check=True,
        ).stdout
        libraries = self.baseline.libraries if self.baseline else ""
        settings = scratch_settings(self.scratch, control_settings(listing), libraries)
        # On the command line they win over whatever came with the copy (postgresql.auto.conf).
        argv = [f"{self.configuration.binaries}/postgres", "-D", data]
        argv += ["-p", str(self.configuration.port), "-c", f"config_file={self.scratch}/empty.conf"]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        (self.scratch / "empty.conf").write_text("")
        with self.timed("recovery"), (self.scratch / "log").open("wb") as log:
            self.server = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=ENVIRONMENT
            )
            self.wait()

    def ask(self, sql: str, database: str = "postgres") -> str:
        remaining = max(1.0, self.deadline - time.monotonic())
        directory = str(self.scratch / "run")
        return self.tools.ask(sql, database, directory=directory, timeout=remaining)

    def wait(self) -> None:
        assert self.server is not None
        while True:
            with contextlib.suppress(BackupError):
                if self.ask("SELECT pg_is_in_recovery();") == "f":
                    return
            if self.server.poll() is not None:
                log = (self.scratch / "log").read_text(encoding="utf-8", errors="replace")
                raise BackupError(f"the restored server ended: {last_words(log)}")
            if time.monotonic() > self.deadline:
                raise BackupError("the restored server still replays WAL; out of time")
            time.sleep(0.2)

    def look(self) -> None:
        verdict = self.verdict
        place = self.ask(
            "SELECT pg_last_wal_replay_lsn(), "
            "to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', "
            "'YYYY-MM-DD HH24:MI:SS\" UTC\"');"
        )
        verdict.reached_lsn, _bar, verdict.last_transaction = place.partition("|")
        if self.baseline:
            verdict.target_lsn = self.baseline.lsn
            if not verdict.reached_lsn or (
                lsn_number(verdict.reached_lsn) < lsn_number(self.baseline.lsn)
            ):
                raise BackupError(
                    f"WAL was replayed to {verdict.reached_lsn or 'nowhere'}, "
                    f"not to {self.baseline.lsn}"
                )
        with self.timed("count"):
            for database in self.ask(DATABASES).splitlines():
                verdict.databases[database] = parse_counts(self.ask(COUNT_SCRIPT, database))
        verdict.tables = sum(len(counts) for counts in verdict.databases.values())
        verdict.rows = sum(sum(counts.values()) for counts in verdict.databases.values())
        missing = lost(self.baseline.tables if self.baseline else {}, verdict.databases)
        if missing:
            raise BackupError("the restored copy lacks " + ", ".join(missing))
        for query in self.configuration.check_queries:
            value = float(self.ask(query.query, query.database) or "nan")
            ok = value >= query.minimum
            verdict.queries.append({**asdict(query), "value": value, "ok": ok})
            if not ok:
                raise BackupError(
                    f"{query.query!r} in {query.database} gives {value:g}, "
                    f"not at least {query.minimum:g}"
                )

    def stop(self) -> None:
        if self.server is None or self.server.poll() is not None:
            return
        self.server.send_signal(signal.SIGINT)
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.send_signal(signal.SIGQUIT)
            self.server.wait(30)


def lost(live: Mapping[str, set[str]], copy: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Databases and tables that the live cluster has and the copy has not."""
    found = []
    for database, tables in sorted(live.items()):
        if database not in copy:
            found.append(f"database {database}")
            continue
        found += [f"table {database}.{table}" for table in sorted(tables - set(copy[database]))]
    return found


def restore_check(tools: Tools) -> None:
    """A trial restore from each repository, written down as JSON and metrics."""
    configuration = tools.configuration
    keys = configuration.check_repositories
    chosen = [one for one in configuration.repositories if not keys or one.key in keys]
    with locked(configuration, configuration.lock_seconds):
        began = time.time()
        baseline = None
        error = ""
        try:
            if tools.ask("SELECT pg_is_in_recovery();") == "f":
                baseline = mark(tools)
        except BackupError as problem:
            # A live server that is down must not keep us from learning whether backups are good.
            error = f"the live server: {problem}"
            say(error)
        verdicts = [Trial(tools, repository, baseline).run() for repository in chosen]
        report = {
            "ok": not error and all(verdict.ok for verdict in verdicts),
            "began": round(began),
            "ended": round(time.time()),
            "seconds": round(time.time() - began, 3),
            "error": error,
            "repositories": [asdict(verdict) for verdict in verdicts],
        }
        write_state(configuration, "restore-check.json", report)
        publish(tools)
    for verdict in verdicts:
        say(
            f"repository {verdict.repository}: "
            + (
                f"backup {verdict.backup} is good: {verdict.rows} rows in {verdict.tables} tables, "
                f"restored in {verdict.seconds['total']:.1f} s"
                if verdict.ok
                else verdict.error
            )
        )
    if not report["ok"]:
        words = [f"repository {one.repository}: {one.error}" for one in verdicts if not one.ok]
        raise BackupError("; ".join([error, *words] if error else words))


def clean(configuration: Configuration) -> None:
    """Remove what a restore check that was killed left behind; its server died with its unit."""
    directory = Path(configuration.check_directory)
    if directory.exists():
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


# --- the command -----------------------------------------------------------------------------


def timeline(text: str) -> int:
    """A timeline's number; none is 0."""
    return int(text or "0")


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    command = argparse.ArgumentParser(prog="berth-backup", description=__doc__)
    command.add_argument("--configuration", type=Path, default=CONFIGURATION)
    verbs = command.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="back up to every repository")
    run.add_argument("--type", choices=["full", "diff", "incr"], default="diff")
    run.add_argument("--repository", action="append", default=[])
    verbs.add_parser("check", help="fail unless archiving works and backups are recent")
    lately = verbs.add_parser(
        "recent", help="fail unless every repository holds a recent backup, or gets its first one"
    )
    lately.add_argument("--wait", type=float, default=60, help="seconds for a full one that runs")
    verbs.add_parser("status", help="all that is known, as JSON")
    first = verbs.add_parser("prepare", help="stanza and first backups, as JSON")
    first.add_argument("--initial", choices=["wait", "background", "none"], default="wait")
    first.add_argument("--dry-run", action="store_true")
    back = verbs.add_parser("restore", help="put the cluster back to a moment")
    back.add_argument("--time", required=True, help="a moment with its time zone, or 'latest'")
    back.add_argument("--repository", default="")
    back.add_argument("--timeline", type=timeline, default=0, help="after a restore: a number")
    back.add_argument("--force", action="store_true", help="even if WAL would be lost")
    back.add_argument("--wait", type=float, default=86400, help="seconds for replaying WAL")
    back.add_argument("--dry-run", action="store_true")
    back.add_argument("--confirm", default="", help="this host's name")
    verbs.add_parser("restore-check", help="restore into a scratch directory and look at it")
    verbs.add_parser("clean", help="remove what a killed restore check left")
    return command


def _restore(tools: Tools, options: argparse.Namespace) -> dict[str, Any]:
    wanted = tools.configuration.repository(options.repository) if options.repository else None
    moment = parse_moment(options.time, now=datetime.now(timezone.utc) + timedelta(seconds=1))
    plan = plan_restore(tools.stores(), moment, wanted, options.timeline, tools.history)
    if options.dry_run:
        return {"plan": plan.lines(), "unit": tools.configuration.unit}
    if options.confirm != os.uname().nodename:
        raise BackupError(
            f"this overwrites the cluster of {os.uname().nodename}: "
            f"confirm it with --confirm={os.uname().nodename}"
        )
    if os.geteuid() != 0:
        raise BackupError("a restore stops and starts the server: run it as root")
    with locked(tools.configuration, 10):
        return restore(tools, plan, force=options.force, wait=options.wait)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; 1 and a sentence if it cannot be."""
    options = parser().parse_args(arguments)
    # Stopped by systemd, we still clean up behind us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        raw = json.loads(options.configuration.read_text(encoding="utf-8"))
        tools = Tools(parse_configuration(raw))
        if not (options.verb == "restore" or options.verb == "prepare"):
            become(tools.configuration.user)
        result: Any = None
        if options.verb == "run":
            wanted = [tools.configuration.repository(one) for one in options.repository]
            run_backups(tools, options.type, wanted or tools.configuration.repositories)
        elif options.verb == "check":
            check(tools)
        elif options.verb == "recent":
            print(recent(tools, options.wait))
        elif options.verb == "status":
            result = status(tools)
        elif options.verb == "prepare":
            result = {"actions": prepare(tools, initial=options.initial, dry_run=options.dry_run)}
        elif options.verb == "restore":
            result = _restore(tools, options)
        elif options.verb == "restore-check":
            restore_check(tools)
        else:
            clean(tools.configuration)
    except (BackupError, OSError, ValueError) as error:
        say(f"berth-backup {options.verb}: {error}")
        return 1
    if result is not None:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
