# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is backed up and where to, in restic's words, checked before anything is written.

Options: https://restic.readthedocs.io/en/stable/manual_rest.html
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = ("posix", "s3")
SECRETS = "/etc/berth/file-backup"
_KEPT = {
    "retention_days": ("--keep-within", "d"),
    "retention_weeks": ("--keep-weekly", ""),
    "retention_months": ("--keep-monthly", ""),
}
_DEFAULT_DAYS = 7
# restic groups packs by the first byte of their names.
MAX_PARTS = 256
_COMMON = ("name", "type", "path", "password", *_KEPT)
_S3 = ("endpoint", "port", "bucket", "region", "uri_style", "ca_file", "access_key", "secret_key")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
# What would make a path a pattern.
_PATTERN = re.compile(r"[*?\[\\]")
# Made by the kernel: reading them never ends well.
_KERNELS = ("/dev", "/proc", "/sys")


class LayoutError(ValueError):
    """Paths or repositories that would fail, or back up something else than was meant."""


@dataclass(frozen=True)
class Repository:
    """One repository: what anybody may know of it, and its files with secrets."""

    name: str
    type: str
    path: str
    public: Mapping[str, Any]
    files: Sequence[Mapping[str, str]]


def _absolute(path: str) -> bool:
    return path.startswith("/") and posixpath.normpath(path) == (path.rstrip("/") or "/")


def inside(path: str, directory: str) -> bool:
    """Whether a path is a directory or in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _secret_faults(where: str, given: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    faults = []
    for name in names:
        value = str(given.get(name) or "")
        if not value:
            faults.append(f"{where}: {name} is missing")
        elif value != value.strip() or "\n" in value:
            faults.append(f"{where}: {name} has a line break or blanks at its ends")
    return faults


def _keep(where: str, given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Options of `restic forget`, and what is wrong with them."""
    options: list[str] = []
    faults = []
    for key, (option, unit) in _KEPT.items():
        value = given.get(key, _DEFAULT_DAYS if key == "retention_days" else 0)
        least = 1 if key == "retention_days" else 0
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 9999:
            faults.append(f"{where}: {key} is {value!r}; give a number from {least}")
        elif value:
            options.append(f"{option}={value}{unit}")
    return options, faults


def _s3(where: str, given: Mapping[str, Any], path: str) -> tuple[str, list[str], list[str]]:
    """URL and options of a repository in a bucket, and what is wrong with it."""
    faults = [
        f"{where}: {needed} is missing"
        for needed in ("endpoint", "bucket", "access_key")
        if not given.get(needed)
    ]
    faults += _secret_faults(where, given, ["secret_key"])
    endpoint = str(given.get("endpoint") or "")
    if "/" in endpoint:
        faults.append(f"{where}: endpoint is {endpoint!r}; give a host name, without https://")
    bucket = str(given.get("bucket") or "")
    if bucket and not _BUCKET.match(bucket):
        faults.append(f"{where}: bucket is {bucket!r}, which no S3 server accepts")
    port = given.get("port", 443)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        faults.append(f"{where}: port is {port!r}; give a number from 1 to 65535")
    style = given.get("uri_style", "path")
    if style not in ("path", "host"):
        faults.append(f"{where}: uri_style is {style!r}; give path or host")
    options = [f"--option=s3.region={given.get('region') or 'us-east-1'}"]
    options.append(f"--option=s3.bucket-lookup={'path' if style == 'path' else 'dns'}")
    ca_file = str(given.get("ca_file") or "")
    if ca_file:
        if not _absolute(ca_file):
            faults.append(f"{where}: ca_file is {ca_file!r}; give an absolute path on the host")
        options.append(f"--cacert={ca_file}")
    place = f"{endpoint}:{port}" if port != 443 else endpoint
    return f"s3:https://{place}/{bucket}{path if path != '/' else ''}", options, faults


