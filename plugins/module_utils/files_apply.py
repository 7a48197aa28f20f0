# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the files of a host what a request says they shall be. Runs on the target.

The order is what makes it safe: look at everything, decide, stage every new content
under its final owner and mode where no program looks, let every validator judge the
staged files, note in the marker what is about to change, and only then rename. A file is
therefore either the old or the new one, and a run that dies while renaming leaves the
marker, by which the next run knows that services have yet to be told.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import fnmatch
import grp
import hashlib
import json
import os
import pwd
import secrets as entropy
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.files_spec import (
    Faults,
    FileSpec,
    Request,
    TreeSpec,
)
from ansible_collections.berth.platform.plugins.module_utils.files_words import (
    DIFF_LIMIT,
    attribute_diff,
    content_diff,
    hidden_diff,
    refusal,
    secret_words,
)

STATE_DIRECTORY = "/var/lib/berth"
STAGE_PREFIX = ".berth-stage-"
LOCK_SECONDS = 120
VALIDATOR_SECONDS = 60
TREE_LIMIT_BYTES = 512 * 1024 * 1024
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18


@dataclass
class Current:
    """What stands at a path now."""

    kind: str = "absent"  # absent, file, directory, link, other
    uid: int = -1
    gid: int = -1
    mode: int = -1
    size: int = 0
    sha256: str = ""
    target: str = ""
    through_link: bool = False


@dataclass
class Change:
    """A path that is not as it shall be."""

    spec: FileSpec
    current: Current
    uid: int | None
    gid: int | None
    new_content: bool = False
    staged: str = ""


@dataclass
class Plan:
    changes: list[Change] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    changed: bool = False
    changed_files: list[str] = field(default_factory=list)
    changed_labels: list[str] = field(default_factory=list)
    pending: bool = False
    diff: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    backups: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)


