# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis instances of a host: from the role's variables to files, users and settings."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import quantities

CONFIGURATION = "/etc/redis/berth"
DATA = "/var/lib/redis"
MIB = 1024 * 1024
LEAST_MEMORY = 64 * MIB

ADMIN = "admin"
REPLICATION = "replication"
PROBE = "probe"
DEFAULT_USER = "off resetpass resetkeys resetchannels -@all"
# Beside what Redis itself calls dangerous: functions and scripts belong to the whole server.
SERVICE_COMMANDS = ("+@all", "-@admin", "-@dangerous", "-function", "-script|flush", "-script|kill")

# The unit's, the engine's or the role's own business, or nothing that can be compared later.
RESERVED = frozenset(
    (
        *("aclfile", "bind", "daemonize", "dir", "include", "loadmodule", "masterauth"),
        *("masteruser", "port", "rename-command", "replicaof", "requirepass", "slaveof"),
        *("supervised", "unixsocket", "unixsocketperm", "user"),
    )
)
# Several words on a line, which Redis does not take as one quoted word.
SEVERAL_WORDS = frozenset(
    (
        *("bind", "client-output-buffer-limit", "latency-tracking-info-percentiles"),
        *("oom-score-adj-values", "save"),
    )
)

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PATTERN = re.compile(r"[\x21-\x7e]+")
_COMMAND = re.compile(r"[+-](@?[a-z0-9_|.-]+)")
_SETTING = re.compile(r"[a-z][a-z0-9-]*")
_SAVE = re.compile(r"[1-9][0-9]* [1-9][0-9]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+*,=-]+")


class RedisError(ValueError):
    """One or more faults, all of them in the message; never holds a password."""


def password_hash(password: str) -> str:
    """As ACL rules have it: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/."""
    return hashlib.sha256(password.encode()).hexdigest()


def layout(
    instances: Sequence[Mapping[str, Any]],
    memory_mb: int,
    admin_password: str,
    replication_password: str = "",
    probe_password: str = "",
) -> list[dict[str, Any]]:
    """Everything that the role and its module need to know of each instance."""
    faults: list[str] = []
    if instances and not admin_password:
        faults.append("redis_admin_password is empty: give the password of the user admin")
    for what in ("name", "port"):
        faults += [
            f"redis_instances: {what} {value} is listed twice: give each instance its own"
            for value in _twice(instance[what] for instance in instances)
        ]
    memory = _memory(instances, memory_mb, faults)
    found = []
    for instance in instances:
        name = str(instance["name"])
        where = f"redis_instances {name}"
        _read(f"{where}: name {name!r}", quantities.slug, name, faults)
        _read(f"{where}: port {instance['port']!r}", quantities.port, instance["port"], faults)
        primary = {key: value for key, value in (instance.get("primary") or {}).items() if value}
        if primary:
            if len(primary) < 2:
                faults.append(f"{where}: primary needs host and port")
            elif not _PATTERN.fullmatch(str(primary["host"])):
                faults.append(f"{where}: primary host {primary['host']!r}: write an address")
            if not replication_password:
                faults.append(
                    f"{where}: it follows a primary and redis_replication_password is empty: "
                    "give the one that the primary's host has"
                )
        users = _users(where, instance, faults)
        users = {
            "default": DEFAULT_USER,
            ADMIN: f"on #{password_hash(admin_password)} ~* &* +@all",
            **_own(REPLICATION, replication_password, "+ping +psync +replconf"),
            **_own(PROBE, probe_password, "+info +ping"),
            **users,
        }
        settings = _settings(where, instance, memory.get(name, LEAST_MEMORY), faults)
        if replication_password:
            settings["masteruser"] = REPLICATION
        found.append(
            {
                "name": name,
                "unit": f"redis-server@{name}.service",
                "socket": f"/run/redis-{name}/redis.sock",
                "main": f"{DATA}/{name}/redis.conf",
                "users": [{"name": user, "rules": rules} for user, rules in users.items()],
                "settings": settings,
                "configuration": _lines(settings, name),
                "authentication": _authentication(replication_password),
                "acl": "".join(f"user {user} {rules}\n" for user, rules in users.items()),
                "seed": f"replicaof {primary['host']} {primary['port']}\n"
                if len(primary) == 2
                else "",
            }
        )
    if faults:
        raise RedisError("\n".join(faults))
    return found