def repository(number: int, entry: Mapping[str, Any]) -> tuple[Repository, list[str]]:
    """A repository and what is wrong with it."""
    faults: list[str] = []
    # What is not given in a role's variables may be there as null.
    given = {name: value for name, value in entry.items() if value is not None}
    kind = str(given.get("type") or "posix")
    name = str(given.get("name") or f"repo{number}")
    where = f"repository {name}"
    known = _COMMON + (_S3 if kind == "s3" else ())
    for unknown in sorted(set(given) - set(known)):
        if unknown in _S3:
            faults.append(f"{where}: {unknown} goes with type s3 only")
        else:
            faults.append(f"{where}: unknown key {unknown!r}; known are {', '.join(known)}")
    if kind not in TYPES:
        faults.append(f"{where}: type is {kind!r}; give one of {', '.join(TYPES)}")
    if not _NAME.match(name):
        faults.append(f"{where}: the name may have letters, digits, dots, dashes, underscores")
    path = str(given.get("path") or ("/restic" if kind == "s3" else "/var/lib/restic"))
    if not _absolute(path) or (path == "/" and kind == "posix") or _PATTERN.search(path):
        faults.append(f"{where}: path is {path!r}; give an absolute one without wildcards")
    path = path.rstrip("/") or "/"
    faults += _secret_faults(where, given, ["password"])
    keep, wrong = _keep(where, given)
    faults += wrong

    secrets = f"{SECRETS}/{name}"
    files = [{"path": f"{secrets}.password", "content": f"{given.get('password', '')}\n"}]
    url, keys_file = path, ""
    options: list[str] = []
    if kind == "s3":
        url, options, wrong = _s3(where, given, path)
        faults += wrong
        keys_file = f"{secrets}.keys"
        keys = {key: str(given.get(key, "")) for key in ("access_key", "secret_key")}
        files.append({"path": keys_file, "content": json.dumps(keys) + "\n"})
    public = {
        "name": name,
        "url": url,
        "options": options,
        "password_file": f"{secrets}.password",
        "keys_file": keys_file,
        "keep": keep,
    }
    return Repository(name, kind, path, public, files), faults


def _path_faults(paths: Sequence[str]) -> list[str]:
    faults = []
    if not paths:
        faults.append("there is no path to back up: give at least one")
    for path in paths:
        if not _absolute(path):
            faults.append(f"path {path!r} is not absolute, or has '..' or '//' in it")
        elif any(inside(path, one) for one in _KERNELS):
            faults.append(f"path {path} is the kernel's, and no files; leave it out")
    for path in sorted({path for path in paths if list(paths).count(path) > 1}):
        faults.append(f"path {path} is listed twice")
    return faults


def layout(
    paths: Sequence[str],
    excludes: Sequence[str],
    repositories: Sequence[Mapping[str, Any]],
    own: Sequence[str],
    *,
    check_parts: int = 1,
    check_repositories: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything in its form; every fault is named at once.

    What the backups themselves write (repositories, and the directories *own*) is excluded where
    it lies in the paths.
    """
    paths = [path.rstrip("/") or "/" for path in paths]
    faults = _path_faults(paths)
    faults += [
        f"exclude {pattern!r} is empty or has a line break"
        for pattern in excludes
        if not pattern.strip() or "\n" in pattern
    ]
    if not repositories:
        faults.append("there is no repository: give at least one")
    found: list[Repository] = []
    places: dict[str, str] = {}
    for number, entry in enumerate(repositories):
        one, wrong = repository(number + 1, entry)
        faults += wrong
        if one.name in {other.name for other in found}:
            faults.append(f"repository {one.name} is listed twice")
        url = one.public["url"]
        if url in places:
            faults.append(f"repositories {places[url]} and {one.name} share one place")
        places[url] = one.name
        if one.type == "posix":
            faults += [
                f"path {path} is in the repository {one.name} ({one.path}) itself"
                for path in paths
                if inside(path, one.path)
            ]
        found.append(one)
    names = [one.name for one in found]
    faults += [
        f"the restore check names {name!r}, which is no repository; there are {', '.join(names)}"
        for name in check_repositories
        if name not in names
    ]
    if not 1 <= check_parts <= MAX_PARTS:
        faults.append(f"check_parts is {check_parts}; give a number from 1 to {MAX_PARTS}")
    faults += [
        f"{directory!r} is no absolute path without wildcards"
        for directory in own
        if not _absolute(directory) or _PATTERN.search(directory)
    ]
    if faults:
        raise LayoutError("; ".join(faults))
    local = [one.path for one in found if one.type == "posix"]
    ours = [one for one in [*local, *own] if any(inside(one, path) for path in paths)]
    return {
        "paths": paths,
        "excludes": [*excludes, *ours],
        "repositories": [dict(one.public) for one in found],
        "files": [{**file, "mode": "0600", "secret": True} for one in found for file in one.files],
    }
