# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may write of a probe, read strictly; every fault at once, and what is right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import MISSING, Faults, nearest
from ansible_collections.berth.platform.plugins.module_utils.probe.http import split_path
from ansible_collections.berth.platform.plugins.module_utils.probe.model import Probe

HTTP = ("http", "https")
CONNECTING = (*HTTP, "tcp", "tls", "postgresql", "redis", "amqp", "kafka")
TYPES = (*CONNECTING, "systemd", "command")
# Types that speak in the clear unless told otherwise, and those that always use TLS.
TLS_OPTIONAL = ("tcp", "redis", "amqp", "kafka")
TLS_ALWAYS = ("https", "tls")
SSLMODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
PORTS = {
    "http": 80, "https": 443, "tls": 443, "postgresql": 5432, "redis": 6379, "amqp": 5672,
    "kafka": 9092,
}  # fmt: skip

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_ADDRESS6 = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_UNIT_KINDS = (
    ".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".automount",
    ".swap", ".device", ".scope",
)  # fmt: skip

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Key:
    """How a key is read (ValueError says what would be right), and which types have it."""

    read: Reader
    types: tuple[str, ...] = TYPES
    secret: bool = False


def _text(what: str, limit: int = 255, lines: bool = False) -> Reader:
    def read(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(f"write {what}")
        text = str(value)
        if not text or len(text.encode("utf-8", "replace")) > limit:
            raise ValueError(f"write {what}, of 1 to {limit} bytes")
        if "\0" in text or (not lines and _CONTROL.search(text)):
            raise ValueError(f"write {what} on a single line")
        return text

    return read


def _password(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise ValueError("write a string")
    return str(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "false", "no"):
        return str(value).lower() in ("true", "yes")
    raise ValueError("write true or false")


def _number(low: float, high: float, what: str, above: bool = False) -> Reader:
    """A number from *low* (or above it) to *high*."""

    def read(value: Any) -> float:
        advice = f"write {what}, {'more than' if above else 'from'} {low:g}"
        advice += f" {'and at most' if above else 'to'} {high:g}"
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (low < number if above else low <= number) or not number <= high:
            raise ValueError(advice)
        return number

    return read


def _integer(low: int, high: int, what: str = "a whole number") -> Reader:
    def read(value: Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,18}", text):
            raise ValueError(f"write {what} from {low} to {high}")
        if not low <= int(text) <= high:
            raise ValueError(f"write {what} from {low} to {high}")
        return int(text)

    return read


def _choice(*words: str) -> Reader:
    def read(value: Any) -> str:
        if str(value) not in words:
            raise ValueError(nearest(str(value), words))
        return str(value)

    return read


def _many(read_one: Reader, what: str) -> Reader:
    """A list, or a single value for a list of one."""

    def read(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values or isinstance(value, dict):
            raise ValueError(f"write {what}")
        return tuple(read_one(each) for each in values)

    return read


def _pattern(value: Any) -> re.Pattern[str]:
    if isinstance(value, (dict, list, bool)):
        raise ValueError("write a regular expression")
    try:
        return re.compile(str(value))
    except re.error as error:
        raise ValueError(f"write a regular expression: {error}") from None


def _address(value: Any) -> str:
    text = str(value)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if isinstance(value, str) and (_HOST.fullmatch(bare) or _ADDRESS6.fullmatch(bare)):
        return bare
    raise ValueError("write an address or a host name, without scheme, port or path")


def _host(value: Any) -> str:
    text = str(value)
    if isinstance(value, str) and _HOST.fullmatch(text.rpartition(":")[0] or text):
        return text
    raise ValueError("write a host name as the Host header has it")


def _server_name(value: Any) -> str:
    if isinstance(value, str) and (_HOST.fullmatch(value) or _ADDRESS6.fullmatch(value)):
        return value
    raise ValueError("write a host name or an address, as the certificate has it")


def _path(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"/[\x21-\x7e]*|\*", value):
        return value
    raise ValueError("write a path that begins with / and has blanks and accents %-encoded")


def _token(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Z]{1,20}", value):
        return value
    raise ValueError("write a method in capitals, such as GET or HEAD")


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise ValueError("write a mapping of header names to values")
    found = []
    for name, content in value.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no header's name")
        if isinstance(content, (dict, list)) or _CONTROL.search(str(content)):
            raise ValueError(f"write the value of {name} as a single line")
        found.append((name, str(content)))
    return tuple(found)


def _json(value: Any) -> tuple[tuple[str, Any], ...]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("write a mapping of paths such as checks[0].status to values")
    for path in value:
        try:
            split_path(str(path))
        except ValueError:
            raise ValueError(f"{path!r} is no path; write one like checks[0].status") from None
    return tuple((str(path), wanted) for path, wanted in value.items())


def _unit(value: Any) -> str:
    if not isinstance(value, str) or not _UNIT.fullmatch(value) or value.startswith("-"):
        raise ValueError("write a unit's name, such as nginx.service")
    return value if value.endswith(_UNIT_KINDS) else f"{value}.service"


def _argv(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("write a list: the program and its arguments")
    if any(isinstance(each, (dict, list)) or "\0" in str(each) for each in value):
        raise ValueError("write a list of strings")
    if not str(value[0]):
        raise ValueError("write a program first")
    return tuple(str(each) for each in value)


_TLS_SPOKEN = (*TLS_ALWAYS, *TLS_OPTIONAL)

KEYS: Mapping[str, Key] = {
    "name": Key(_text("a name")),
    "type": Key(_choice(*TYPES)),
    "timeout": Key(_number(0, 3600, "seconds", above=True)),
    "retries": Key(_integer(0, 1000)),
    "interval": Key(_number(0, 3600, "seconds")),
    "successes": Key(_integer(1, 1000)),
    "latency": Key(_number(0, 3600, "seconds", above=True)),
    "unit": Key(_unit),
    "address": Key(_address, CONNECTING),
    "port": Key(_integer(1, 65535, "a port"), CONNECTING),
    "tls": Key(_boolean, TLS_OPTIONAL),
    "verify": Key(_boolean, _TLS_SPOKEN),
    "ca_file": Key(_text("a path on the host", 4096), (*_TLS_SPOKEN, "postgresql")),
    "server_name": Key(_server_name, (*_TLS_SPOKEN, "postgresql")),
    "path": Key(_path, HTTP, secret=True),
    "method": Key(_token, HTTP),
    "host": Key(_host, HTTP),
    "headers": Key(_headers, HTTP, secret=True),
    "status": Key(_many(_integer(200, 599, "a status"), "a list of statuses"), HTTP),
    "body": Key(_pattern, HTTP),
    "json": Key(_json, HTTP),
    "days": Key(_number(0, 100000, "days"), ("tls",)),
    "banner": Key(_pattern, ("tcp",)),
    "user": Key(_text("a user's name"), (*HTTP, "postgresql", "redis", "amqp")),
    "password": Key(_password, (*HTTP, "postgresql", "redis", "amqp"), secret=True),
    "database": Key(_text("a database's name"), ("postgresql",)),
    "query": Key(_text("a query", 65536, lines=True), ("postgresql",)),
    "expect": Key(_password, ("postgresql",)),
    "sslmode": Key(_choice(*SSLMODES), ("postgresql",)),
    "vhost": Key(_text("a virtual host"), ("amqp",)),
    "argv": Key(_argv, ("command",), secret=True),
    "rc": Key(_many(_integer(-64, 255, "a return code"), "a list of return codes"), ("command",)),
}

REQUIRED = {"tcp": ("port",), "systemd": ("unit",), "command": ("argv",)}


def parse_probes(items: Any) -> tuple[list[Probe], Faults]:
    """The probes that *items* describe, and everything that is wrong with them."""
    faults = Faults()
    probes: list[Probe] = []
    if not isinstance(items, (list, tuple)):
        faults.add("probes", items, "write a list of probes")
        return [], faults
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        probe = _probe(item, number, faults)
        if probe is None:
            continue
        if probe.name in seen:
            faults.add(
                f"{_place(number, probe.name)}.name",
                MISSING,
                f"probes[{seen[probe.name]}] has this name, too: write one of its own",
            )
        seen.setdefault(probe.name, number)
        probes.append(probe)
    return probes, faults


def _place(number: int, name: object) -> str:
    return f"probes[{number}] ({name})" if isinstance(name, str) else f"probes[{number}]"


def _probe(item: Any, number: int, faults: Faults) -> Probe | None:
    if not isinstance(item, Mapping):
        faults.add(f"probes[{number}]", MISSING, "write a mapping with name and type")
        return None
    place = _place(number, item.get("name"))
    before = len(faults.found)
    kind = item.get("type")
    for required in ("name", "type"):
        if item.get(required) is None:
            faults.add(f"{place}.{required}", MISSING, "is required")
    known = kind if kind in TYPES else None
    values: dict[str, Any] = {}
    for name, value in item.items():
        if name not in KEYS:
            faults.add(f"{place}.{name}", MISSING, f"is not a known key; {_nearest(name, known)}")
        elif value is None:
            continue
        elif known and known not in KEYS[name].types:
            owners = ", ".join(KEYS[name].types)
            advice = f"is not a key of type {known} (but of {owners})"
            faults.add(f"{place}.{name}", MISSING, advice)
        else:
            try:
                values[name] = KEYS[name].read(value)
            except ValueError as error:
                shown = MISSING if KEYS[name].secret else value
                faults.add(f"{place}.{name}", shown, str(error))
    if known:
        for required in REQUIRED.get(known, ()):
            if item.get(required) is None:
                faults.add(f"{place}.{required}", MISSING, f"is required by type {known}")
        _together(known, values, place, faults)
    if known is None or len(faults.found) > before:
        return None
    if known in CONNECTING:
        values.setdefault("port", PORTS.get(known, 0))
    values["tls"] = known in TLS_ALWAYS or values.get("tls", False)
    return Probe(**values)


def _nearest(name: object, kind: str | None) -> str:
    return nearest(str(name), [key for key, spec in KEYS.items() if not kind or kind in spec.types])


def _together(kind: str, values: Mapping[str, Any], place: str, faults: Faults) -> None:
    """What is wrong only beside another key."""
    if "password" in values and "user" not in values and kind != "redis":
        faults.add(f"{place}.user", MISSING, "is required beside password")
    if kind == "redis" and "user" in values and "password" not in values:
        faults.add(f"{place}.password", MISSING, "is required beside user")
    if kind == "postgresql" and "user" not in values:
        for key in ("query", "expect"):
            if key in values:
                faults.add(f"{place}.user", MISSING, f"is required beside {key}")
    if "expect" in values and "query" not in values:
        faults.add(f"{place}.query", MISSING, "is required beside expect")
    if kind in TLS_OPTIONAL and not values.get("tls"):
        for key in ("verify", "ca_file", "server_name"):
            if key in values:
                faults.add(f"{place}.{key}", MISSING, "has a meaning only with tls: true")
