# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of applications on a host: fetched, unpacked, built, migrated, activated, pruned.

    <directory>/<version>/     a release; the directory appears complete, by a rename
    <directory>/.releases.json what was installed, and what was active in which order
    <link>                     a symbolic link to one of them, replaced atomically

Everything else in the directory whose name begins with C(.tmp-) is left over from a run that
did not end, and goes at the start of the next. One process at a time works in the directory; the
lock is the kernel's and goes with the process. Standard library only: this runs on the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import hashlib
import json
import os
import posixpath
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.release_archive import (
    ArchiveError,
    file_digest,
    unpack,
)

STATE_FILE = ".releases.json"
TEMPORARY = ".tmp-"
HISTORY = 20
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Fetch = Callable[[str, str], None]


class ReleaseError(Exception):
    """A release that cannot be brought in place; the text says which, why and what is left."""


# ---------------------------------------------------------------- versions


def check_version(version: str) -> str:
    """A version names a directory and the instance of a systemd unit."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(
            f"the version {version!r} is not made of letters, digits, dots, hyphens and underscores"
        )
    return version


def identity(digest: str, build: Sequence[str], strip: int = 0) -> str:
    """What a release is: the content it is made of, and what was done to it."""
    if not digest or not (build or strip):
        return digest
    return hashlib.sha256("\n".join((digest, str(strip), *build)).encode()).hexdigest()


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"://[^/@]*@", "://", url)


def default_version(release_identity: str) -> str:
    return release_identity[:12]


def parse_checksum(checksum: str) -> tuple[str, str]:
    """(algorithm, digest) of C(sha256:…) or C(sha512:…)."""
    algorithm, _colon, digest = checksum.strip().partition(":")
    lengths = {"sha256": 64, "sha512": 128}
    digest = digest.strip().lower()
    if len(digest) != lengths.get(algorithm) or re.search("[^0-9a-f]", digest):
        raise ReleaseError(
            f"the checksum {checksum!r} is neither sha256: with 64 nor sha512: with 128 hex digits"
        )
    return algorithm, digest


# ---------------------------------------------------------------- what is wanted and what is there


@dataclass
class Spec:
    """A release that is wanted."""

    name: str
    directory: str
    link: str
    version: str
    identity: str
    owner: str
    group: str
    keep: int
    activate: bool
    world_readable: bool = False
    archive: str = ""
    archive_name: str = ""
    url: str = ""
    checksum: str = ""
    git: str = ""
    ref: str = ""
    strip: int = 0
    kind: str = "auto"
    build: list[str] = field(default_factory=list)
    build_user: str = ""
    build_timeout: int = 900
    build_environment: dict[str, str] = field(default_factory=dict)
    migrate_unit: str = ""
    migrate_marker: str = ""
    migrate_here: bool = True

    @property
    def path(self) -> str:
        return os.path.join(self.directory, self.version)

    @property
    def marker(self) -> str:
        return self.migrate_marker.replace("{version}", self.version)

    @property
    def migrates(self) -> bool:
        return bool(self.migrate_unit) and self.migrate_here


@dataclass
class State:
    """What the state file says; a lost file loses the order of releases and nothing else."""

    history: list[str] = field(default_factory=list)
    releases: dict[str, dict[str, Any]] = field(default_factory=dict)


def placeable(releases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of the module's O(releases) that need no package of the host, to be put in place only.

    A build and git need packages; what is switched to, and migrated for, comes in its turn.
    """
    return [
        {**{key: value for key, value in each.items() if key != "migrate"}, "activate": False}
        for each in releases
        if not (each.get("build") or each["artifact"].get("build") or each["artifact"].get("git"))
    ]


