# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a host's directories: taken, watched, restored, and proven by restoring them.

A layer over restic for what has to happen on the host itself, without a controller: snapshots to
every repository, a check that reads the repositories, a restore of a moment, and a trial restore
into a scratch directory. Installed by the role berth.platform.file_backup.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

CONFIGURATION = Path("/etc/berth/file-backup.json")
RESTIC = "/usr/bin/restic"
# In a namespace of processes of its own.
ALONE = ("/usr/bin/unshare", "--pid", "--fork", "--kill-child")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# What tells our snapshots from those that somebody takes by hand.
TAG = "berth"
# States of a repository.
OK = 0
MISSING = 1
OTHER = 99
# restic's exit statuses, and the words of those versions that knew only 1 (before 0.17).
UNREADABLE = 3
NO_REPOSITORY = 10
LOCKED = 11
WRONG_PASSWORD = 12
_NO_REPOSITORY = re.compile(
    r"unable to open config file: .*"
    r"(no such file or directory|key does not exist|NoSuchKey|NoSuchBucket|bucket does not exist)"
)
_LOCKED = "repository is already locked"
_WRONG_PASSWORD = "wrong password or no key found"
# A lock that nobody renews is stale after 30 minutes; so long it may be in the way.
PATIENCE = 2400.0
# The unit that takes snapshots.
UNIT = "berth-file-backup.service"
# What restic brings back; a socket is made by who listens on it.
RESTORED = ("file", "dir", "symlink", "fifo", "dev", "chardev")
# Mounts that hold no files of anybody.
PSEUDO = {
    *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts"),
    *("devtmpfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs"),
    *("rpc_pipefs", "securityfs", "sysfs", "tmpfs", "tracefs"),
}
# Before this version, restic removes a second name of a file that exists and does not make it
# anew, and gives up at links and pipes that exist.
OVERWRITES = (0, 17)
# How what we make for a while is called.
SCRATCH = ".berth-"
# Differences that are told one by one.
SHOWN = 5
MIB = 1024 * 1024


class BackupError(RuntimeError):
    """Something is wrong with the backups, in words for who has to mend it."""


class RepositoryMissingError(BackupError):
    """There is no repository yet."""


class RepositoryLockedError(BackupError):
    """Another process of restic, or what a killed one left, is in the way."""


# --- what is configured ----------------------------------------------------------------------


@dataclass(frozen=True)
class Repository:
    """A repository: where it is, how it is spoken to, and how long it keeps what it holds."""

    name: str
    url: str
    password_file: str
    # Global options of restic.
    options: tuple[str, ...] = ()
    # A file with access_key and secret_key; empty for a directory of this host.
    keys_file: str = ""
    # Options of `restic forget`.
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """What /etc/berth/file-backup.json says."""

    name: str
    repositories: tuple[Repository, ...]
    paths: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    one_file_system: bool = True
    command: tuple[str, ...] = ()
    state_directory: str = "/var/lib/berth/file-backup"
    cache_directory: str = "/var/cache/berth-file-backup"
    metrics_file: str = "/var/lib/berth/file-backup/file-backup.prom"
    max_age_hours: float = 30
    lock_seconds: float = 7200
    # That a repository may take to say what it holds.
    answer_seconds: float = 30
    check_parts: int = 30
    check_directory: str = "/var/lib/berth/file-backup/restore-check"
    check_repositories: tuple[str, ...] = ()
    check_seconds: float = 21600

    def repository(self, wanted: str) -> Repository:
        """A repository by its name."""
        for one in self.repositories:
            if wanted == one.name:
                return one
        known = ", ".join(one.name for one in self.repositories)
        raise BackupError(f"there is no repository {wanted}; there are {known}")


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in raw.items()}


def parse_configuration(raw: Mapping[str, Any]) -> Configuration:
    """The file's content in its form."""
    repositories = tuple(Repository(**_frozen(one)) for one in raw["repositories"])
    return Configuration(**{**_frozen(raw), "repositories": repositories})


# --- what restic knows -----------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a repository; its time, in seconds since the epoch, is that of its start."""

    id: str
    taken: float
    paths: tuple[str, ...]

    @property
    def label(self) -> str:
        """As people name it."""
        return self.id[:8]

    def holds(self, path: str) -> bool:
        """Whether a path is part of it, or above what is."""
        return any(inside(path, one) or inside(one, path) for one in self.paths)


@dataclass(frozen=True)
class Store:
    """A repository as restic sees it."""

    repository: Repository
    code: int
    message: str = ""
    snapshots: tuple[Snapshot, ...] = ()

    def latest(self, paths: Iterable[str] = ()) -> Snapshot | None:
        """The latest snapshot, of those that hold all of these paths."""
        fitting = [one for one in self.snapshots if set(paths) <= set(one.paths)]
        return max(fitting, key=lambda one: one.taken, default=None)


def inside(path: str, directory: str) -> bool:
    """Whether a path is a directory or in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


_TIME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$")


def parse_time(text: str) -> float:
    """A time of restic's, which has nanoseconds, in seconds since the epoch."""
    found = _TIME.match(text)
    if not found:
        raise ValueError(f"{text!r} is no time")
    whole, fraction, zone = found.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    return moment.timestamp() + float(f"0.{fraction or 0}")


