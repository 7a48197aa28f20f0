# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Artifacts of releases: packed the same way every time, unpacked without trusting them.

Packing happens on the controller, unpacking on the host; standard library only.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

DEFAULT_EXCLUDE = (".git", "__pycache__", "*.pyc")

_CHUNK = 1024 * 1024


class ArchiveError(Exception):
    """An artifact that cannot be packed, or that must not be unpacked."""


# ---------------------------------------------------------------- packing


def entries(directory: str, exclude: Sequence[str] = DEFAULT_EXCLUDE) -> Iterator[tuple[str, str]]:
    """(relative path, path) of everything below a directory, in a fixed order."""
    yield from _walk(directory, "", exclude)


def _walk(directory: str, prefix: str, exclude: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(os.listdir(directory)):
        relative = f"{prefix}{name}"
        if any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(relative, p) for p in exclude):
            continue
        path = os.path.join(directory, name)
        yield relative, path
        if os.path.isdir(path) and not os.path.islink(path):
            yield from _walk(path, f"{relative}/", exclude)


def _write_tar(directory: str, out: IO[bytes], exclude: Sequence[str]) -> None:
    """A tar archive that depends on names, contents and execute bits alone."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for relative, path in entries(directory, exclude):
            status = os.lstat(path)
            member = tarfile.TarInfo(relative)
            member.mode = 0o755
            if stat.S_ISLNK(status.st_mode):
                member.type = tarfile.SYMTYPE
                member.linkname = os.readlink(path)
                _check_link(relative, member.linkname)
                archive.addfile(member)
            elif stat.S_ISDIR(status.st_mode):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif stat.S_ISREG(status.st_mode):
                member.mode = 0o755 if status.st_mode & 0o100 else 0o644
                member.size = status.st_size
                with open(path, "rb") as handle:
                    archive.addfile(member, handle)
            else:
                raise ArchiveError(f"{path} is neither a file nor a directory nor a link")


class _Hash:
    """A file to write to, of which only the hash is kept."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data)


def directory_digest(directory: str, exclude: Sequence[str] = DEFAULT_EXCLUDE) -> str:
    """SHA-256 over names, contents, execute bits and links; not over times and owners."""
    out: Any = _Hash()
    _write_tar(directory, out, exclude)
    return str(out.sha256.hexdigest())


def pack(directory: str, target: str, exclude: Sequence[str] = DEFAULT_EXCLUDE) -> None:
    """The directory as a tar.gz that is the same, byte by byte, for the same content."""
    with (
        open(target, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as out,
    ):
        stream: Any = out
        _write_tar(directory, stream, exclude)


def file_digest(path: str, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm)
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------- unpacking


ARCHIVE_NAMES = (
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".zip",
)


def unpack(
    archive: str, directory: str, *, name: str = "", strip: int = 0, kind: str = "auto"
) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive; any other file is put in as it is.

    What O(kind) C(auto) takes for an archive is told by O(name): a jar or a pex is a zip archive
    too, and must stay one. Refused, before anything is written: absolute names, C(..), devices
    and other special files, links that lead outside. Owners, times and set-user-id bits are not
    taken over: times that a build has fixed would make a web server call a changed file of the
    same length unchanged.
    """
    if kind == "file" or (kind == "auto" and not name.lower().endswith(ARCHIVE_NAMES)):
        target = os.path.join(directory, _checked_name(os.path.basename(name) or "artifact"))
        shutil.copyfile(archive, target)
        os.chmod(target, 0o755)
    elif zipfile.is_zipfile(archive) and not _is_tar(archive):
        _unpack_zip(archive, directory, strip)
    elif _is_tar(archive):
        _unpack_tar(archive, directory, strip)
    else:
        raise ArchiveError("the artifact is neither a tar nor a zip archive")


def _is_tar(path: str) -> bool:
    try:
        with tarfile.open(path, "r:*"):
            return True
    except (tarfile.TarError, EOFError):
        return False


def _checked_name(name: str) -> str:
    """The name as a relative path inside of the release, or an error."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\0" in name or ".." in parts:
        raise ArchiveError(f"the artifact holds {name!r}, which is not a path inside of it")
    return "/".join(parts)


def _stripped(name: str, strip: int) -> str:
    return "/".join(_checked_name(name).split("/")[strip:])


def _check_link(name: str, target: str) -> None:
    """A link must lead to a place inside of the release, and be relative to stay right there."""
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or inside == ".." or inside.startswith("../"):
        raise ArchiveError(f"the artifact holds the link {name!r} to {target!r}, outside of it")


def _place(directory: str, name: str) -> str:
    """Where a member goes; its parents are made, and must be real directories."""
    path = directory
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            raise ArchiveError(f"the artifact holds {name!r} below something that is no directory")
        if not os.path.lexists(path):
            os.mkdir(path, 0o755)
    path = os.path.join(directory, name)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.path.islink(path)):
        os.unlink(path)
    return path


