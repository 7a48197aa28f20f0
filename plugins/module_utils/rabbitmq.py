# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RabbitMQ's users, virtual hosts and settings: what is wanted, what is there, what differs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HASHING = "rabbit_password_hashing_sha256"
ANY = ".*"
REMOVABLE = ("users", "permissions", "policies", "vhosts", "empty_vhosts")


class RabbitmqError(ValueError):
    """One or more faults, all of them in the message; never holds a password."""


# --- what is wanted -------------------------------------------------------------------------------


def password_hash(password: str, user: str, key: str = "") -> str:
    """RabbitMQ's salted SHA-256, https://www.rabbitmq.com/docs/passwords#this-is-the-algorithm.

    The salt is random to whoever does not have the key, yet the same in every run, so that an
    unchanged password is an unchanged definition.
    """
    salt = hmac.new(key.encode(), b"rabbitmq\0" + user.encode(), hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(
    vhosts: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]],
    policies: Sequence[Mapping[str, Any]] = (),
    key: str = "",
) -> dict[str, list[dict[str, Any]]]:
    """What RabbitMQ imports, sorted: https://www.rabbitmq.com/docs/definitions."""
    faults: list[str] = []
    names = [str(vhost["name"]) for vhost in vhosts]
    faults += [f"vhost {name} is listed twice" for name in _twice(names)]
    faults += [f"user {name} is listed twice" for name in _twice(str(u["name"]) for u in users)]
    faults += [
        f"policy {name} of vhost {vhost} is listed twice"
        for vhost, name in _twice((str(p.get("vhost", "/")), str(p["name"])) for p in policies)
    ]
    found_users, permissions = [], []
    for user in users:
        name, password = str(user["name"]), str(user.get("password") or "")
        if not name:
            faults.append("a user has no name")
        if not password:
            faults.append(f"user {name} has no password")
        found_users.append(
            {
                "name": name,
                "password_hash": password_hash(password, name, key),
                "hashing_algorithm": HASHING,
                "tags": sorted(str(tag) for tag in user.get("tags") or []),
            }
        )
        mine = [str(permission["vhost"]) for permission in user.get("permissions") or []]
        faults += [f"user {name} has permissions on vhost {v} twice" for v in _twice(mine)]
        for permission in user.get("permissions") or []:
            vhost = str(permission["vhost"])
            if vhost not in names:
                faults.append(f"user {name} has permissions on vhost {vhost}, which is not listed")
            permissions.append({"user": name, "vhost": vhost, **_rights(permission)})
    for policy in policies:
        if str(policy.get("vhost", "/")) not in names:
            faults.append(
                f"policy {policy['name']} is for vhost {policy.get('vhost', '/')}, "
                "which is not listed"
            )
    if faults:
        raise RabbitmqError("\n".join(faults))
    return {
        "vhosts": sorted((_vhost(vhost) for vhost in vhosts), key=lambda v: str(v["name"])),
        "users": sorted(found_users, key=lambda user: str(user["name"])),
        "permissions": sorted(permissions, key=lambda p: (p["user"], p["vhost"])),
        "policies": sorted(
            (_policy(policy) for policy in policies), key=lambda p: (p["vhost"], p["name"])
        ),
    }


def _twice(names: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def _rights(permission: Mapping[str, Any]) -> dict[str, str]:
    def right(name: str) -> str:
        value = permission.get(name)
        return ANY if value is None else str(value)

    return {name: right(name) for name in ("configure", "write", "read")}


def _vhost(vhost: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {
        "description": str(vhost.get("description") or ""),
        "tags": [],
        "default_queue_type": str(vhost.get("default_queue_type") or "quorum"),
    }
    return {"name": str(vhost["name"]), "metadata": metadata}


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vhost": str(policy.get("vhost", "/")),
        "name": str(policy["name"]),
        "pattern": str(policy["pattern"]),
        "apply-to": str(policy.get("apply_to") or "all"),
        "priority": int(policy.get("priority") or 0),
        "definition": dict(policy["definition"]),
    }


_BARE = re.compile(r"[^#\s](?:[^#\n]*[^#\s])?")
_SETTING = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$.\-]*")