def parse_snapshots(text: str) -> tuple[Snapshot, ...]:
    """What `restic snapshots --json` says, the latest last."""
    found = [
        Snapshot(one["id"], parse_time(one["time"]), tuple(one["paths"]))
        for one in json.loads(text or "[]") or []
    ]
    return tuple(sorted(found, key=lambda one: one.taken))


@dataclass(frozen=True)
class Node:
    """A file, directory or other thing in a snapshot."""

    path: str
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    modified: int


# Bits that Go keeps elsewhere than the rest of the world.
_GO_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))


def parse_node(line: str) -> Node | None:
    """A line of `restic ls --json`; the first one is about the snapshot itself."""
    raw = json.loads(line)
    if raw.get("struct_type") != "node":
        return None
    mode = raw["mode"] & 0o777
    for theirs, ours in _GO_BITS:
        if raw["mode"] & theirs:
            mode |= ours
    modified = int(parse_time(raw["mtime"]))
    return Node(
        raw["path"], raw["type"], raw.get("size", 0), mode, raw["uid"], raw["gid"], modified
    )


def said(text: str) -> list[str]:
    """What restic complained of, in sentences: newer versions write them as JSON."""
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            raw = json.loads(line)
            if isinstance(raw, dict):
                if raw.get("message_type") == "exit_error":
                    lines += str(raw.get("message", "")).splitlines()
                continue
        if line.strip():
            lines.append(line.strip())
    # How it began and how it ended; hints come after that.
    fatal = [number for number, one in enumerate(lines, 1) if one.startswith("Fatal:")]
    lines = lines[: fatal[-1] if fatal else None]
    return lines if len(lines) <= 4 else lines[:2] + lines[-2:]


def unread(text: str) -> list[str]:
    """Files that could not be read, from what `restic backup --json` complained of.

    One that was deleted while it was looked for is none of them: it would not be there a moment
    later either.
    """
    found = []
    for line in text.splitlines():
        try:
            raw = json.loads(line)
            if raw["message_type"] != "error":
                continue
            error, item = raw["error"], raw.get("item", "")
        except (ValueError, KeyError, TypeError):
            continue
        code = error.get("Err")
        words = error.get("message") or (os.strerror(code) if isinstance(code, int) else str(error))
        # Go writes the system's words small.
        missing = os.strerror(errno.ENOENT).lower()
        gone = words.lower().endswith(missing) or not os.path.lexists(item)
        if not gone:
            found.append(f"{item}: {words}")
    return list(dict.fromkeys(found))


def problems(
    stores: Iterable[Store],
    runs: Mapping[str, Any],
    *,
    paths: Sequence[str],
    now: float,
    max_age_hours: float,
) -> list[str]:
    """What is wrong with the backups, in lines."""
    found = []
    for store in stores:
        name = f"repository {store.repository.name}"
        run = runs.get(store.repository.name, {})
        if not run.get("ok", True):
            found.append(f"{name}: the last backup failed: {run['error']}")
        if store.code:
            found.append(f"{name}: {store.message}")
            continue
        newest = store.latest()
        whole = store.latest(paths)
        if newest is None:
            found.append(f"{name} holds no snapshot")
        elif whole is None:
            lacking = ", ".join(path for path in paths if path not in newest.paths)
            found.append(f"{name}: the latest snapshot {newest.label} lacks {lacking}")
        elif (now - whole.taken) / 3600 > max_age_hours:
            found.append(
                f"{name}: the latest snapshot {whole.label} is "
                f"{(now - whole.taken) / 3600:.1f} hours old, more than {max_age_hours:g}"
            )
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


def choose(
    stores: Iterable[Store],
    moment: datetime | None,
    wanted: str,
    repository: Repository | None,
    paths: Sequence[str],
) -> tuple[Repository, Snapshot]:
    """The latest snapshot of the moment, or the wanted one, in the first repository that has it."""
    reasons = []
    for store in stores:
        if repository and store.repository != repository:
            continue
        name = store.repository.name
        if store.code:
            reasons.append(f"repository {name}: {store.message}")
            continue
        usable = [one for one in store.snapshots if all(one.holds(path) for path in paths)]
        fitting = [
            one
            for one in usable
            if (moment is None or one.taken <= moment.timestamp()) and one.id.startswith(wanted)
        ]
        if fitting:
            return store.repository, fitting[-1]
        if not store.snapshots:
            reasons.append(f"repository {name} holds no snapshot")
        elif not usable:
            reasons.append(f"repository {name} holds no snapshot with {', '.join(paths)}")
        elif wanted:
            reasons.append(f"repository {name} holds no snapshot {wanted} that fits")
        else:
            reasons.append(f"repository {name} reaches back to {stamp(usable[0].taken)} only")
    raise BackupError("nothing to restore from: " + "; ".join(reasons))


# --- running things --------------------------------------------------------------------------


def say(text: str) -> None:
    """A line for whoever watches; the journal, mostly."""
    print(text, file=sys.stderr, flush=True)