class Accounts:
    """Numbers of users and groups; C(None) for one that is not there (yet)."""

    def __init__(self) -> None:
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}

    def uid(self, name: str) -> int | None:
        if name not in self._users:
            try:
                self._users[name] = pwd.getpwnam(name).pw_uid
            except KeyError:
                self._users[name] = int(name) if name.isdigit() else None
        return self._users[name]

    def gid(self, name: str) -> int | None:
        if name not in self._groups:
            try:
                self._groups[name] = grp.getgrnam(name).gr_gid
            except KeyError:
                self._groups[name] = int(name) if name.isdigit() else None
        return self._groups[name]

    @staticmethod
    def user_name(uid: int) -> str:
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)

    @staticmethod
    def group_name(gid: int) -> str:
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def inspect(path: str, *, follow_directory: bool = False, size: int | None = None) -> Current:
    """What is at a path. The content is only read where it could be as wanted: when a size
    is given and the file has it."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Current()
    through_link = False
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        if not (follow_directory and os.path.isdir(path)):
            return Current("link", status.st_uid, status.st_gid, target=target)
        if status.st_uid not in (0, os.geteuid()):
            raise Faults([f"{path}: a link that belongs to {Accounts.user_name(status.st_uid)}"])
        status = os.stat(path)
        through_link = True
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Current("directory", status.st_uid, status.st_gid, mode, through_link=through_link)
    if not stat.S_ISREG(status.st_mode):
        return Current("other", status.st_uid, status.st_gid, mode)
    digest = file_sha256(path) if size == status.st_size else ""
    return Current("file", status.st_uid, status.st_gid, mode, status.st_size, digest)


def _is_wanted(spec: FileSpec, current: Current, uid: int | None, gid: int | None) -> bool:
    if spec.state == "absent":
        return current.kind == "absent"
    if spec.state == "link":
        return current.kind == "link" and current.target == spec.target
    attributes = (current.uid, current.gid, current.mode) == (uid, gid, spec.mode)
    if spec.state == "directory":
        return current.kind == "directory" and attributes
    return current.kind == "file" and current.sha256 == spec.sha256 and attributes


def _impossible(spec: FileSpec, current: Current) -> str | None:
    if current.kind == "directory" and spec.state in ("file", "link"):
        return f"{spec.path}: is a directory, which is not replaced by a {spec.state}"
    if current.kind in ("file", "link", "other") and spec.state == "directory":
        return f"{spec.path}: is a {current.kind}, which is not replaced by a directory"
    if current.kind == "other" and spec.state in ("file", "link"):
        return f"{spec.path}: is neither file nor link nor directory, and is left alone"
    return None


def make_plan(request: Request, accounts: Accounts, *, check: bool) -> Plan:
    """Compares what is with what shall be. Raises Faults for what cannot be done."""
    plan = Plan()
    faults: list[str] = []
    wanted = list(request.files)
    named = {spec.path for spec in request.files}
    for exclusive in request.exclusive:
        try:
            names = sorted(os.listdir(exclusive.path))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        for name in names:
            path = os.path.join(exclusive.path, name)
            if path in named or not fnmatch.fnmatchcase(name, exclusive.pattern):
                continue
            if name.startswith(STAGE_PREFIX) or inspect(path).kind == "directory":
                continue
            named.add(path)
            wanted.append(FileSpec(path=path, state="absent", diff=True))
    for spec in wanted:
        uid: int | None = None
        gid: int | None = None
        if spec.state in ("file", "directory"):
            uid, gid = accounts.uid(spec.owner), accounts.gid(spec.group)
        try:
            current = inspect(
                spec.path,
                follow_directory=spec.state == "directory",
                size=spec.size if spec.state == "file" else None,
            )
        except Faults as error:
            faults.extend(error.faults)
            continue
        if not spec.replace and current.kind != "absent":
            continue
        if uid is None and spec.state in ("file", "directory") and not check:
            faults.append(f"{spec.path}: owner {spec.owner!r} is not a user of this host")
        if gid is None and spec.state in ("file", "directory") and not check:
            faults.append(f"{spec.path}: group {spec.group!r} is not a group of this host")
        impossible = _impossible(spec, current)
        if impossible:
            faults.append(impossible)
            continue
        if _is_wanted(spec, current, uid, gid):
            continue
        new_content = spec.state == "file" and (
            current.kind != "file" or current.sha256 != spec.sha256
        )
        if new_content and not spec.carries_content and not spec.transferred:
            plan.needs.append(spec.path)
        plan.changes.append(Change(spec, current, uid, gid, new_content))
    if faults:
        raise Faults(faults)
    return plan


# --- diffs ---------------------------------------------------------------------------


def _attributes(kind: str, owner: str, group: str, mode: int, target: str = "") -> dict[str, str]:
    values = {"state": kind}
    if kind == "link":
        values["target"] = target
    elif kind != "absent":
        values.update({"owner": owner, "group": group, "mode": f"{mode:04o}"})
    return values


def describe(change: Change, read_old: Callable[[str], bytes]) -> list[dict[str, Any]]:
    """The diffs of one change."""
    spec, current = change.spec, change.current
    found: list[dict[str, Any]] = []
    if not spec.diff:
        return found
    if change.new_content:
        old: bytes | None = None
        if current.kind == "file":
            old = read_old(spec.path) if current.size <= DIFF_LIMIT else b" " * (DIFF_LIMIT + 1)
        if spec.secret:
            found.append(hidden_diff(spec.path, current.kind == "file"))
        elif spec.carries_content:
            found.append(content_diff(spec.path, old, spec.content()))
        else:
            found.append({"prepared": f"{spec.path}: content differs (too large to show)\n"})
    before = _attributes(
        current.kind,
        Accounts.user_name(current.uid),
        Accounts.group_name(current.gid),
        current.mode,
        current.target,
    )
    after = _attributes(spec.state, spec.owner, spec.group, spec.mode, spec.target)
    if change.uid is not None and change.uid == current.uid:
        after["owner"] = before.get("owner", spec.owner)
    if change.gid is not None and change.gid == current.gid:
        after["group"] = before.get("group", spec.group)
    if current.kind == "absent" and after == _attributes("file", "root", "root", 0o644):
        return found  # New, and as files usually are: its content says it all.
    attributes = attribute_diff(spec.path, before, after)
    if attributes:
        found.append(attributes)
    return found


# --- staging -------------------------------------------------------------------------


def _existing_ancestor(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _sync_directory(path: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _give(descriptor: int, uid: int | None, gid: int | None, mode: int) -> None:
    """Owner first: the kernel drops set-id bits when a file changes hands."""
    status = os.fstat(descriptor)
    if (uid is not None and uid != status.st_uid) or (gid is not None and gid != status.st_gid):
        os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    os.fchmod(descriptor, mode)


class Stage:
    """Private rooms for new files, on the same file system as the place they go to."""

    def __init__(self, state_directory: str) -> None:
        self.base = os.path.join(state_directory, "stage")
        self._rooms: dict[int, str] = {}
        self._count = 0

    def open(self) -> None:
        os.makedirs(os.path.dirname(self.base), mode=0o755, exist_ok=True)
        # Whatever is in here belongs to a run that died: we hold the lock.
        shutil.rmtree(self.base, ignore_errors=True)
        # Validators that drop their privileges may pass, nobody may list.
        os.mkdir(self.base, 0o711)
        os.chmod(self.base, 0o711)
        self._rooms[os.stat(self.base).st_dev] = self.base

    def close(self) -> None:
        for room in self._rooms.values():
            shutil.rmtree(room, ignore_errors=True)
        self._rooms.clear()

    def _room(self, directory: str) -> str:
        ancestor = _existing_ancestor(directory)
        device = os.stat(ancestor).st_dev
        if device not in self._rooms:
            for name in os.listdir(ancestor):
                if name.startswith(STAGE_PREFIX):
                    shutil.rmtree(os.path.join(ancestor, name), ignore_errors=True)
            room = os.path.join(ancestor, STAGE_PREFIX + entropy.token_hex(6))
            os.mkdir(room, 0o711)
            os.chmod(room, 0o711)
            self._rooms[device] = room
        return self._rooms[device]

    def place_for(self, path: str) -> str:
        """An empty directory of its own, so that the file keeps its name: some validators
        judge by it."""
        self._count += 1
        directory = os.path.join(self._room(os.path.dirname(path)), f"{self._count}")
        os.mkdir(directory, 0o711)
        os.chmod(directory, 0o711)
        return os.path.join(directory, os.path.basename(path))

    def directory_for(self, path: str) -> str:
        """Like place_for, always beside the state directory (for copies of trees)."""
        self._count += 1
        directory = os.path.join(self.base, f"{self._count}")
        os.mkdir(directory, 0o700)
        return os.path.join(directory, os.path.basename(path) or "root")


def _write_new(path: str, change: Change, *, sync: bool = True) -> None:
    """A new file with the content and attributes of a change; it must not exist."""
    spec = change.spec
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with open(descriptor, "wb") as handle:
        if spec.transferred:
            digest = hashlib.sha256()
            with open(spec.transferred, "rb") as source:
                for block in iter(lambda: source.read(1 << 20), b""):
                    digest.update(block)
                    handle.write(block)
            if digest.hexdigest() != spec.sha256:
                raise Faults([f"{spec.path}: arrived with another checksum than it left with"])
        else:
            handle.write(spec.content())
        handle.flush()
        _give(handle.fileno(), change.uid, change.gid, spec.mode)
        if sync:
            os.fsync(handle.fileno())


def _set_attributes(path: str, change: Change) -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC
    if not change.current.through_link:
        flags |= os.O_NOFOLLOW
    if change.spec.state == "directory":
        flags |= os.O_DIRECTORY
    descriptor = os.open(path, flags)
    try:
        _give(descriptor, change.uid, change.gid, change.spec.mode)
    finally:
        os.close(descriptor)


def _make_parents(path: str, made: set[str] | None = None) -> None:
    """Missing parent directories, 0755 root whatever the umask is."""
    missing = []
    parent = os.path.dirname(path)
    while not os.path.isdir(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)
    for directory in reversed(missing):
        os.mkdir(directory, 0o755)
        os.chmod(directory, 0o755)
        if made is not None:
            made.add(directory)


# --- validation ----------------------------------------------------------------------


@dataclass
class Verdict:
    code: int | None
    words: str


def _program(argv: list[str]) -> str | None:
    return shutil.which(argv[0], path=SEARCH_PATH)


def _enter_namespace(mounts: list[tuple[str, str]]) -> Callable[[], None]:
    """For a child process: a mount namespace in which staged trees stand at real paths.

    Called between fork and exec; the C library is loaded before.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    prepared = [(os.fsencode(staged), os.fsencode(real)) for staged, real in mounts]

    def enter() -> None:
        call("unshare", _CLONE_NEWNS)
        # Nothing that is mounted in here may show outside.
        call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
        for staged, real in prepared:
            call("mount", staged, real, None, ctypes.c_ulong(_MS_BIND), None)

    return enter


