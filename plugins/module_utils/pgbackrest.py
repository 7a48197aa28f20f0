# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup repositories as pgBackRest's options, checked before anything is written.

Options: https://pgbackrest.org/configuration.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = ("posix", "s3")
_COMMON = (
    "name",
    "type",
    "path",
    "cipher_pass",
    "retention_full",
    "retention_full_type",
    "retention_diff",
)
_S3 = (
    "endpoint",
    "port",
    "bucket",
    "region",
    "uri_style",
    "ca_file",
    "verify_tls",
    "access_key",
    "secret_key",
)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
# What a key of ours is called there.
_SPELT = {
    "endpoint": "s3-endpoint",
    "bucket": "s3-bucket",
    "region": "s3-region",
    "uri_style": "s3-uri-style",
    "access_key": "s3-key",
    "secret_key": "s3-key-secret",
    "port": "storage-port",
    "ca_file": "storage-ca-file",
    "verify_tls": "storage-verify-tls",
}
MAX_REPOSITORIES = 256


class RepositoryError(ValueError):
    """Repositories that pgBackRest would refuse, or that would share one place."""


@dataclass(frozen=True)
class Repository:
    """One repository: its number, the name people use, and its options."""

    key: int
    name: str
    type: str
    path: str
    options: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For a template."""
        return {
            "key": self.key,
            "name": self.name,
            "options": dict(self.options),
            # Fit for a file that anybody may read.
            "public": {
                "key": self.key,
                "name": self.name,
                "path": self.path if self.type == "posix" else "",
            },
        }


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return "y" if value else "n"
    return str(value)


def repository(key: int, entry: Mapping[str, Any]) -> tuple[Repository, list[str]]:
    """A repository and what is wrong with it."""
    faults: list[str] = []
    # What is not given in a role's variables may be there as null.
    given = {name: value for name, value in entry.items() if value is not None}
    kind = str(given.get("type") or "posix")
    name = str(given.get("name") or f"repo{key}")
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
    path = str(given.get("path") or ("/pgbackrest" if kind == "s3" else "/var/lib/pgbackrest"))
    if not path.startswith("/") or "//" in path or (path == "/" and kind == "posix"):
        faults.append(f"{where}: path is {path!r}; give an absolute one")
    path = path.rstrip("/") or "/"

    options = {"type": kind, "path": path, "bundle": "y"}
    if kind == "s3":
        for needed in ("endpoint", "bucket", "access_key", "secret_key"):
            if not given.get(needed):
                faults.append(f"{where}: {needed} is missing")
        if "://" in str(given.get("endpoint", "")):
            faults.append(f"{where}: endpoint is a host name, without https://")
        style = given.get("uri_style", "path")
        if style not in ("path", "host"):
            faults.append(f"{where}: uri_style is {style!r}; give path or host")
        defaults = {"region": "us-east-1", "uri_style": "path"}
        for ours, theirs in _SPELT.items():
            value = given.get(ours, defaults.get(ours))
            if value not in (None, ""):
                options[theirs] = _spell(value)
    if given.get("cipher_pass"):
        options |= {"cipher-type": "aes-256-cbc", "cipher-pass": str(given["cipher_pass"])}

    retention = given.get("retention_full_type", "time")
    if retention not in ("time", "count"):
        faults.append(f"{where}: retention_full_type is {retention!r}; give time or count")
    options["retention-full-type"] = str(retention)
    for ours in ("retention_full", "retention_diff"):
        default = 30 if ours == "retention_full" else None
        value = given.get(ours, default)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 9999999:
            faults.append(f"{where}: {ours} is {value!r}; give a number from 1")
        options[ours.replace("_", "-")] = str(value)
    for option, value in options.items():
        if "\n" in value or value != value.strip():
            faults.append(f"{where}: {option} has a line break or blanks at its ends")
    return Repository(key, name, kind, path, options), faults


def repositories(entries: Sequence[Mapping[str, Any]]) -> list[Repository]:
    """All of them in their order; every fault is named at once."""
    found: list[Repository] = []
    faults: list[str] = []
    if not entries:
        faults.append("there is no repository: give at least one")
    if len(entries) > MAX_REPOSITORIES:
        faults.append(f"{len(entries)} repositories are more than {MAX_REPOSITORIES}")
    places: dict[tuple[str, ...], str] = {}
    for number, entry in enumerate(entries):
        one, wrong = repository(number + 1, entry)
        faults += wrong
        if one.name in {other.name for other in found}:
            faults.append(f"repository {one.name} is listed twice")
        options = one.options
        place = (one.type, options.get("s3-endpoint", ""), options.get("s3-bucket", ""), one.path)
        if place in places:
            faults.append(f"repositories {places[place]} and {one.name} share one place")
        places[place] = one.name
        found.append(one)
    if faults:
        raise RepositoryError("; ".join(faults))
    return found
