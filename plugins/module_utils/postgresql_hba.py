# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may connect from where: lines of pg_hba.conf, from rules that are checked first.

The server reads the file from the top and takes the first line that fits, so the order of the
rules is kept. What no line admits is refused.
Format: https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = ("local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc")
METHODS = ("scram-sha-256", "cert", "peer", "reject", "ldap", "radius", "pam", "gss")
_DATABASE_WORDS = ("all", "sameuser", "samerole", "replication")
_ADDRESS_WORDS = ("all", "samehost", "samenet")
_KEYS = ("type", "database", "user", "address", "method", "options")
_HOST_NAME = re.compile(r"^\.?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$")
_BARE_OPTION = re.compile(r"^[A-Za-z0-9_./:@=+-]+$")


class HbaError(ValueError):
    """Rules that the server would refuse, or that say something else than they seem to."""


@dataclass(frozen=True)
class Rule:
    """One line."""

    type: str
    database: tuple[str, ...]
    user: tuple[str, ...]
    address: str
    method: str
    options: tuple[tuple[str, str], ...] = ()

    def fields(self) -> tuple[str, ...]:
        """The line's words, quoted."""
        options = " ".join(f"{name}={_option(value)}" for name, value in self.options)
        return (
            self.type,
            ",".join(_database(name) for name in self.database),
            ",".join(_user(name) for name in self.user),
            self.address,
            f"{self.method} {options}".rstrip(),
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _database(name: str) -> str:
    return name if name in _DATABASE_WORDS else _quoted(name)


def _user(name: str) -> str:
    # A quoted "all" would be a role of that name; a plus sign inside the quotes would be a letter.
    if name == "all":
        return name
    return "+" + _quoted(name[1:]) if name.startswith("+") else _quoted(name)


def _option(value: str) -> str:
    return value if _BARE_OPTION.match(value) else _quoted(value)


def address(text: str) -> str:
    """An address as the server reads it: a single host is given its full mask."""
    if text in _ADDRESS_WORDS:
        return text
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_network(text))
    meant = ""
    with contextlib.suppress(ValueError):
        meant = str(ipaddress.ip_network(text, strict=False))
    if meant:
        raise HbaError(f"{text!r} has bits beyond its mask; did you mean {meant}?")
    if re.fullmatch(r"[0-9./]+", text) or not _HOST_NAME.match(text.lower()):
        raise HbaError(f"{text!r} is no address, network or host name")
    return text.lower()


def _names(value: Any, default: str) -> tuple[str, ...]:
    if value is None:
        return (default,)
    if isinstance(value, str):
        return (value,)
    return tuple(str(name) for name in value)


def rule(entry: Mapping[str, Any]) -> Rule:
    """A rule out of what a user wrote."""
    for key in entry:
        if key not in _KEYS:
            raise HbaError(f"unknown key {key!r}; known are {', '.join(_KEYS)}")
    kind = entry.get("type") or "host"
    method = entry.get("method") or "scram-sha-256"
    if kind not in TYPES:
        raise HbaError(f"type is {kind!r}; give one of {', '.join(TYPES)}")
    if method not in METHODS:
        weak = " (the password or the whole server would lie open)"
        raise HbaError(
            f"method is {method!r}"
            + (weak if method in ("trust", "password", "md5") else "")
            + f"; give one of {', '.join(METHODS)}"
        )
    place = entry.get("address") or ""
    if kind == "local":
        if place:
            raise HbaError(f"address is {place!r}; a rule of type local has none")
    elif not place:
        raise HbaError("address is missing; give a network such as 10.0.0.0/8")
    if method == "peer" and kind != "local":
        raise HbaError("method peer knows the user of a local socket only; use scram-sha-256")
    if method == "cert" and kind != "hostssl":
        raise HbaError("method cert needs type hostssl")
    databases = _names(entry.get("database"), "all")
    users = _names(entry.get("user"), "all")
    if not databases or not users:
        raise HbaError("an empty list of databases or users admits nobody; leave the rule out")
    for name in (*databases, *users):
        if not name or "\n" in name or "\0" in name:
            raise HbaError(f"{name!r} is no name")
    options = entry.get("options") or {}
    return Rule(
        kind,
        databases,
        users,
        address(place) if place else "",
        method,
        tuple((str(name), str(value)) for name, value in options.items()),
    )


def rules(entries: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """All rules in their order, each once; every fault is named at once."""
    found: list[Rule] = []
    faults: list[str] = []
    for number, entry in enumerate(entries):
        try:
            one = rule(entry)
        except HbaError as error:
            faults.append(f"rule {number + 1}: {error}")
            continue
        if one not in found:
            found.append(one)
    if faults:
        raise HbaError("; ".join(faults))
    return found


def own_host_rules(users: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the server's own host may do: each user reach its own databases, and no other."""
    found: list[dict[str, Any]] = []
    for user in users:
        names = [entry["name"] for entry in user.get("databases") or []]
        if user.get("state", "present") != "present" or not names:
            continue
        base = {"database": names, "user": user["name"], "method": "scram-sha-256"}
        found.append({"type": "local", **base})
        found.extend({"type": "host", "address": at, **base} for at in ("127.0.0.1/32", "::1/128"))
    return found


def render(entries: Sequence[Mapping[str, Any]]) -> str:
    """The rules as lines, in columns."""
    table = [one.fields() for one in rules(entries)]
    widths = [max((len(row[column]) for row in table), default=0) for column in range(4)]
    return "".join(
        "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[4]])
        + "\n"
        for row in table
    )