def run_validator(argv: list[str], mounts: list[tuple[str, str]] | None = None) -> Verdict:
    environment = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VALIDATOR_SECONDS,
            cwd="/",
            env=environment,
            preexec_fn=_enter_namespace(mounts) if mounts else None,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Verdict(None, (late.output or b"").decode("utf-8", "replace"))
    except subprocess.SubprocessError:
        return Verdict(
            126,
            "a private mount namespace could not be made (is the module run as root, with the "
            "capability to mount?)",
        )
    except OSError as error:
        return Verdict(127, str(error))
    return Verdict(done.returncode, done.stdout.decode("utf-8", "replace"))


def _under(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def _copy_tree(source: str, destination: str) -> None:
    """A copy with owners, modes, links and extended attributes; sockets are left out."""
    total = 0

    def attributes(old: str, new: str) -> None:
        status = os.lstat(old)
        os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
        shutil.copystat(old, new, follow_symlinks=False)

    os.mkdir(destination, 0o700)
    for directory, names, files in os.walk(source):
        relative = os.path.relpath(directory, source)
        there = os.path.normpath(os.path.join(destination, relative))
        for name in list(names):
            old, new = os.path.join(directory, name), os.path.join(there, name)
            if os.path.islink(old):
                files.append(name)
                names.remove(name)
            elif name.startswith(STAGE_PREFIX):
                names.remove(name)
            else:
                os.mkdir(new, 0o700)
        for name in files:
            old, new = os.path.join(directory, name), os.path.join(there, name)
            status = os.lstat(old)
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(old), new)
            elif stat.S_ISREG(status.st_mode):
                total += status.st_size
                if total > TREE_LIMIT_BYTES:
                    raise Faults([f"{source}: too large to be staged for its validator"])
                shutil.copyfile(old, new, follow_symlinks=False)
            else:
                continue
            attributes(old, new)
    # Directories last, deepest first: what was written in them would change their times.
    for directory, _names, _files in os.walk(source, topdown=False):
        there = os.path.normpath(os.path.join(destination, os.path.relpath(directory, source)))
        if os.path.isdir(there):
            attributes(directory, there)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _apply_to_copy(change: Change, path: str) -> None:
    """Makes a change in a staged copy of a tree, with owners and modes."""
    spec = change.spec
    if spec.state == "absent":
        _remove(path)
        return
    _make_parents(path)
    if spec.state == "directory":
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
        _set_attributes(path, change)
    elif spec.state == "link":
        _remove(path)
        os.symlink(spec.target, path)
    elif change.new_content:
        _remove(path)
        _write_new(path, change, sync=False)
    else:
        _set_attributes(path, change)