def configuration(
    listeners: Sequence[str],
    management: Mapping[str, Any] | None,
    memory_limit: str | float,
    disk_free_limit: str | float,
    definitions_file: str,
    settings: Mapping[str, Any],
) -> dict[str, str]:
    """rabbitmq.conf's keys and values; what `settings` says wins, null leaves a key out.

    A list becomes numbered keys, `key.1`, `key.2` and so on.
    """
    wanted: dict[str, Any] = {"listeners.tcp": list(listeners) or "none"}
    if management is not None:
        wanted["management.tcp.ip"] = management["address"]
        wanted["management.tcp.port"] = management["port"]
    wanted[f"vm_memory_high_watermark.{_measure(memory_limit)}"] = memory_limit
    wanted[f"disk_free_limit.{_measure(disk_free_limit)}"] = disk_free_limit
    wanted["load_definitions"] = definitions_file
    # The journal has it all, beside the unit's own lines, and keeps it within its bounds.
    wanted["log.console"] = True
    wanted["log.file"] = False

    for name in settings:
        # listeners.tcp in the settings stands for listeners.tcp.1 and so on, and the other way.
        for other in list(wanted):
            if name == other or name.startswith(f"{other}.") or _group(name) == _group(other):
                del wanted[other]
    wanted.update(settings)

    lines: dict[str, str] = {}
    faults = []
    for name, value in wanted.items():
        if not _SETTING.fullmatch(name):
            faults.append(f"setting {name!r}: no such key can stand in rabbitmq.conf")
        if isinstance(value, Mapping):
            faults.append(f"setting {name}: write its keys with dots, {name}.key: value")
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value, start=1):
                lines[f"{name}.{number}"] = _text(item)
        elif value is not None:
            lines[name] = _text(value)
    faults += [
        f"setting {name}: a value is one line, not empty and without #"
        for name, value in lines.items()
        if not _BARE.fullmatch(value)
    ]
    if faults:
        raise RabbitmqError("\n".join(faults))
    return lines


def _group(name: str) -> str:
    """Of keys that exclude each other, what they have in common."""
    for group in ("vm_memory_high_watermark.", "disk_free_limit."):
        if name.startswith(group):
            return group
    return name


def _measure(limit: str | float) -> str:
    try:
        float(limit)
    except ValueError:
        return "absolute"
    return "relative"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- what differs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changes:
    """What has to be imported and removed, and the same in words."""

    imports: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    vhosts: list[str] = field(default_factory=list)
    permissions: list[tuple[str, str]] = field(default_factory=list)
    policies: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.words)

    def commands(self) -> list[list[str]]:
        """rabbitmqctl's arguments for what is to be removed."""
        return [
            *(["clear_policy", "-p", vhost, "--", name] for vhost, name in self.policies),
            *(["clear_permissions", "-p", vhost, "--", user] for user, vhost in self.permissions),
            *(["delete_user", "--", user] for user in self.users),
            *(["delete_vhost", "--", vhost] for vhost in self.vhosts),
        ]