def last_words(text: str, lines: int = 6) -> str:
    """The end of what a program said."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Tools:
    """restic, for this configuration."""

    configuration: Configuration

    def environment(self, repository: Repository) -> dict[str, str]:
        """What restic needs to know; root alone can read it in /proc."""
        found = {
            **ENVIRONMENT,
            "RESTIC_REPOSITORY": repository.url,
            "RESTIC_PASSWORD_FILE": repository.password_file,
            "RESTIC_CACHE_DIR": self.configuration.cache_directory,
        }
        if repository.keys_file:
            keys = json.loads(Path(repository.keys_file).read_text(encoding="utf-8"))
            found["AWS_ACCESS_KEY_ID"] = keys["access_key"]
            found["AWS_SECRET_ACCESS_KEY"] = keys["secret_key"]
        return found

    def once(
        self,
        repository: Repository,
        command: str,
        *options: str,
        accepted: Sequence[int] = (0,),
        timeout: float | None = None,
        output: IO[str] | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of restic; what it answers is returned or goes to the output."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*prefix, RESTIC, *repository.options, command, *options],
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
            env=self.environment(repository),
            check=False,
            timeout=timeout,
        )
        if done.returncode in accepted:
            return done
        words = " / ".join(said(done.stderr)) or f"it ended with {done.returncode} and no word"
        if done.returncode == NO_REPOSITORY or _NO_REPOSITORY.search(done.stderr):
            raise RepositoryMissingError(f"there is no repository at {repository.url}")
        if done.returncode == LOCKED or _LOCKED in done.stderr:
            raise RepositoryLockedError(f"restic {command}: {words}")
        if done.returncode == WRONG_PASSWORD or _WRONG_PASSWORD in done.stderr:
            raise BackupError("the password is not the one that this repository was made with")
        if not timeout:
            say(done.stderr.rstrip())
        raise BackupError(f"restic {command}: {words}")

    def restic(
        self, repository: Repository, command: str, *options: str, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """The same, with patience for a repository that is locked."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.0
        while True:
            try:
                return self.once(repository, command, *options, **more)
            except RepositoryLockedError as error:
                if time.monotonic() > deadline:
                    raise
                if not pause:
                    say(f"repository {repository.name}: {error}")
            time.sleep(pause)
            self.unlock(repository)
            pause = 5

    def unlock(self, repository: Repository) -> None:
        """Remove the locks of those who are gone, and of nobody who is at work.

        restic takes a lock for stale that nobody renewed for half an hour, or whose process on this
        host does not answer a SIGHUP. That number may be another process's by now, which would be
        hung up: so restic looks from a namespace without others, and only if none of it runs here.
        """
        if not restic_runs():
            self.once(repository, "unlock", "--quiet", prefix=ALONE)

    def version(self) -> tuple[int, ...]:
        """The version of restic."""
        words = subprocess.run([RESTIC, "version"], capture_output=True, text=True, check=True)
        found = re.search(r"(\d+)\.(\d+)", words.stdout)
        return (int(found[1]), int(found[2])) if found else OVERWRITES

    def store(self, repository: Repository) -> Store:
        """What a repository holds; one that does not answer holds up nobody for long."""
        seconds = self.configuration.answer_seconds
        chosen = ("--host", self.configuration.name, "--tag", TAG)
        try:
            answer = self.once(
                repository, "snapshots", "--json", "--no-lock", *chosen, timeout=seconds
            )
            return Store(repository, OK, "", parse_snapshots(answer.stdout))
        except subprocess.TimeoutExpired:
            return Store(repository, OTHER, f"no answer within {seconds:g} s")
        except RepositoryMissingError as error:
            return Store(repository, MISSING, str(error))
        except (BackupError, OSError, ValueError) as error:
            return Store(repository, OTHER, str(error))

    def stores(self, repositories: Sequence[Repository] = ()) -> list[Store]:
        """What the repositories hold, asked all at once."""
        repositories = repositories or self.configuration.repositories
        with ThreadPoolExecutor(max_workers=min(8, len(repositories))) as pool:
            return list(pool.map(self.store, repositories))

    @contextlib.contextmanager
    def listing(
        self, repository: Repository, snapshot: Snapshot, paths: Sequence[str] = ()
    ) -> Iterator[Callable[[], Iterator[Node]]]:
        """What a snapshot holds, of these paths if some are given; to be gone through repeatedly.

        It may be long, so it lies in a file without a name meanwhile.
        """
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
            self.restic(repository, "ls", "--json", "--no-lock", snapshot.id, output=file)

            def nodes() -> Iterator[Node]:
                file.seek(0)
                for line in file:
                    node = parse_node(line)
                    if node and (not paths or any(inside(node.path, path) for path in paths)):
                        yield node

            yield nodes