def _in_order(changes: list[Change]) -> list[Change]:
    """Directories before what is in them, links after what they point to, removals last."""
    rank = {"directory": 0, "file": 1, "link": 2, "absent": 3}
    return sorted(changes, key=lambda item: (rank[item.spec.state], item.spec.path))


class Validation:
    """Runs every validator of a request over staged files and trees."""

    def __init__(
        self,
        stage: Stage,
        wanted: list[FileSpec],
        changes: list[Change],
        outcome: Outcome,
        check: bool,
    ) -> None:
        self.stage = stage
        self.wanted = wanted
        self.changes = changes
        self.outcome = outcome
        self.check = check
        self.faults: list[str] = []

    def _argv(self, command: str, about: str) -> list[str] | None:
        try:
            argv = shlex.split(command)
        except ValueError as error:
            self.faults.append(f"{about}: validator {command!r} cannot be read: {error}")
            return None
        if not argv:
            self.faults.append(f"{about}: the validator is empty")
            return None
        program = _program(argv)
        if program is None:
            if self.check:
                self.outcome.notes.append(f"{about}: not validated, {argv[0]} is not there yet")
            else:
                self.faults.append(f"{about}: validator {argv[0]} is not on this host")
            return None
        return [program, *argv[1:]]

    def _refuse(self, message: str) -> None:
        # In check mode a validator sees a host on which earlier tasks changed nothing: it
        # may miss what they would have made. Its words are passed on, the run goes on.
        if self.check:
            self.outcome.warnings.append(f"in check mode only: {message}")
        else:
            self.faults.append(message)

    def _complain(
        self,
        argv: list[str],
        about: str,
        verdict: Verdict,
        specs: list[FileSpec],
        renames: dict[str, str],
    ) -> None:
        """Turns a validator's words into a fault, without what is secret in these files."""
        contents: dict[str, bytes | None] = {}
        hidden: set[str] = set()
        words = verdict.words
        for spec in specs:
            if spec.state != "file":
                continue
            if spec.secret:
                contents[spec.path] = None
                if spec.carries_content:
                    hidden.update(secret_words(spec.content()))
                elif spec.transferred:
                    # Too large to look for its words among the validator's.
                    words = "(not shown: a large secret file is among what it has judged)"
            elif spec.carries_content:
                contents[spec.path] = spec.content()
        self._refuse(
            refusal(
                shlex.join(argv),
                about,
                verdict.code,
                words,
                contents=contents,
                secrets=sorted(hidden, key=lambda word: (-len(word), word)),
                renames=renames,
            )
        )

    def files(self) -> None:
        for change in self.changes:
            spec = change.spec
            if not spec.validate or not change.new_content:
                continue
            argv = self._argv(spec.validate, spec.path)
            if argv is None:
                continue
            argv = [part.replace("%s", change.staged) for part in argv]
            verdict = run_validator(argv)
            if verdict.code != 0:
                self._complain(argv, spec.path, verdict, [spec], {change.staged: spec.path})

    def trees(self, trees: list[TreeSpec], made: set[str]) -> None:
        touched = [
            change
            for change in self.changes
            if any(_under(change.spec.path, tree.path) for tree in trees)
        ]
        if not touched or not any(tree.validate for tree in trees):
            return
        commands: list[tuple[TreeSpec, list[str]]] = []
        for tree in trees:
            if tree.validate:
                argv = self._argv(tree.validate, tree.path)
                if argv is not None:
                    commands.append((tree, [part.replace("%s", tree.path) for part in argv]))
        if not commands:
            return
        mounts: list[tuple[str, str]] = []
        renames: dict[str, str] = {}
        for tree in sorted(trees, key=lambda item: item.path.count("/")):
            if not os.path.isdir(tree.path):
                if self.check:
                    self.outcome.notes.append(f"{tree.path}: not validated, it is not there yet")
                    return
                # An empty directory harms nobody, and the copy needs a place to stand.
                _make_parents(os.path.join(tree.path, "x"), made)
            copy = self.stage.directory_for(tree.path)
            _copy_tree(tree.path, copy)
            for change in _in_order(touched):
                if _under(change.spec.path, tree.path):
                    relative = os.path.relpath(change.spec.path, tree.path)
                    _apply_to_copy(change, os.path.normpath(os.path.join(copy, relative)))
            mounts.append((copy, tree.path))
            renames[copy] = tree.path
        for tree, argv in commands:
            verdict = run_validator(argv, mounts)
            if verdict.code != 0:
                self._complain(argv, f"the new {tree.path}", verdict, self.wanted, renames)