def _make_directory(directory: str, name: str) -> None:
    path = _place(directory, name)
    if not os.path.isdir(path):
        os.mkdir(path, 0o755)


def _make_link(directory: str, name: str, target: str) -> None:
    path = _place(directory, name)
    if os.path.isdir(path):
        raise ArchiveError(f"the artifact holds {name!r} both as a directory and as a link")
    os.symlink(target, path)


def _make_file(directory: str, name: str, source: IO[bytes], executable: bool) -> None:
    path = _place(directory, name)
    if os.path.isdir(path):
        raise ArchiveError(f"the artifact holds {name!r} both as a directory and as a file")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o755 if executable else 0o644), "wb") as out:
        shutil.copyfileobj(source, out, _CHUNK)
        os.fchmod(out.fileno(), 0o755 if executable else 0o644)


def _unpack_tar(path: str, directory: str, strip: int) -> None:
    try:
        with tarfile.open(path, "r:*") as archive:
            members = archive.getmembers()
            for member in members:
                _check_tar_member(member, strip)
            for member in members:
                name = _stripped(member.name, strip)
                if not name:
                    continue
                if member.isdir():
                    _make_directory(directory, name)
                elif member.issym():
                    _make_link(directory, name, member.linkname)
                else:
                    # A hard link is read as the file that it names.
                    source = archive.extractfile(member)
                    if source is None:
                        raise ArchiveError(f"the artifact holds {member.name!r} without content")
                    with source:
                        _make_file(directory, name, source, bool(member.mode & 0o100))
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise ArchiveError(f"the artifact cannot be unpacked: {error}") from error


def _check_tar_member(member: tarfile.TarInfo, strip: int) -> None:
    name = _stripped(member.name, strip)
    if member.issym():
        _check_link(name, member.linkname)
    elif member.islnk():
        _checked_name(member.linkname)
    elif not (member.isdir() or member.isreg()):
        raise ArchiveError(f"the artifact holds {member.name!r}, a device or other special file")


def _unpack_zip(path: str, directory: str, strip: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            links: dict[str, str] = {}
            for info in archive.infolist():
                name = _stripped(info.filename, strip)
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind == stat.S_IFLNK:
                    links[info.filename] = archive.read(info).decode("utf-8")
                    _check_link(name, links[info.filename])
                elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"the artifact holds {info.filename!r}, a special file")
            for info in archive.infolist():
                name = _stripped(info.filename, strip)
                if not name:
                    continue
                if info.filename in links:
                    _make_link(directory, name, links[info.filename])
                elif info.is_dir():
                    _make_directory(directory, name)
                else:
                    with archive.open(info) as source:
                        mode = info.external_attr >> 16
                        _make_file(directory, name, source, bool(mode & 0o100))
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, RuntimeError) as error:
        raise ArchiveError(f"the artifact cannot be unpacked: {error}") from error