def restic_runs() -> bool:
    """Whether there is a process of restic on this host."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8", errors="replace").strip() == "restic":
                return True
    return False


@contextlib.contextmanager
def locked(configuration: Configuration, seconds: float) -> Iterator[None]:
    """One at a time: timers that were missed start together after a boot."""
    path = Path(configuration.state_directory) / "lock"
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
                        f"another backup or check still runs after {seconds:g} s"
                    ) from None
            time.sleep(0.5)
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

    inner = ",".join(f'{key}="{quoted(str(text))}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value:g}" if value < 1e6 else f"{name}{{{inner}}} {value:.0f}"


def metrics(
    paths: Sequence[str],
    stores: Iterable[Store],
    runs: Mapping[str, Any],
    checks: Mapping[str, Any],
    trial: Mapping[str, Any],
) -> str:
    """In Prometheus's text format, for a textfile collector."""
    families: dict[str, tuple[str, list[str]]] = {
        "berth_file_backup_repository_ok": ("1 if the repository is usable.", []),
        "berth_file_backup_snapshots": ("Snapshots that the repository holds.", []),
        "berth_file_backup_taken_timestamp_seconds": (
            "When the latest snapshot of all paths was taken.",
            [],
        ),
        "berth_file_backup_run_ok": ("1 if the last attempt succeeded.", []),
        "berth_file_backup_run_timestamp_seconds": ("When the last attempt ended.", []),
        "berth_file_backup_run_duration_seconds": ("How long the last attempt took.", []),
        "berth_file_backup_files": ("Files in the last snapshot.", []),
        "berth_file_backup_size_bytes": ("Size of the files in the last snapshot.", []),
        "berth_file_backup_added_bytes": ("What the last snapshot added.", []),
        "berth_file_backup_check_ok": ("1 if the last check of the repository succeeded.", []),
        "berth_file_backup_check_timestamp_seconds": ("When the last check ended.", []),
        "berth_file_backup_check_duration_seconds": ("How long the last check took.", []),
        "berth_file_restore_check_ok": ("1 if the last restore check succeeded.", []),
        "berth_file_restore_check_timestamp_seconds": ("When the last restore check ended.", []),
        "berth_file_restore_check_duration_seconds": ("How long each phase of it took.", []),
        "berth_file_restore_check_files": ("Files that it restored.", []),
        "berth_file_restore_check_bytes": ("Size of the files that it restored.", []),
    }

    def add(name: str, value: float, **labels: Any) -> None:
        families[name][1].append(_sample(name, labels, value))

    for store in stores:
        name = store.repository.name
        add("berth_file_backup_repository_ok", float(store.code == OK), repository=name)
        if store.code == OK:
            add("berth_file_backup_snapshots", len(store.snapshots), repository=name)
        latest = store.latest(paths)
        if latest:
            add("berth_file_backup_taken_timestamp_seconds", latest.taken, repository=name)
    for job, states in (("berth_file_backup_run", runs), ("berth_file_backup_check", checks)):
        for name, state in sorted(states.items()):
            add(f"{job}_ok", float(state["ok"]), repository=name)
            add(f"{job}_timestamp_seconds", state["ended"], repository=name)
            add(f"{job}_duration_seconds", state["seconds"], repository=name)
    for name, run in sorted(runs.items()):
        for figure, key in (("files", "files"), ("size_bytes", "bytes"), ("added_bytes", "added")):
            if key in run:
                add(f"berth_file_backup_{figure}", run[key], repository=name)
    for one in trial.get("repositories", ()):
        name = one["repository"]
        add("berth_file_restore_check_ok", float(one["ok"]), repository=name)
        add("berth_file_restore_check_timestamp_seconds", trial["ended"], repository=name)
        for phase, seconds in one["seconds"].items():
            duration = "berth_file_restore_check_duration_seconds"
            add(duration, seconds, repository=name, phase=phase)
        if one["ok"]:
            add("berth_file_restore_check_files", one["files"], repository=name)
            add("berth_file_restore_check_bytes", one["bytes"], repository=name)
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
            configuration.paths,
            tools.stores() if stores is None else stores,
            states(configuration, "runs.json"),
            states(configuration, "check.json"),
            read_state(configuration, "restore-check.json"),
        )
        write(Path(configuration.metrics_file), text)
    except (BackupError, OSError, KeyError) as error:
        say(f"metrics are not written: {error}")


def states(configuration: Configuration, name: str) -> dict[str, Any]:
    """What was written down of the repositories that there still are."""
    known = {one.name for one in configuration.repositories}
    return {key: one for key, one in read_state(configuration, name).items() if key in known}


def note(
    configuration: Configuration, file: str, name: str, began: float, error: str, **more: Any
) -> None:
    """Write down how something went with a repository."""
    found = states(configuration, file)
    found[name] = {
        "ok": not error,
        "ended": round(time.time()),
        "seconds": round(time.time() - began, 3),
        "error": error,
        **more,
    }
    write_state(configuration, file, found)


# --- backups ---------------------------------------------------------------------------------


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def parse_mounts(text: str) -> list[tuple[str, str]]:
    """Place and device of every mount that may hold files, from /proc/self/mountinfo."""
    found = []
    for line in text.splitlines():
        front, _dash, back = line.partition(" - ")
        fields = front.split()
        if back.split()[0] not in PSEUDO:
            found.append((_unescaped(fields[4]), fields[2]))
    return found


def left_out(paths: Sequence[str], mounts: Sequence[tuple[str, str]]) -> list[str]:
    """Mounts in the paths that are other file systems, and no paths themselves."""
    found = []
    for place, device in mounts:
        above = [path for path in paths if inside(place, path)]
        if not above or place in paths:
            continue
        nearest = max(above, key=len)
        # The deepest mount that the path is in.
        holding = [one for one in mounts if inside(nearest, one[0])]
        if holding and max(holding, key=lambda one: len(one[0]))[1] != device:
            found.append(place)
    return sorted(set(found))