def spec_from(params: Mapping[str, Any]) -> Spec:
    """A wanted release from the module's options."""
    artifact = params["artifact"]
    home = params.get("home") or ""
    directory = params.get("directory") or (os.path.join(home, "releases") if home else "")
    link = params.get("link") or (os.path.join(home, "current") if home else "")
    name = params["name"]
    if not directory.startswith("/") or not link.startswith("/"):
        raise ReleaseError(f"{name}: give home, or directory and link, as absolute paths")
    url, git = artifact.get("url") or "", artifact.get("git") or ""
    if url:
        _algorithm, digest = parse_checksum(artifact.get("checksum") or "")
    else:
        digest = artifact.get("digest") or ""
    build = list(params.get("build") or [])
    migrate = params.get("migrate") or {}
    return Spec(
        name=name,
        directory=os.path.normpath(directory),
        link=os.path.normpath(link),
        version=params.get("version") or "",
        identity=identity(digest, build, artifact.get("strip") or 0),
        owner=params.get("owner") or "root",
        group=params.get("group") or "root",
        keep=params.get("keep") or 3,
        activate=params.get("activate") is not False,
        world_readable=bool(params.get("world_readable")),
        archive="" if url or git else digest,
        archive_name=artifact.get("name") or "",
        url=url,
        checksum=artifact.get("checksum") or "",
        git=git,
        ref=artifact.get("version") or "",
        strip=artifact.get("strip") or 0,
        kind=artifact.get("format") or "auto",
        build=build,
        build_user=params.get("build_user") or "",
        build_timeout=params.get("build_timeout") or 900,
        build_environment=dict(params.get("build_environment") or {}),
        migrate_unit=migrate.get("unit") or "",
        migrate_marker=migrate.get("marker") or "",
        migrate_here=migrate.get("here") is not False,
    )


def read_state(directory: str) -> State:
    try:
        with open(os.path.join(directory, STATE_FILE), encoding="utf-8") as handle:
            data = json.load(handle)
        return State(history=list(data["history"]), releases=dict(data["releases"]))
    except (OSError, ValueError, KeyError, TypeError):
        return State()


