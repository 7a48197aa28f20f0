# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's settings from the host's memory and cores, and how its files spell a value.

Sources of the rules: the server's manual (chapters "Resource Consumption" and "Write Ahead
Log"), and, where the manual names only a range, what pgtune uses for web workloads. For
8 cores and 16 GB they give what a careful administrator writes by hand: 4 GB of shared
buffers, 12 GB of cache assumed, 1 GB for maintenance, 16 MB for a sort.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = "str | int | float | bool"

_GIB = 1024
# A kernel keeps a few per cent of what the machine was sold with.
_KEPT_BY_KERNEL = 0.06
_NAME = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$", re.IGNORECASE)
_STORAGE: dict[str, dict[str, Value]] = {
    "ssd": {"random_page_cost": 1.1, "effective_io_concurrency": 200},
    "hdd": {"random_page_cost": 4.0, "effective_io_concurrency": 2},
}


class SettingsError(ValueError):
    """A value that no server would accept, in words for who wrote it."""


@dataclass(frozen=True)
class Archive:
    """Where finished WAL segments go, and after how many seconds an unfinished one does."""

    command: str
    timeout: int = 60


@dataclass(frozen=True)
class Wish:
    """What the settings are derived from."""

    memory_mb: int
    cores: int
    port: int = 5432
    listen_addresses: Sequence[str] = ("127.0.0.1",)
    max_connections: int = 200
    storage: str = "ssd"
    certificate: str = ""
    archive: Archive | None = None
    overrides: Mapping[str, Value | None] = field(default_factory=dict)