def skipped(configuration: Configuration) -> list[str]:
    """File systems that snapshots leave out."""
    if not configuration.one_file_system:
        return []
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    return left_out(configuration.paths, parse_mounts(text))


def faulty_paths(paths: Sequence[str]) -> list[str]:
    """What is wrong with paths: restic skips one that is not there, and says nothing of a link."""
    found = []
    for path in paths:
        if not os.path.lexists(path):
            found.append(f"{path} does not exist")
        elif Path(path).is_symlink():
            found.append(f"{path} is a link; name what it leads to, {os.path.realpath(path)}")
    return found


def prelude(command: Sequence[str]) -> None:
    """The command before the snapshot; its words go to the journal."""
    if not command:
        return
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            cwd="/",
            env=ENVIRONMENT,
            check=False,
        )
    except OSError as error:
        raise BackupError(f"the command before the snapshot: {error}") from None
    if done.returncode:
        raise BackupError(f"the command before the snapshot ended with {done.returncode}")


def backup(tools: Tools, repository: Repository, paths: Sequence[str]) -> dict[str, Any]:
    """A snapshot; what it holds and what it added."""
    configuration = tools.configuration
    options = ["--json", "--quiet", "--cleanup-cache", f"--host={configuration.name}"]
    options += [f"--tag={TAG}", *(f"--exclude={one}" for one in configuration.excludes)]
    if configuration.one_file_system:
        options.append("--one-file-system")
    done = tools.restic(repository, "backup", *options, "--", *paths, accepted=(0, UNREADABLE))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    summary: dict[str, Any] = next(
        (one for one in lines if one.get("message_type") == "summary"), {}
    )
    figures = {
        "snapshot": str(summary.get("snapshot_id", ""))[:8],
        "files": summary.get("total_files_processed", 0),
        "bytes": summary.get("total_bytes_processed", 0),
        "added": summary.get("data_added", 0),
    }
    say(
        f"repository {repository.name}: snapshot {figures['snapshot']}, {figures['files']} files, "
        f"{figures['bytes'] / MIB:.1f} MiB, {figures['added'] / MIB:.1f} MiB of them new"
    )
    faults = unread(done.stderr)
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise BackupError("could not be read: " + ", ".join(faults[:SHOWN]) + more)
    return figures


def run_backups(tools: Tools, repositories: Sequence[Repository]) -> None:
    """A snapshot to each repository; one that fails does not keep the others from theirs.

    What is wrong on the host itself, such as a path that is missing, does not keep the rest from
    being backed up. It makes the run fail, and nothing is forgotten until one succeeds.
    """
    configuration = tools.configuration
    failures = []
    with locked(configuration, configuration.lock_seconds):
        faults = []
        try:
            prelude(configuration.command)
        except BackupError as error:
            faults.append(str(error))
        faults += faulty_paths(configuration.paths)
        for place in skipped(configuration):
            say(f"left out, since it is another file system: {place}")
        present = [path for path in configuration.paths if os.path.lexists(path)]
        # Asked first: restic itself tries for a quarter of an hour, and the others would wait.
        for store in tools.stores(repositories):
            repository = store.repository
            began = time.time()
            wrong = list(faults)
            figures: dict[str, Any] = {}
            try:
                if store.code:
                    raise BackupError(store.message)
                if present:
                    figures = backup(tools, repository, present)
                if not wrong:
                    chosen = [f"--host={configuration.name}", f"--tag={TAG}", "--group-by=host"]
                    tools.restic(
                        repository, "forget", "--quiet", "--prune", *chosen, *repository.keep
                    )
            except (BackupError, OSError, ValueError) as error:
                wrong.append(str(error))
            words = "; ".join(wrong)
            if words:
                failures.append(f"repository {repository.name}: {words}")
            note(configuration, "runs.json", repository.name, began, words, **figures)
        publish(tools)
    if failures:
        raise BackupError("; ".join(failures))


def check(tools: Tools, parts: int) -> None:
    """Every repository is sound and holds a recent snapshot; a part of all data is read."""
    configuration = tools.configuration
    found = []
    with locked(configuration, configuration.lock_seconds):
        stores = tools.stores()
        for store in stores:
            repository = store.repository
            began = time.time()
            before = states(configuration, "check.json").get(repository.name, {})
            # The next one each time: after so many checks all was read.
            part = before.get("part", 0) % parts + 1
            words = ""
            try:
                if store.code:
                    raise BackupError(store.message)
                tools.restic(repository, "check", "--quiet", f"--read-data-subset={part}/{parts}")
            except BackupError as error:
                words = str(error)
                found.append(f"repository {repository.name}: {words}")
            note(configuration, "check.json", repository.name, began, words, part=part, parts=parts)
        found += problems(
            stores,
            states(configuration, "runs.json"),
            paths=configuration.paths,
            now=time.time(),
            max_age_hours=configuration.max_age_hours,
        )
        publish(tools, stores)
    if found:
        raise BackupError("; ".join(dict.fromkeys(found)))