def files(instances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files of those instances, for berth.platform.files."""
    found: list[dict[str, Any]] = []
    header = "# Written by berth.platform.redis; changes are overwritten.\n"
    readable = {"group": "redis", "mode": "0640"}
    for instance in instances:
        name = instance["name"]
        base = f"{CONFIGURATION}/{name}"
        owned = {"owner": "redis", "group": "redis"}
        found += [
            {"path": f"{base}.conf", "content": header + instance["configuration"], **readable},
            # Not in the other file, so that changes of that one can be shown.
            {
                "path": f"{base}.auth",
                "content": header + instance["authentication"],
                "secret": True,
                **readable,
            },
            # Redis takes no comments in it.
            {"path": f"{base}.acl", "content": instance["acl"], "secret": True, **readable},
            # The module's memory; see there.
            {
                "path": f"{base}.state",
                "content": "{}\n",
                "mode": "0600",
                "secret": True,
                "replace": False,
            },
            {"path": f"{DATA}/{name}", "state": "directory", "mode": "0750", **owned},
            # The engine's own from its first start on: CONFIG REWRITE and Sentinel write it.
            {
                "path": instance["main"],
                "content": "# Redis rewrites this file. What the role sets stands elsewhere, "
                f"and wins.\n{instance['seed']}",
                "mode": "0640",
                "replace": False,
                **owned,
            },
        ]
    return found


def units(wanted: Sequence[str], known: Iterable[str]) -> list[dict[str, Any]]:
    """For berth.platform.units: ours run, those that are listed no more do not."""
    unlisted = [
        unit
        for unit in sorted(known)
        if re.fullmatch(r"redis-server@.+\.service", unit) and unit not in wanted
    ]
    return [
        # It would take the port of one of ours.
        {"name": "redis-server.service", "enabled": False, "masked": True},
        *({"name": unit, "enabled": False, "state": "stopped"} for unit in unlisted),
        *({"name": unit, "enabled": True, "state": "started"} for unit in wanted),
    ]


def _own(name: str, password: str, commands: str) -> dict[str, str]:
    """One of the role's own users, if it has a password."""
    if not password:
        return {}
    return {name: f"on #{password_hash(password)} resetkeys resetchannels -@all {commands}"}


def _users(where: str, instance: Mapping[str, Any], faults: list[str]) -> dict[str, str]:
    found = {}
    users = instance.get("users") or []
    faults += [f"{where}: user {name} is listed twice" for name in _twice(u["name"] for u in users)]
    for user in users:
        name = str(user["name"])
        mine = f"{where}: user {name}"
        if not _USER.fullmatch(name):
            faults.append(f"{where}: user {name!r}: use letters, digits, '_', '.' and '-'")
        if name in ("default", ADMIN, REPLICATION, PROBE):
            faults.append(f"{mine}: the name is taken by the role: choose another")
        if not user.get("password"):
            faults.append(f"{mine} has no password")
        rules = ["on", f"#{password_hash(str(user.get('password') or ''))}"]
        rules += ["resetkeys", "resetchannels"]
        for kind, sign in (("keys", "~"), ("channels", "&")):
            patterns = user.get(kind)
            for pattern in [f"{name}:*"] if patterns is None else patterns:
                if not _PATTERN.fullmatch(str(pattern)):
                    faults.append(f"{mine}: {kind} {pattern!r}: write patterns without white space")
                access = kind == "keys" and re.match(r"%(R|W|RW)~", str(pattern))
                rules.append(f"{'' if access else sign}{pattern}")
        rules += SERVICE_COMMANDS
        for word in user.get("commands") or []:
            if not _COMMAND.fullmatch(str(word)):
                faults.append(
                    f"{mine}: commands {word!r}: write +command, -command, +@category, -@category"
                )
            rules.append(str(word))
        found[name] = " ".join(rules)
    return found


def _memory(
    instances: Sequence[Mapping[str, Any]], memory_mb: int, faults: list[str]
) -> dict[str, int]:
    """What is given; the others share what is left of half of the host's memory."""
    given: dict[str, int] = {}
    shared = []
    for instance in instances:
        name, value = str(instance["name"]), instance.get("memory")
        if value in (None, ""):
            shared.append(name)
        elif _read(f"redis_instances {name}: memory {value!r}", quantities.size, value, faults):
            given[name] = quantities.size_bytes(str(value))
    if sum(given.values()) > memory_mb * MIB:
        faults.append(
            f"redis_instances: memory of {', '.join(given)} is more than the host's {memory_mb}M "
            "together: lower it"
        )
    left = memory_mb * MIB // 2 - sum(given.values())
    each = max(LEAST_MEMORY, left // max(1, len(shared)) // MIB * MIB)
    return given | dict.fromkeys(shared, each)


def _settings(
    where: str, instance: Mapping[str, Any], memory: int, faults: list[str]
) -> dict[str, str]:
    """As CONFIG SET takes them."""
    for address in instance.get("listen") or []:
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            faults.append(f"{where}: listen {address!r}: write addresses like 127.0.0.1")
    points = _or(instance.get("save"), ["3600 1"])
    for point in points:
        if not _SAVE.fullmatch(str(point)):
            faults.append(f"{where}: save {point!r}: write seconds and changes like '3600 1'")
    settings: dict[str, Any] = {
        "port": instance["port"],
        "bind": _or(instance.get("listen"), ["127.0.0.1"]),
        "protected-mode": True,
        "maxmemory": memory,
        "maxmemory-policy": instance.get("eviction") or "noeviction",
        "save": points,
        "appendonly": _or(instance.get("aof"), True),
        "appendfsync": instance.get("aof_fsync") or "everysec",
        "min-replicas-to-write": _or(instance.get("min_replicas_to_write"), 0),
        "min-replicas-max-lag": _or(instance.get("min_replicas_max_lag"), 10),
    }
    for key, value in (instance.get("settings") or {}).items():
        if not _SETTING.fullmatch(str(key)):
            faults.append(f"{where}: settings {key!r}: no such key can stand in redis.conf")
        elif key in RESERVED:
            faults.append(f"{where}: settings {key}: it cannot be set here, see the role's options")
        elif isinstance(value, Mapping) or "\n" in str(value):
            faults.append(f"{where}: settings {key}: write a value of one line, or a list of words")
        settings[str(key)] = value
    return {key: _text(value) for key, value in settings.items() if value is not None}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(str(word) for word in value)
    return str(value)


def quoted(value: str) -> str:
    """One word of redis.conf."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(settings: Mapping[str, str], name: str) -> str:
    lines = [
        f"unixsocket /run/redis-{name}/redis.sock",
        "unixsocketperm 700",
        f"aclfile {CONFIGURATION}/{name}.acl",
        f"include {CONFIGURATION}/{name}.auth",
        # The journal has it all.
        'logfile ""',
        # Save points add up, also to those that the engine has written.
        'save ""',
    ]
    for key, value in settings.items():
        if key == "save":
            lines += [f"save {value}"] if value else []
        else:
            lines.append(f"{key} {value if key in SEVERAL_WORDS else quoted(value)}")
    return "".join(f"{line}\n" for line in lines)


def _authentication(password: str) -> str:
    return f"masterauth {quoted(password)}\n" if password else ""


def _read(where: str, reader: Any, value: Any, faults: list[str]) -> bool:
    try:
        reader(value)
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return False
    return True


def _twice(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [v for v in values if v in seen or seen.add(v)]  # type: ignore[func-returns-value]
