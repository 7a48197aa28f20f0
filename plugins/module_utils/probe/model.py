# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe is, what it may say, and what it must never say."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any

Detail = dict[str, Any]

TEXT_LIMIT = 200
HIDDEN = "(hidden)"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_NAME = re.compile(r"auth|cookie|credential|key|pass|secret|session|signature|token", re.I)


@dataclass(frozen=True)
class Probe:
    """One thing to look at, completely resolved; fields that a type has no use for stay default."""

    name: str
    type: str
    timeout: float = 5.0
    retries: int = 0
    interval: float = 1.0
    successes: int = 1
    latency: float | None = None
    unit: str | None = None
    # Whatever opens a connection.
    address: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None
    # http, https
    path: str = "/"
    method: str = "GET"
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    status: tuple[int, ...] = (200,)
    body: re.Pattern[str] | None = None
    json: tuple[tuple[str, Any], ...] = ()
    # tls
    days: float = 0
    # tcp
    banner: re.Pattern[str] | None = None
    # postgresql, redis, amqp, http (Basic)
    user: str | None = None
    password: str | None = None
    # postgresql
    database: str | None = None
    query: str | None = None
    expect: str | None = None
    sslmode: str = "prefer"
    # amqp
    vhost: str = "/"
    # command
    argv: tuple[str, ...] = ()
    rc: tuple[int, ...] = (0,)

    @property
    def target(self) -> str:
        """What is looked at, short and free of secrets."""
        if self.type == "systemd":
            return self.unit or ""
        if self.type == "command":
            return self.argv[0]
        place = f"[{self.address}]" if ":" in self.address else self.address
        place = f"{place}:{self.port}"
        if self.type in ("http", "https"):
            return f"{self.type}://{place}{self.path.partition('?')[0]}"
        return place

    @property
    def basic_auth(self) -> str | None:
        """Credentials as HTTP's Basic scheme (RFC 7617) sends them."""
        if self.user is None:
            return None
        pair = f"{self.user}:{self.password or ''}"
        return base64.b64encode(pair.encode()).decode("ascii")

    def secrets(self) -> tuple[str, ...]:
        """Every string of this probe that must not come back in a result, longest first."""
        found = {self.password or ""}
        if self.type in ("http", "https"):
            found.add(self.basic_auth or "")
            for name, value in self.headers:
                if _SECRET_NAME.search(name):
                    found.update((value, value.rpartition(" ")[2]))
            for pair in self.path.partition("?")[2].split("&"):
                name, _equals, value = pair.partition("=")
                if _SECRET_NAME.search(name):
                    found.add(value)
        found.discard("")
        return tuple(sorted(found, key=len, reverse=True))


class ProbeFailed(Exception):
    """An attempt failed; the text is for people, the detail says what was seen all the same."""

    def __init__(self, message: str, detail: Detail | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or {}


@dataclass
class Attempt:
    """One attempt: what to look at, with what, and how far it got (for the time-out's message)."""

    probe: Probe
    tools: Any
    phase: str = "starting"
    # What earlier attempts of the same probe saw and a later one compares with.
    memory: dict[str, Any] = field(default_factory=dict)


def clean(text: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """Foreign text made fit for one line of a report: printable, without userinfo, bounded."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    kept = _USERINFO.sub("", _CONTROL.sub(" ", text[: 4 * limit])).strip()
    text = kept or ("(unprintable)" if text.strip() else "")
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def redact(value: Any, secrets: tuple[str, ...]) -> Any:
    """*value* with every secret in any string of it replaced."""
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, dict):
        return {key: redact(each, secrets) for key, each in value.items()}
    if isinstance(value, list):
        return [redact(each, secrets) for each in value]
    return value