def recent(tools: Tools, wait: float) -> str:
    """Every repository holds a recent snapshot, or its first one is on its way; a sentence."""
    configuration = tools.configuration
    deadline = time.monotonic() + wait
    while True:
        # Asked first: one that ends in between is found in its repository.
        running = is_running()
        found = problems(
            tools.stores(),
            states(configuration, "runs.json"),
            paths=configuration.paths,
            now=time.time(),
            max_age_hours=configuration.max_age_hours,
        )
        if not found:
            return "every repository holds a recent snapshot"
        if not running:
            raise BackupError("; ".join(found))
        if time.monotonic() > deadline:
            return f"a backup runs: {'; '.join(found)}"
        time.sleep(0.2)


def is_running() -> bool:
    """Whether a backup runs at this moment."""
    argv = ["/usr/bin/systemctl", "show", "-P", "ActiveState", UNIT]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "activating"


def status(tools: Tools) -> dict[str, Any]:
    """All that is known, for a status page."""
    configuration = tools.configuration
    now = time.time()
    stores = tools.stores()
    runs = states(configuration, "runs.json")
    checks = states(configuration, "check.json")
    trial = read_state(configuration, "restore-check.json")
    found = problems(
        stores,
        runs,
        paths=configuration.paths,
        now=now,
        max_age_hours=configuration.max_age_hours,
    )
    found += [
        f"repository {name}: the last check failed: {one['error']}"
        for name, one in checks.items()
        if not one["ok"]
    ]
    if trial and not trial["ok"]:
        found.append("the last restore check failed")

    def brief(snapshot: Snapshot | None) -> dict[str, Any] | None:
        if snapshot is None:
            return None
        age = round((now - snapshot.taken) / 3600, 2)
        return {"label": snapshot.label, "taken": round(snapshot.taken), "age_hours": age}

    return {
        "name": configuration.name,
        "ok": not found,
        "problems": found,
        "paths": list(configuration.paths),
        "left_out": skipped(configuration),
        "repositories": [
            {
                "name": store.repository.name,
                "ok": store.code == OK,
                "message": store.message,
                "snapshots": len(store.snapshots),
                "latest": brief(store.latest(configuration.paths)),
                "oldest": brief(store.snapshots[0] if store.snapshots else None),
            }
            for store in stores
        ],
        "runs": runs,
        "check": checks,
        "restore_check": trial,
    }


def prepare(tools: Tools, *, initial: str, dry_run: bool) -> list[str]:
    """Repositories and first snapshots, where they are missing; says what was done."""
    configuration = tools.configuration
    actions = []
    wanting = []
    for store in tools.stores():
        name = store.repository.name
        if store.code == MISSING:
            actions.append(f"repository {name} is made")
            if not dry_run:
                tools.once(store.repository, "init", "--quiet")
        elif store.code:
            raise BackupError(f"repository {name}: {store.message}")
        if store.latest(configuration.paths) is None:
            wanting.append(store.repository)
    if not wanting or initial == "none" or (initial == "background" and is_running()):
        return actions
    actions.append(f"first snapshot goes to {', '.join(one.name for one in wanting)}")
    if not dry_run and initial == "wait":
        run_backups(tools, wanting)
    elif not dry_run:
        argv = ["/usr/bin/systemctl", "start", "--no-block", UNIT]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackupError(f"systemctl start {UNIT}: {last_words(done.stderr)}")
    return actions


# --- restore ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a restore would write, and what is there already."""

    repository: Repository
    snapshot: Snapshot
    paths: tuple[str, ...]
    target: str
    files: int = 0
    size: int = 0
    existing: int = 0
    # Whether anything at all is in the target.
    occupied: bool = False

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"repository: {self.repository.name}",
            f"snapshot: {self.snapshot.label}, taken {stamp(self.snapshot.taken)}",
            f"paths: {', '.join(self.paths or self.snapshot.paths)}",
            f"files: {self.files}, {self.size / MIB:.1f} MiB",
            f"target: {self.target}, where {self.existing} of them exist",
        ]