def write_state(directory: str, state: State) -> None:
    path = os.path.join(directory, STATE_FILE)
    temporary = os.path.join(directory, f"{TEMPORARY}state-{secrets.token_hex(4)}")
    text = json.dumps(vars(state), indent=1, sort_keys=True)
    with open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def installed_versions(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(
        name
        for name in names
        if not name.startswith(".") and os.path.isdir(os.path.join(directory, name))
    )


def active_version(link: str, directory: str) -> str | None:
    """The version that the link points to, or None; a link to elsewhere gives its target."""
    try:
        target = os.readlink(link)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(
            f"{link} is there and is not a symbolic link: move it away, then run again"
        ) from error
    target = os.path.normpath(os.path.join(os.path.dirname(link), target))
    if os.path.dirname(target) == directory:
        return os.path.basename(target)
    return target


def prunable(
    versions: Sequence[str],
    recency: Mapping[str, float],
    protected: Sequence[str | None],
    keep: int,
) -> list[str]:
    """Versions to remove: all but O(protected) and the most recent, O(keep) in all."""
    kept = [version for version in versions if version in protected]
    others = sorted(
        (version for version in versions if version not in protected),
        key=lambda version: (recency.get(version, 0.0), version),
        reverse=True,
    )
    room = max(0, keep - len(kept))
    return sorted(others[room:])


# ---------------------------------------------------------------- stale and retired units


@dataclass(frozen=True)
class UnitState:
    active: bool
    needs_reload: bool
    started: float


def parse_units(text: str, now: float, monotonic: float) -> dict[str, UnitState]:
    """`systemctl show` of several units; start times become those of the wall clock."""
    found: dict[str, UnitState] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        started = int(values.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
        found[values.get("Id", "")] = UnitState(
            active=values.get("ActiveState") in ("active", "activating", "reloading"),
            needs_reload=values.get("NeedDaemonReload") == "yes",
            started=now - (monotonic - started) if started else 0.0,
        )
    return found


def stale_units(
    wanted: Sequence[Mapping[str, Any]],
    units: Mapping[str, UnitState],
    changed_at: Callable[[str], float | None],
    now: float,
) -> list[str]:
    """Units whose process was started before one of its files was replaced.

    A file of the future was written before the clock was set back, and tells nothing.
    """
    stale = []
    for unit in wanted:
        state = units.get(unit["name"])
        if state is None or not state.active:
            continue
        times = [moment for path in unit["paths"] if (moment := changed_at(path)) is not None]
        outdated = state.started and any(state.started < moment < now for moment in times)
        if state.needs_reload or outdated:
            stale.append(str(unit["name"]))
    return stale


def retired_units(registry: str, scope: str, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, without C(.service), of this scope with an environment file that are not wanted."""
    names = {str(unit["name"]).removesuffix(".service") for unit in wanted}
    retired = []
    try:
        files = sorted(os.listdir(registry))
    except OSError:
        return []
    for file in files:
        name = file.removesuffix(".env")
        if file == name or file.startswith(".") or name in names:
            continue
        if registered_scope(os.path.join(registry, file)) == scope:
            retired.append(name)
    return retired


def registered_scope(path: str) -> str | None:
    """The scope that the head of an environment file names; None if it is not ours."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            for line in handle:
                if not line.startswith("#"):
                    return None
                if line.startswith("# scope:"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def _changed_at(path: str) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


# ---------------------------------------------------------------- the host


def _run(argv: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": SEARCH_PATH, "SYSTEMD_PAGER": ""}
    environment.update(more.pop("env", {}))
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
        **more,
    )


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _sync(path: str) -> None:
    """Everything of this file system is on the disk before the release gets its name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            os.sync()
    except (OSError, AttributeError):
        os.sync()
    finally:
        os.close(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identifiers(owner: str, group: str) -> tuple[int, int]:
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ReleaseError(f"there is no user {owner} or no group {group} on this host") from error


def _own(directory: str, uid: int, gid: int, *, world: bool) -> None:
    """Owner and modes of a whole tree: the group reads, nobody but the owner writes."""
    for path, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            _own_one(os.path.join(path, name), uid, gid, world)
    _own_one(directory, uid, gid, world)


def _own_one(path: str, uid: int, gid: int, world: bool) -> None:
    status = os.lstat(path)
    os.chown(path, uid, gid, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100:
        os.chmod(path, 0o755 if world else 0o750)
    else:
        os.chmod(path, 0o644 if world else 0o640)


def _make_directories(path: str) -> None:
    """Missing directories, for everybody to pass through whatever the umask is."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


def _remove(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    else:
        shutil.rmtree(path)


@contextlib.contextmanager
def _locked(directory: str, wait: float) -> Iterator[None]:
    """The only process at work in this directory, until it ends."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ReleaseError(
                        f"another deploy has been at work in {directory} for {wait:.0f} s"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


@dataclass
class Work:
    """A wanted release and what became of it."""

    spec: Spec
    before: str | None
    installed: bool
    state: State
    temporary: str = ""
    download: str = ""
    did_install: bool = False
    did_migrate: bool = False
    did_activate: bool = False
    pruned: list[str] = field(default_factory=list)
    warning: str = ""
    after: str | None = None
    versions_before: list[str] = field(default_factory=list)

    def fail(self, message: str, last_lines: str = "") -> ReleaseError:
        kept = f"; {self.before} stays active" if self.before else ""
        lines = f"; the last lines:\n{last_lines}" if last_lines else ""
        return ReleaseError(f"{self.spec.name} {self.spec.version}: {message}{kept}{lines}")

    def result(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "name": spec.name,
            "version": spec.version,
            "path": spec.path,
            "link": spec.link,
            "previous": self.before,
            "current": self.after,
            "active": self.after == spec.version,
            "installed": self.did_install,
            "migrated": self.did_migrate,
            "activated": self.did_activate,
            "pruned": self.pruned,
            "changed": bool(
                self.did_install or self.did_migrate or self.did_activate or self.pruned
            ),
        }

    def diff(self, versions_after: Sequence[str]) -> dict[str, str]:
        def text(version: str | None, versions: Sequence[str]) -> str:
            return f"active: {version or 'none'}\nreleases: {' '.join(versions) or 'none'}\n"

        return {
            "before_header": self.spec.link,
            "after_header": self.spec.link,
            "before": text(self.before, self.versions_before),
            "after": text(self.after, versions_after),
        }


class Host:
    """Brings releases in place on this host."""

    def __init__(self, fetch: Fetch, *, check: bool = False, lock_seconds: float = 300) -> None:
        self.fetch = fetch
        self.check = check
        self.lock_seconds = lock_seconds

    def run(self, specs: Sequence[Spec], archives: Mapping[str, str]) -> dict[str, Any]:
        """O(archives) are the files, by digest, that came with this call."""
        for spec in specs:
            self._resolve_version(spec)
        works = [self._look(spec) for spec in specs]
        self._check_unique(works)
        needs = sorted(
            {
                work.spec.archive
                for work in works
                if work.spec.archive and not work.installed and work.spec.archive not in archives
            }
        )
        if needs and not self.check:
            return {
                "changed": False,
                "needs": needs,
                "releases": [],
                "diff": [],
                "activated": [],
                "waiting": [],
                "warnings": [],
            }
        if self.check:
            for work in works:
                self._predict(work)
        else:
            self._apply(works, archives)
        return {
            "changed": any(work.result()["changed"] for work in works),
            "needs": needs,
            "releases": [work.result() for work in works],
            "activated": [work.spec.name for work in works if work.did_activate],
            "waiting": [work.spec.name for work in works if work.after != work.spec.version],
            "warnings": [work.warning for work in works if work.warning],
            "diff": [
                work.diff(self._versions_after(work)) for work in works if work.result()["changed"]
            ],
        }

    # ------------------------------------------------------------ looking

    def _resolve_version(self, spec: Spec) -> None:
        if spec.git and not spec.version:
            commit = spec.ref if _COMMIT.fullmatch(spec.ref) else self._commit_of(spec)
            spec.identity = identity(commit, spec.build)
            spec.version = default_version(spec.identity)
            spec.ref = commit
        elif not spec.version:
            spec.version = default_version(spec.identity)
        try:
            check_version(spec.version)
        except ReleaseError as error:
            raise ReleaseError(f"{spec.name}: {error}") from error

    def _commit_of(self, spec: Spec) -> str:
        ref = spec.ref or "HEAD"
        shown = without_password(spec.git)
        try:
            answer = _run(
                ["git", "ls-remote", "--", spec.git, ref, f"{ref}^{{}}"],
                timeout=60,
                env={"GIT_TERMINAL_PROMPT": "0"},
            )
        except FileNotFoundError:
            if self.check:
                return hashlib.sha256(f"{spec.git} {ref}".encode()).hexdigest()[:40]
            raise ReleaseError(f"{spec.name}: git is not installed on this host") from None
        except subprocess.TimeoutExpired:
            raise ReleaseError(f"{spec.name}: {shown} does not answer") from None
        if answer.returncode != 0:
            raise ReleaseError(f"{spec.name}: {shown}: {without_password(_tail(answer.stderr, 3))}")
        found: dict[str, str] = {}
        for line in answer.stdout.splitlines():
            commit, _tab, name = line.partition("\t")
            found[name] = commit
        for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
            if name in found:
                return found[name]
        raise ReleaseError(f"{spec.name}: {shown} has no tag and no branch {ref!r}")

    def _look(self, spec: Spec) -> Work:
        try:
            before = active_version(spec.link, spec.directory)
        except ReleaseError as error:
            raise ReleaseError(f"{spec.name}: {error}") from error
        state = read_state(spec.directory)
        work = Work(
            spec=spec,
            before=before,
            after=before,
            installed=os.path.isdir(spec.path),
            state=state,
            versions_before=installed_versions(spec.directory),
        )
        known = state.releases.get(spec.version, {}).get("identity")
        if work.installed and known and spec.identity and known != spec.identity:
            # Right for who goes back to an older version, a surprise for who forgot to name a
            # new one.
            work.warning = (
                f"{spec.name}: the release {spec.version} is there already and is used as it is, "
                "though the artifact is another now; a release is never changed"
            )
        return work

    def _check_unique(self, works: Sequence[Work]) -> None:
        for attribute in ("directory", "link"):
            seen: dict[str, str] = {}
            for work in works:
                value = getattr(work.spec, attribute)
                if value in seen:
                    raise ReleaseError(
                        f"{work.spec.name} and {seen[value]} have the same {attribute} {value}"
                    )
                seen[value] = work.spec.name

    def _predict(self, work: Work) -> None:
        spec = work.spec
        work.did_install = not work.installed
        work.did_migrate = spec.migrates and not os.path.exists(spec.marker)
        if spec.activate:
            work.did_activate = work.before != spec.version
            work.after = spec.version
        work.pruned = self._prunable(work)

    def _versions_after(self, work: Work) -> list[str]:
        versions = set(work.versions_before) - set(work.pruned)
        if work.did_install:
            versions.add(work.spec.version)
        return sorted(versions)

    # ------------------------------------------------------------ doing

    def _apply(self, works: Sequence[Work], archives: Mapping[str, str]) -> None:
        with contextlib.ExitStack() as stack:
            for directory in sorted({work.spec.directory for work in works}):
                if self._idle(directory, works):
                    continue
                _make_directories(directory)
                stack.enter_context(_locked(directory, self.lock_seconds))
                self._clean(directory)
            for work in works:
                # Another process may have done it while this one waited for the lock.
                work.installed = os.path.isdir(work.spec.path)
                work.state = read_state(work.spec.directory)
            try:
                self._download(works)
                for work in works:
                    if not work.installed:
                        self._install(work, archives)
            finally:
                for work in works:
                    for path in (work.download, work.temporary):
                        if path:
                            _remove(path)
            self._migrate(works)
            for work in works:
                self._activate(work)
            for work in works:
                self._prune(work)

    def _idle(self, directory: str, works: Sequence[Work]) -> bool:
        """Nothing to do in this directory: then nothing of it is touched, not even the lock."""
        try:
            if any(name.startswith(TEMPORARY) for name in os.listdir(directory)):
                return False
        except OSError:
            return False
        return all(
            work.installed
            and (not work.spec.activate or work.before == work.spec.version)
            and (not work.spec.migrates or os.path.exists(work.spec.marker))
            and not self._prunable(work)
            and (work.before is None or work.state.history[-1:] == [work.before])
            for work in works
            if work.spec.directory == directory
        )

    def _clean(self, directory: str) -> None:
        for name in os.listdir(directory):
            if name.startswith(TEMPORARY):
                _remove(os.path.join(directory, name))

    def _temporary(self, spec: Spec, what: str) -> str:
        return os.path.join(spec.directory, f"{TEMPORARY}{what}-{secrets.token_hex(4)}")

    def _download(self, works: Sequence[Work]) -> None:
        """All downloads are there and are what they should be before anything is unpacked."""
        done: dict[tuple[str, str], str] = {}
        for work in works:
            spec = work.spec
            if not spec.url or work.installed:
                continue
            key = (spec.url, spec.checksum)
            if key not in done:
                work.download = self._temporary(spec, "download")
                try:
                    self.fetch(spec.url, work.download)
                except Exception as error:
                    shown = without_password(spec.url)
                    raise work.fail(f"{shown}: {error}") from error
                algorithm, digest = parse_checksum(spec.checksum)
                actual = file_digest(work.download, algorithm)
                if actual != digest:
                    raise work.fail(
                        f"{without_password(spec.url)} has the checksum {algorithm}:{actual}, "
                        f"expected is {algorithm}:{digest}"
                    )
                done[key] = work.download
            spec.archive = done[key]

    def _install(self, work: Work, archives: Mapping[str, str]) -> None:
        spec = work.spec
        uid, gid = _identifiers(spec.owner, spec.group)
        work.temporary = self._temporary(spec, "release")
        os.mkdir(work.temporary, 0o700)
        try:
            if spec.git:
                self._checkout(work)
            else:
                source = spec.archive if spec.url else archives[spec.archive]
                name = spec.archive_name or posixpath.basename(spec.url.split("?")[0])
                unpack(source, work.temporary, name=name, strip=spec.strip, kind=spec.kind)
        except ArchiveError as error:
            raise work.fail(str(error)) from error
        if spec.build:
            self._build(work)
        git_directory = os.path.join(work.temporary, ".git")
        if spec.git and os.path.lexists(git_directory):
            _remove(git_directory)
        _own(work.temporary, uid, gid, world=spec.world_readable)
        _sync(work.temporary)
        os.rename(work.temporary, spec.path)
        work.temporary = ""
        work.state.releases[spec.version] = {
            "identity": spec.identity,
            "installed": time.time(),
        }
        write_state(spec.directory, work.state)
        _sync_directory(spec.directory)
        work.did_install = True

    def _checkout(self, work: Work) -> None:
        spec = work.spec
        ref = spec.ref or "HEAD"
        tree = work.temporary

        def git(*arguments: str) -> subprocess.CompletedProcess[str]:
            return _run(
                ["git", "-c", "advice.detachedHead=false", "-C", tree, *arguments],
                timeout=spec.build_timeout,
                env={"GIT_TERMINAL_PROMPT": "0"},
            )

        def need(*arguments: str) -> None:
            answer = git(*arguments)
            if answer.returncode != 0:
                raise work.fail(f"git {arguments[0]}: {without_password(_tail(answer.stderr))}")

        try:
            need("init", "--quiet")
            need("remote", "add", "--", "origin", spec.git)
            if git("fetch", "--quiet", "--depth=1", "origin", ref).returncode == 0:
                need("checkout", "--quiet", "--detach", "FETCH_HEAD")
            else:
                # A server may refuse to give a single commit by its hash.
                need("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
                need("checkout", "--quiet", "--detach", ref)
            if os.path.exists(os.path.join(tree, ".gitmodules")):
                need("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
        except FileNotFoundError:
            raise work.fail("git is not installed on this host") from None
        except subprocess.TimeoutExpired:
            raise work.fail(f"git took longer than {spec.build_timeout} s") from None

    def _build(self, work: Work) -> None:
        """Runs the commands as the build user, where the release will stand.

        A private mount namespace shows the temporary directory under the release's own path:
        what a build writes into its files (the first line of a script, a virtual environment)
        is right after the rename.
        """
        spec = work.spec
        user = spec.build_user or spec.owner
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise work.fail(f"the build user {user} does not exist") from None
        _own(work.temporary, account.pw_uid, account.pw_gid, world=False)
        scaffold = self._temporary(spec, "build")
        os.makedirs(os.path.join(scaffold, spec.version), 0o755)
        home = os.path.join(scaffold, ".home")
        os.mkdir(home, 0o700)
        os.chown(home, account.pw_uid, account.pw_gid)
        environment = {
            "PATH": SEARCH_PATH,
            "LANG": "C.UTF-8",
            "HOME": os.path.join(spec.directory, ".home"),
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/sh",
            "CI": "true",
            **spec.build_environment,
        }
        script = (
            'mount --bind "$1" "$2/$3" && mount --rbind "$2" "$4" && cd "$4/$3" && '
            'exec setpriv --reuid="$5" --regid="$6" --init-groups --no-new-privs -- '
            'sh -ec "$7"'
        )
        try:
            for number, command in enumerate(spec.build, start=1):
                argv = [
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "--",
                    "sh",
                    "-ec",
                    script,
                    "berth-build",
                    work.temporary,
                    scaffold,
                    spec.version,
                    spec.directory,
                    str(account.pw_uid),
                    str(account.pw_gid),
                    command,
                ]
                self._build_step(work, number, command, argv, environment)
        finally:
            _remove(scaffold)

    def _build_step(
        self,
        work: Work,
        number: int,
        command: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        timeout = work.spec.build_timeout
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
            try:
                process.wait(timeout)
                outcome = f"failed with status {process.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"took longer than {timeout} s"
            finally:
                # What a step leaves running would go on writing into the release.
                _kill_group(process)
                process.wait()
            if process.returncode != 0:
                output.seek(0)
                raise work.fail(
                    f"build step {number} ({command}) {outcome}",
                    _tail(output.read()) or "(none)",
                )

    def _migrate(self, works: Sequence[Work]) -> None:
        """All migrations at once; what one of them needs of another its unit has to say."""
        units = {
            work.spec.migrate_unit.replace("{version}", work.spec.version): work
            for work in works
            if work.spec.migrates and not os.path.exists(work.spec.marker)
        }
        if not units:
            return
        _run(["systemctl", "daemon-reload"])
        # If a run that was killed has left one at work, this waits for its end.
        answer = _run(["systemctl", "start", "--", *units])
        failures = []
        for unit, work in units.items():
            work.did_migrate = os.path.exists(work.spec.marker)
            if not work.did_migrate:
                why = _failure(unit) or _tail(answer.stderr, 3) or f"{work.spec.marker} is not set"
                failures.append(work.fail(f"the migration {unit} failed ({why})", _journal(unit)))
        if failures:
            raise ReleaseError("\n".join(str(failure) for failure in failures))

    def _activate(self, work: Work) -> None:
        spec = work.spec
        if not spec.activate:
            return
        if spec.migrate_unit and not spec.migrate_here:
            # Before the switch: a later run on this host alone must not migrate once more.
            _make_directories(os.path.dirname(spec.marker))
            open(spec.marker, "a", encoding="utf-8").close()
        if work.before != spec.version:
            directory = os.path.dirname(spec.link)
            _make_directories(directory)
            near = os.path.dirname(spec.directory) == directory
            target = os.path.relpath(spec.path, directory) if near else spec.path
            temporary = os.path.join(
                directory, f"{TEMPORARY}{os.path.basename(spec.link)}-{secrets.token_hex(4)}"
            )
            os.symlink(target, temporary)
            try:
                os.replace(temporary, spec.link)
            except OSError:
                _remove(temporary)
                raise
            _sync_directory(directory)
            work.did_activate = True
        work.after = spec.version
        if work.state.history[-1:] != [spec.version]:
            work.state.history = [*work.state.history, spec.version][-HISTORY:]
            write_state(spec.directory, work.state)

    def _prunable(self, work: Work) -> list[str]:
        """Only once the wanted version is active: until then the old ones may be needed."""
        spec = work.spec
        if work.after != spec.version:
            return []
        versions = sorted({*installed_versions(spec.directory), spec.version})
        before_that = [
            version
            for version in work.state.history
            if version != spec.version and version in versions
        ]
        previous = before_that[-1] if before_that else None
        if work.before != spec.version:
            previous = work.before
        recency = {
            version: max(
                float(work.state.releases.get(version, {}).get("installed") or 0),
                _changed_at(os.path.join(spec.directory, version)) or 0.0,
            )
            for version in versions
        }
        return prunable(versions, recency, [spec.version, previous], spec.keep)

    def _prune(self, work: Work) -> None:
        spec = work.spec
        work.pruned = self._prunable(work)
        for version in work.pruned:
            gone = self._temporary(spec, "pruned")
            os.rename(os.path.join(spec.directory, version), gone)
            _remove(gone)
            work.state.releases.pop(version, None)
        if work.pruned:
            write_state(spec.directory, work.state)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _failure(unit: str) -> str:
    """What systemd says of a unit that failed; empty for one that did not."""
    answer = _run(["systemctl", "show", "--property=Result,ExecMainStatus", "--", unit])
    values = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    result = values.get("Result", "")
    if result == "exit-code":
        return f"status {values.get('ExecMainStatus')}"
    return "" if result == "success" else result


def _journal(unit: str, lines: int = 20) -> str:
    _run(["journalctl", "--sync"])
    shown = _run(["systemctl", "show", "--value", "--property=InvocationID", "--", unit])
    invocation = shown.stdout.strip()
    argv = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}"]
    match = f"_SYSTEMD_INVOCATION_ID={invocation}" if invocation else f"_SYSTEMD_UNIT={unit}"
    return _tail(_run([*argv, match]).stdout, lines) or "(the journal has none)"


def look_at_units(
    units: Sequence[Mapping[str, Any]], registry: str, scope: str
) -> dict[str, list[str]]:
    """C(stale_units) and C(retired_units) of this host."""
    stale: list[str] = []
    if units and shutil.which("systemctl", path=SEARCH_PATH):
        names = [str(unit["name"]) for unit in units]
        properties = "Id,ActiveState,NeedDaemonReload,ExecMainStartTimestampMonotonic"
        shown = _run(["systemctl", "show", f"--property={properties}", "--", *names])
        now = time.time()
        states = parse_units(shown.stdout, now, time.clock_gettime(time.CLOCK_MONOTONIC))
        stale = stale_units(units, states, _changed_at, now)
    return {
        "stale_units": stale,
        "retired_units": retired_units(registry, scope, units) if registry else [],
    }