# --- the marker ----------------------------------------------------------------------


def marker_path(state_directory: str, name: str) -> str:
    return os.path.join(state_directory, "pending", name)


def read_marker(state_directory: str, name: str) -> dict[str, list[str]] | None:
    """What an unfinished run had changed, or None when there is no marker."""
    try:
        with open(marker_path(state_directory, name), encoding="utf-8") as handle:
            values = json.load(handle)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        values = {}
    if not isinstance(values, dict):
        values = {}
    return {key: [str(item) for item in values.get(key) or []] for key in ("files", "labels")}


def _by_marker(changes: Sequence[Change], default: str) -> dict[str, list[Change]]:
    """The changes that each marker is to name."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        name = change.spec.pending or default
        if name:
            found.setdefault(name, []).append(change)
    return found


def write_marker(state_directory: str, name: str, files: list[str], labels: list[str]) -> None:
    path = marker_path(state_directory, name)
    _make_parents(path)
    new = os.path.join(os.path.dirname(path), f".{name}.{entropy.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as handle:
        json.dump({"files": files, "labels": labels}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(new, path)
    _sync_directory(os.path.dirname(path))


# --- the run -------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(state_directory: str, seconds: float | None = None) -> Iterator[None]:
    """One run at a time, so that what lies in the stage is surely left over."""
    patience = LOCK_SECONDS if seconds is None else seconds
    os.makedirs(state_directory, mode=0o755, exist_ok=True)
    path = os.path.join(state_directory, "files.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Faults(
                        [f"another run has been changing files for {patience} s ({path})"]
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _union(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _read_old(path: str) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(DIFF_LIMIT + 1)


def _back_up(path: str) -> str:
    """Another name for the old file: no time at which there is neither, no second copy."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    backup = f"{path}.{stamp}~"
    number = 1
    while os.path.lexists(backup):
        backup = f"{path}.{stamp}.{number}~"
        number += 1
    try:
        os.link(path, backup, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, backup)
        status = os.lstat(path)
        os.chown(backup, status.st_uid, status.st_gid)
    return backup