def escaped(path: str) -> str:
    """A path as a pattern that fits nothing else."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def place(target: str, path: str) -> str:
    """Where a path of a snapshot goes."""
    return target.rstrip("/") + path


def plan_restore(
    tools: Tools,
    repository: Repository,
    snapshot: Snapshot,
    paths: Sequence[str],
    target: str,
) -> Plan:
    """Look at what a restore would do."""
    files = size = existing = 0
    missing = set(paths)
    with tools.listing(repository, snapshot, paths) as nodes:
        for node in nodes():
            missing.discard(node.path)
            if node.type != "dir":
                files += 1
                size += node.size
                existing += os.path.lexists(place(target, node.path))
    if missing:
        raise BackupError(
            f"snapshot {snapshot.label} of {stamp(snapshot.taken)} has no "
            f"{', '.join(sorted(missing))}"
        )
    directory = Path(target)
    occupied = os.path.lexists(target) and not (
        directory.is_dir() and next(directory.iterdir(), None) is None
    )
    return Plan(repository, snapshot, tuple(paths), target, files, size, existing, occupied)


@contextlib.contextmanager
def aside(nodes: Iterable[Node], target: str) -> Iterator[None]:
    """Have what is replaced out of the way meanwhile; it comes back if the restore fails."""
    moved: list[tuple[Path, Path]] = []
    try:
        for node in nodes:
            path = Path(place(target, node.path))
            if node.type != "dir" and os.path.lexists(path):
                away = path.with_name(f"{SCRATCH}replaced.{len(moved)}")
                path.rename(away)
                moved.append((away, path))
        yield
    except BaseException:
        for away, path in moved:
            away.replace(path)
        raise
    for away, _path in moved:
        # The directory's time is restored already.
        was = away.parent.stat()
        away.unlink()
        os.utime(away.parent, ns=(was.st_atime_ns, was.st_mtime_ns))


def restore(tools: Tools, plan: Plan, *, overwrite: bool) -> dict[str, Any]:
    """Bring files back. What is in the target and not in the snapshot stays as it is."""
    if plan.occupied and not overwrite:
        raise BackupError(
            f"{plan.target} is not empty, and {plan.existing} of {plan.files} files exist there. "
            "Nothing was changed: give an empty target, or --overwrite if they may be replaced"
        )
    began = time.time()
    say("restoring: " + ", ".join(plan.lines()))
    chosen = [f"--include={escaped(path)}" for path in plan.paths]
    with contextlib.ExitStack() as stack:
        if plan.existing and tools.version() < OVERWRITES:
            nodes = stack.enter_context(tools.listing(plan.repository, plan.snapshot, plan.paths))
            stack.enter_context(aside(nodes(), plan.target))
        tools.restic(
            plan.repository,
            "restore",
            plan.snapshot.id,
            f"--target={plan.target}",
            "--quiet",
            *chosen,
        )
    return {
        "repository": plan.repository.name,
        "snapshot": plan.snapshot.label,
        "taken": stamp(plan.snapshot.taken),
        "target": plan.target,
        "files": plan.files,
        "bytes": plan.size,
        "seconds": round(time.time() - began, 3),
    }


# --- restore check ---------------------------------------------------------------------------


@dataclass
class Verdict:
    """How the trial restore of one repository went."""

    repository: str
    snapshot: str = ""
    ok: bool = False
    error: str = ""
    files: int = 0
    directories: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


_KINDS: dict[str, Callable[[int], bool]] = {
    "file": stat.S_ISREG,
    "dir": stat.S_ISDIR,
    "symlink": stat.S_ISLNK,
    "fifo": stat.S_ISFIFO,
    "dev": stat.S_ISBLK,
    "chardev": stat.S_ISCHR,
}


def difference(node: Node, root: str) -> str:
    """What is not as the snapshot says; contents are compared by restic itself."""
    try:
        found = os.lstat(place(root, node.path))
    except OSError as error:
        return f"{node.path}: {error.strerror}"
    if not _KINDS[node.type](found.st_mode):
        return f"{node.path} is no {node.type}"
    if (found.st_uid, found.st_gid) != (node.uid, node.gid):
        return f"{node.path} belongs to {found.st_uid}:{found.st_gid}, not {node.uid}:{node.gid}"
    if node.type != "symlink" and stat.S_IMODE(found.st_mode) != node.mode:
        return f"{node.path} has mode {stat.S_IMODE(found.st_mode):o}, not {node.mode:o}"
    if node.type == "file":
        if found.st_size != node.size:
            return f"{node.path} has {found.st_size} bytes, not {node.size}"
        if int(found.st_mtime) != node.modified:
            return f"{node.path} has another time of modification"
    return ""


class Trial:
    """Restores one repository's latest snapshot into a scratch directory and looks at it."""

    def __init__(self, tools: Tools, store: Store) -> None:
        self.tools = tools
        self.configuration = tools.configuration
        self.store = store
        self.repository = repository = store.repository
        # A name that nobody else uses, since it is removed whatever it holds.
        self.scratch = Path(self.configuration.check_directory) / f"{SCRATCH}{repository.name}"
        self.verdict = Verdict(repository.name)

    def run(self) -> Verdict:
        """The whole trial; whatever happens, nothing is left behind."""
        began = time.monotonic()
        try:
            self.remove()
            self.look()
            self.verdict.ok = True
        except (BackupError, OSError, subprocess.SubprocessError, ValueError) as error:
            self.verdict.error = str(error)
        finally:
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

    def look(self) -> None:
        verdict = self.verdict
        snapshot = self.store.latest(self.configuration.paths)
        if self.store.code or snapshot is None:
            raise BackupError(self.store.message or "there is no snapshot of all paths")
        verdict.snapshot = snapshot.label
        self.scratch.mkdir(parents=True, mode=0o700)
        with self.tools.listing(self.repository, snapshot) as nodes:
            for node in nodes():
                verdict.files += node.type == "file"
                verdict.directories += node.type == "dir"
                verdict.bytes += node.size
            self.refuse_without_room()
            with self.timed("restore"):
                self.tools.restic(
                    self.repository,
                    "restore",
                    snapshot.id,
                    f"--target={self.scratch}",
                    "--quiet",
                    # Reads what was written, and compares it with what the snapshot says.
                    "--verify",
                    timeout=self.configuration.check_seconds,
                )
            with self.timed("compare"):
                faults = []
                for node in nodes():
                    if node.type in RESTORED and (words := difference(node, str(self.scratch))):
                        faults.append(words)
        if faults:
            raise BackupError(f"{len(faults)} differences: " + ", ".join(faults[:SHOWN]))

    def refuse_without_room(self) -> None:
        free = shutil.disk_usage(self.scratch).free
        needed = int(self.verdict.bytes * 1.1) + 64 * MIB
        if free < needed:
            raise BackupError(
                f"{self.scratch} has {free / MIB:.0f} MiB free, {needed / MIB:.0f} MiB are needed"
            )