def difference(
    wanted: Mapping[str, Sequence[Mapping[str, Any]]],
    actual: Mapping[str, Sequence[Mapping[str, Any]]],
    remove: Iterable[str],
    queues: Mapping[str, int] | None = None,
) -> Changes:
    """From `actual` to `wanted`, both as RabbitMQ exports them.

    Not in the changes is what RabbitMQ knows beside: exchanges, queues, bindings, parameters,
    limits. `queues` says how many there are in each vhost that is not wanted; of unknown ones
    nothing is removed.
    """
    remove = set(remove)
    queues = queues or {}
    imports: dict[str, list[dict[str, Any]]] = {}
    words: list[str] = []

    def compare(kind: str, keys: tuple[str, ...], aspects: Mapping[str, Any]) -> list[Any]:
        """Queues what is to be imported; returns the keys of what is there and not wanted."""
        there = {tuple(item[key] for key in keys): item for item in actual.get(kind, [])}
        for item in wanted.get(kind, []):
            key = tuple(item[key] for key in keys)
            before = there.pop(key, None)
            name = f"{_SINGULAR[kind]} {' on '.join(str(part) for part in key)}"
            if before is None:
                words.append(f"{name}: added")
            else:
                what = [
                    aspect for aspect, get in aspects.items() if get(item, before) != get(before)
                ]
                if not what:
                    continue
                words.append(f"{name}: {', '.join(what)} changed")
            imports.setdefault(kind, []).append(dict(item))
        return list(there)

    def plain(name: str) -> Any:
        return lambda item, _other=None: item.get(name)

    vhosts = compare(
        "vhosts", ("name",), {"default queue type": _queue_type, "description": _description}
    )
    users = compare(
        "users",
        ("name",),
        {
            "password": lambda i, _o=None: (i.get("password_hash"), i.get("hashing_algorithm")),
            "tags": lambda i, _o=None: _tags(i.get("tags")),
        },
    )
    permissions = compare(
        "permissions",
        ("user", "vhost"),
        {name: plain(name) for name in ("configure", "write", "read")},
    )
    policies = compare(
        "policies",
        ("vhost", "name"),
        {name: plain(name) for name in ("pattern", "apply-to", "priority", "definition")},
    )

    gone_vhosts = sorted(
        name
        for (name,) in vhosts
        if "vhosts" in remove or ("empty_vhosts" in remove and queues.get(name) == 0)
    )
    gone_users = sorted(name for (name,) in users) if "users" in remove else []
    # What goes with its user or vhost needs no word of its own.
    gone_permissions = sorted(
        (user, vhost)
        for user, vhost in (permissions if "permissions" in remove else [])
        if user not in gone_users and vhost not in gone_vhosts
    )
    gone_policies = sorted(
        (vhost, name)
        for vhost, name in (policies if "policies" in remove else [])
        if vhost not in gone_vhosts
    )
    words += [f"policy {vhost} on {name}: removed" for vhost, name in gone_policies]
    words += [f"permissions {user} on {vhost}: removed" for user, vhost in gone_permissions]
    words += [f"user {name}: removed" for name in gone_users]
    words += [f"vhost {name}: removed" for name in gone_vhosts]
    return Changes(imports, gone_users, gone_vhosts, gone_permissions, gone_policies, words)


_SINGULAR = {
    "vhosts": "vhost",
    "users": "user",
    "permissions": "permissions",
    "policies": "policy",
}


def unlisted_vhosts(
    wanted: Mapping[str, Sequence[Mapping[str, Any]]],
    actual: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[str]:
    names = {str(vhost["name"]) for vhost in wanted.get("vhosts", [])}
    return sorted(
        str(vhost["name"]) for vhost in actual.get("vhosts", []) if vhost["name"] not in names
    )


def _queue_type(vhost: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> Any:
    """Before 3.11 a vhost's queue type cannot be changed and is not always exported."""
    exported = vhost if other is None else other
    if "default_queue_type" not in exported:
        return None
    metadata = vhost.get("metadata") or {}
    return metadata.get("default_queue_type") or vhost.get("default_queue_type")


def _description(vhost: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> Any:
    """As the queue type: not changed in a vhost that an old version has already."""
    exported = vhost if other is None else other
    if "default_queue_type" not in exported:
        return None
    return (vhost.get("metadata") or {}).get("description") or ""


def _tags(tags: Any) -> list[str]:
    """A list, or in old versions a text with commas."""
    if isinstance(tags, str):
        tags = [tag.strip() for tag in tags.split(",") if tag.strip()]
    return sorted(str(tag) for tag in tags or [])


def plugins_of(text: str) -> list[str]:
    """The explicitly enabled plugins: `[rabbitmq_management,rabbitmq_shovel].`"""
    return sorted(re.findall(r"[a-z][A-Za-z0-9_]*", text.split("]")[0]))