def _move_into_place(staged: str, path: str, change: Change) -> None:
    try:
        os.rename(staged, path)
    except OSError as error:
        if error.errno == errno.EXDEV:
            # The parent was only just made, or is a mount of its own: stage it there.
            near = os.path.join(os.path.dirname(path), STAGE_PREFIX + entropy.token_hex(6))
            try:
                _write_new(near, change)
                os.rename(near, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(near)
        elif error.errno == errno.EBUSY and change.current.kind == "file":
            # A file that is itself a mount point (as /etc/hosts in a container) cannot be
            # renamed over; writing into it is all there is.
            with open(path, "r+b") as handle, open(staged, "rb") as source:
                shutil.copyfileobj(source, handle)
                handle.truncate()
                handle.flush()
                _give(handle.fileno(), change.uid, change.gid, change.spec.mode)
                os.fsync(handle.fileno())
        else:
            raise


def _replace(change: Change, stage: Stage, outcome: Outcome, directories: set[str]) -> None:
    spec = change.spec
    made: set[str] = set()
    if spec.state != "absent":
        _make_parents(spec.path, made)
    directories.add(os.path.dirname(spec.path))
    directories.update(os.path.dirname(path) for path in made)
    if (
        spec.backup
        and change.current.kind == "file"
        and (change.new_content or spec.state in ("absent", "link"))
    ):
        outcome.backups[spec.path] = _back_up(spec.path)
    if spec.state == "absent":
        if change.current.kind == "directory":
            # Gone at once for everyone who looks, whatever happens while it is emptied.
            grave = stage.place_for(spec.path)
            try:
                os.rename(spec.path, grave)
            except OSError:
                grave = spec.path
            shutil.rmtree(grave)
        else:
            os.unlink(spec.path)
    elif spec.state == "directory":
        if change.current.kind == "absent" and not os.path.isdir(spec.path):
            os.mkdir(spec.path, 0o700)
        _set_attributes(spec.path, change)
    elif spec.state == "link":
        staged = stage.place_for(spec.path)
        os.symlink(spec.target, staged)
        try:
            os.rename(staged, spec.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            near = os.path.join(os.path.dirname(spec.path), STAGE_PREFIX + entropy.token_hex(6))
            os.symlink(spec.target, near)
            os.rename(near, spec.path)
    elif change.new_content:
        _move_into_place(change.staged, spec.path, change)
    else:
        _set_attributes(spec.path, change)


def _stage_and_validate(
    request: Request, plan: Plan, stage: Stage, outcome: Outcome, made: set[str], check: bool
) -> None:
    validates = any(c.spec.validate for c in plan.changes) or any(t.validate for t in request.trees)
    if check and not validates:
        return
    for change in plan.changes:
        if change.new_content and not (check and not change.spec.carries_content):
            change.staged = stage.place_for(change.spec.path)
            _write_new(change.staged, change, sync=not check)
    changes = [c for c in plan.changes if not c.new_content or c.staged]
    validation = Validation(stage, request.files, changes, outcome, check)
    validation.files()
    validation.trees(request.trees, made)
    if validation.faults:
        raise Faults(validation.faults)


def run(
    request: Request,
    *,
    check: bool = False,
    want_diff: bool = False,
    state_directory: str = STATE_DIRECTORY,
    interrupt: Callable[[str], None] | None = None,
) -> Outcome:
    """Does what the request says. Raises Faults, and then nothing was replaced.

    C(interrupt) is called with the name of each step: tests break a run there.
    """
    reached = interrupt or (lambda step: None)
    accounts = Accounts()
    outcome = Outcome()
    marker = read_marker(state_directory, request.pending) if request.pending else None
    plan = make_plan(request, accounts, check=check)
    if plan.changes and plan.needs and not check:
        outcome.needs = plan.needs
        return outcome
    if not check and not plan.changes:
        _sweep(state_directory)
    if plan.changes and check:
        _predict(request, plan, outcome, state_directory)
    elif plan.changes:
        with _locked(state_directory):
            # Somebody else may have been at work before the lock was ours.
            plan = make_plan(request, accounts, check=False)
            if plan.needs:
                outcome.needs = plan.needs
                return outcome
            if request.pending:
                marker = read_marker(state_directory, request.pending)
            stage = Stage(state_directory)
            stage.open()
            made: set[str] = set()
            try:
                reached("staging")
                _stage_and_validate(request, plan, stage, outcome, made, check=False)
                if want_diff:
                    for change in plan.changes:
                        outcome.diff.extend(describe(change, _read_old))
                reached("validated")
                for name, changes in _by_marker(plan.changes, request.pending).items():
                    before = read_marker(state_directory, name) or {"files": [], "labels": []}
                    paths = [change.spec.path for change in changes]
                    labels = [c.spec.label for c in changes if c.spec.label]
                    write_marker(
                        state_directory,
                        name,
                        _union(before["files"], paths),
                        _union(before["labels"], labels),
                    )
                reached("marked")
                directories: set[str] = set()
                for change in _in_order(plan.changes):
                    _replace(change, stage, outcome, directories)
                    reached(f"replaced {change.spec.path}")
                for directory in directories:
                    _sync_directory(directory)
            except BaseException:
                # Directories that were only made for a validator to see go again.
                for directory in sorted(made, reverse=True):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)
                raise
            finally:
                stage.close()
    if want_diff and check:
        for change in plan.changes:
            outcome.diff.extend(describe(change, _read_old))
    outcome.changed_files = [change.spec.path for change in plan.changes]
    outcome.changed_labels = _union([c.spec.label for c in plan.changes if c.spec.label], [])
    if marker is not None:
        outcome.pending = True
        outcome.changed_files = _union(marker["files"], outcome.changed_files)
        outcome.changed_labels = _union(marker["labels"], outcome.changed_labels)
    outcome.changed = bool(plan.changes) or outcome.pending
    return outcome


def _sweep(state_directory: str) -> None:
    """Takes away what a run that died has left in the stage; there may be secrets in it."""
    stage = os.path.join(state_directory, "stage")
    if os.path.isdir(stage) and os.access(stage, os.W_OK):
        # Whoever holds the lock sweeps for itself.
        with contextlib.suppress(Faults), _locked(state_directory, 0):
            shutil.rmtree(stage, ignore_errors=True)


def _predict(request: Request, plan: Plan, outcome: Outcome, state_directory: str) -> None:
    """Check mode: what validators would say, as far as that can be known now."""
    if not any(c.spec.validate for c in plan.changes) and not request.trees:
        return
    if any(None in (c.uid, c.gid) for c in plan.changes if c.spec.state in ("file", "directory")):
        outcome.notes.append("not validated: an owner or group is not there yet")
        return
    if not os.access(os.path.dirname(state_directory) or "/", os.W_OK):
        outcome.notes.append("not validated: nothing can be staged on this host")
        return
    existed = os.path.isdir(state_directory)
    with _locked(state_directory):
        stage = Stage(state_directory)
        stage.open()
        try:
            _stage_and_validate(request, plan, stage, outcome, set(), check=True)
        finally:
            stage.close()
    if not existed:
        # Check mode leaves nothing behind.
        shutil.rmtree(state_directory, ignore_errors=True)