def restore_check(tools: Tools) -> None:
    """A trial restore from each repository, written down as JSON and metrics."""
    configuration = tools.configuration
    names = configuration.check_repositories
    with locked(configuration, configuration.lock_seconds):
        began = time.time()
        stores = tools.stores()
        chosen = [one for one in stores if not names or one.repository.name in names]
        verdicts = [Trial(tools, store).run() for store in chosen]
        report = {
            "ok": all(verdict.ok for verdict in verdicts),
            "began": round(began),
            "ended": round(time.time()),
            "seconds": round(time.time() - began, 3),
            "repositories": [asdict(verdict) for verdict in verdicts],
        }
        write_state(configuration, "restore-check.json", report)
        publish(tools, stores)
    for verdict in verdicts:
        say(
            f"repository {verdict.repository}: "
            + (
                f"snapshot {verdict.snapshot} is good: {verdict.files} files, "
                f"{verdict.bytes / MIB:.1f} MiB, restored in {verdict.seconds['total']:.1f} s"
                if verdict.ok
                else verdict.error
            )
        )
    if not report["ok"]:
        words = [f"repository {one.repository}: {one.error}" for one in verdicts if not one.ok]
        raise BackupError("; ".join(words))


def clean(configuration: Configuration) -> None:
    """Remove what a restore check that was killed left behind."""
    for left in Path(configuration.check_directory).glob(f"{SCRATCH}*"):
        shutil.rmtree(left)


# --- the command -----------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    command = argparse.ArgumentParser(prog="berth-file-backup", description=__doc__)
    command.add_argument("--configuration", type=Path, default=CONFIGURATION)
    verbs = command.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="take a snapshot to every repository")
    run.add_argument("--repository", action="append", default=[])
    sound = verbs.add_parser("check", help="fail unless repositories are sound and recent")
    sound.add_argument("--parts", type=int, default=0, help="read one of so many parts; 1 for all")
    lately = verbs.add_parser(
        "recent", help="fail unless every repository holds a recent snapshot, or gets its first one"
    )
    lately.add_argument("--wait", type=float, default=60, help="seconds for a backup that runs")
    verbs.add_parser("status", help="all that is known, as JSON")
    first = verbs.add_parser("prepare", help="repositories and first snapshots, as JSON")
    first.add_argument("--initial", choices=["wait", "background", "none"], default="wait")
    first.add_argument("--dry-run", action="store_true")
    back = verbs.add_parser("restore", help="bring files back")
    back.add_argument("--time", default="latest", help="a moment with its time zone, or 'latest'")
    back.add_argument("--snapshot", default="", help="a snapshot by the begin of its name")
    back.add_argument("--repository", default="")
    back.add_argument("--path", action="append", default=[], help="a part of it; may be repeated")
    back.add_argument("--target", required=True, help="a directory; / for where the files were")
    back.add_argument("--overwrite", action="store_true", help="even if the target is not empty")
    back.add_argument("--dry-run", action="store_true")
    verbs.add_parser("restore-check", help="restore into a scratch directory and look at it")
    verbs.add_parser("clean", help="remove what a killed restore check left")
    return command


def _restore(tools: Tools, options: argparse.Namespace) -> dict[str, Any]:
    wanted = tools.configuration.repository(options.repository) if options.repository else None
    moment = parse_moment(options.time, now=datetime.now(timezone.utc) + timedelta(seconds=1))
    paths = [os.path.normpath(path) for path in options.path]
    for path in [*paths, options.target]:
        if not path.startswith("/"):
            raise BackupError(f"{path!r} is no absolute path")
    repository, snapshot = choose(tools.stores(), moment, options.snapshot, wanted, paths)
    plan = plan_restore(tools, repository, snapshot, paths, os.path.normpath(options.target))
    if options.dry_run:
        return {"plan": plan.lines(), "refused": plan.occupied and not options.overwrite}
    return restore(tools, plan, overwrite=options.overwrite)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; 1 and a sentence if it cannot be."""
    options = parser().parse_args(arguments)
    # Stopped by systemd, we still clean up behind us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if os.geteuid() != 0:
            raise BackupError("the password of the repositories is root's: run it as root")
        raw = json.loads(options.configuration.read_text(encoding="utf-8"))
        tools = Tools(parse_configuration(raw))
        result: Any = None
        if options.verb == "run":
            wanted = [tools.configuration.repository(one) for one in options.repository]
            run_backups(tools, wanted or tools.configuration.repositories)
        elif options.verb == "check":
            check(tools, options.parts or tools.configuration.check_parts)
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
        say(f"berth-file-backup {options.verb}: {error}")
        return 1
    if result is not None:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