def nominal_memory(memory_mb: int) -> int:
    """The memory the machine was sold with, in MiB.

    A "16 GB" server reports some 15.6 GiB. Up to 6 per cent below a whole number of GiB counts
    as that number; anything else is taken as it is.
    """
    whole = -(-memory_mb // _GIB) * _GIB
    return whole if whole - memory_mb <= whole * _KEPT_BY_KERNEL else memory_mb


def megabytes(value: int) -> str:
    """An amount of memory as PostgreSQL writes it, in the largest unit that keeps it whole."""
    return f"{value // _GIB}GB" if value and value % _GIB == 0 else f"{value}MB"


def _power_of_two(value: int) -> int:
    return 1 << (max(1, value).bit_length() - 1)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def derive(wish: Wish) -> dict[str, Value]:
    """Every setting that Berth writes, in the order of the file, overrides included.

    An override of ``None`` takes a setting out, so that the server's own default holds.
    """
    _check(wish)
    memory = nominal_memory(wish.memory_mb)
    shared = memory // 4
    # A query may sort several times at once: three per connection is what is set aside.
    work = _power_of_two((memory - shared) // (wish.max_connections * 3))
    max_wal = _clamp(memory // 4, _GIB, 4 * _GIB)

    settings: dict[str, Value] = {
        "listen_addresses": ",".join(wish.listen_addresses),
        "port": wish.port,
        "max_connections": wish.max_connections,
        "password_encryption": "scram-sha-256",
    }
    if wish.certificate:
        settings |= {
            "ssl": True,
            "ssl_cert_file": f"{wish.certificate}/fullchain.pem",
            "ssl_key_file": f"{wish.certificate}/privkey.pem",
            "ssl_min_protocol_version": "TLSv1.2",
        }
    settings |= {
        "shared_buffers": megabytes(shared),
        "effective_cache_size": megabytes(memory * 3 // 4),
        "maintenance_work_mem": megabytes(_clamp(memory // 16, 64, 2 * _GIB)),
        "work_mem": megabytes(_clamp(work, 4, 256)),
        "wal_level": "replica",
        "max_wal_size": megabytes(max_wal),
        "min_wal_size": megabytes(max_wal // 4),
        "checkpoint_completion_target": 0.9,
    }
    if wish.archive:
        settings |= {
            "archive_mode": True,
            "archive_command": wish.archive.command,
            "archive_timeout": f"{wish.archive.timeout}s",
        }
    settings |= _STORAGE[wish.storage]
    settings |= {
        "max_worker_processes": max(8, wish.cores),
        "max_parallel_workers": max(2, wish.cores),
        "max_parallel_workers_per_gather": _clamp(wish.cores // 4, 1, 4),
        "logging_collector": True,
        "log_directory": "/var/log/postgresql",
        "log_filename": "postgresql-%Y-%m-%d_%H%M%S.log",
        "log_rotation_age": "1d",
        "log_rotation_size": "100MB",
        "log_min_duration_statement": 1000,
        "log_lock_waits": True,
        "log_statement": "none",
        "autovacuum": True,
        "autovacuum_max_workers": _clamp(wish.cores // 2, 3, 8),
        "autovacuum_naptime": "30s",
    }
    for name, value in wish.overrides.items():
        # The server does not care for the case of a name; two spellings must not be two lines.
        settings.pop(name.lower(), None)
        if value is not None:
            settings[name.lower()] = value
    return settings


def _check(wish: Wish) -> None:
    faults = []
    if wish.memory_mb < 128:
        faults.append(f"memory_mb is {wish.memory_mb}: give at least 128 MiB")
    if wish.cores < 1:
        faults.append(f"cores is {wish.cores}: give at least 1")
    if not 1 <= wish.port <= 65535:
        faults.append(f"port is {wish.port}: give 1 to 65535")
    if wish.max_connections < 10:
        faults.append(f"max_connections is {wish.max_connections}: give at least 10")
    if wish.storage not in _STORAGE:
        faults.append(f"storage is {wish.storage!r}: give one of {', '.join(_STORAGE)}")
    if wish.archive and not wish.archive.command:
        faults.append("the archive has no command: give one that returns 0 once %p is safe")
    for name, value in wish.overrides.items():
        if not _NAME.match(name):
            faults.append(f"{name!r} is no name of a setting")
        elif name.lower() in ("data_directory", "hba_file", "ident_file", "config_file"):
            faults.append(f"{name} is where the distribution's tools expect it: leave it out")
        elif not (value is None or isinstance(value, (str, int, float, bool))):
            faults.append(f"{name} is {value!r}: give a text, a number or true or false")
    if faults:
        raise SettingsError("; ".join(faults))


def literal(value: Value) -> str:
    """A value as the server's files spell it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return str(value)
    if "\n" in value or "\0" in value:
        raise SettingsError(f"{value!r} spans lines: a setting is one line")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def render(settings: Mapping[str, Value]) -> str:
    """The settings as lines of a configuration file."""
    return "".join(f"{name} = {literal(value)}\n" for name, value in settings.items())


# --- which version ---------------------------------------------------------------------------


def known_clusters(host: Mapping[str, Any]) -> list[int]:
    """The versions whose server is installed and whose cluster C(main) systemd knows."""
    found = []
    for package in host.get("packages", {}):
        match = re.fullmatch(r"postgresql-(\d+)", package)
        if match and f"postgresql@{match[1]}-main.service" in host.get("units", {}):
            found.append(int(match[1]))
    return sorted(found)


@dataclass(frozen=True)
class Choice:
    """A version, and what the user should know about it."""

    version: int
    warning: str = ""


def choose_version(
    preferred: Sequence[int], clusters: Sequence[int], offered: Sequence[int]
) -> Choice:
    """An existing cluster's version; without one the first preferred that can be installed."""
    if not preferred:
        raise SettingsError("no version is given: list at least one, such as 17")
    if clusters:
        for version in preferred:
            if version in clusters:
                return Choice(version)
        version = max(clusters)
        listed = ", ".join(str(one) for one in preferred)
        return Choice(
            version,
            f"the host has a cluster of PostgreSQL {version}, which is not among the preferred "
            f"versions ({listed}): it is kept, since a preference upgrades nothing; "
            "upgrade it with pg_upgradecluster, then list its new version",
        )
    for version in preferred:
        if version in offered:
            return Choice(version)
    listed = ", ".join(str(one) for one in preferred)
    raise SettingsError(
        f"the host's repositories offer no PostgreSQL {listed}: list a version that the "
        "distribution has, or take the PostgreSQL project's repository (pgdg)"
    )
