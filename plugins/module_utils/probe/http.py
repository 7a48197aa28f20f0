# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1, just enough of it: one request, one bounded response (RFC 9112).

Redirects are not followed: a probe says what an endpoint answers, not where it points.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import (
    Connection,
    connected,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    Probe,
    ProbeFailed,
    clean,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.x509 import (
    CertificateUnreadable,
    days_left,
    parse,
)

HEAD_LIMIT = 32 * 1024
BODY_LIMIT = 1024 * 1024
INTERIM_LIMIT = 8
DIGITS_LIMIT = 400

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: |$)")
_PATH_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_MISSING = object()


def request(probe: Probe) -> bytes:
    host = probe.host or probe.address
    if ":" in host and not host.startswith("[") and host.count(":") > 1:
        host = f"[{host}]"
    default = 443 if probe.type == "https" else 80
    if probe.host is None and probe.port != default:
        host = f"{host}:{probe.port}"
    headers = {
        "Host": host,
        "User-Agent": "berth-probe",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if probe.basic_auth is not None:
        headers["Authorization"] = f"Basic {probe.basic_auth}"
    if probe.method not in ("GET", "HEAD", "OPTIONS"):
        headers["Content-Length"] = "0"
    given = {name.lower() for name, _value in probe.headers}
    lines = [f"{probe.method} {probe.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in probe.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


async def read_head(connection: Connection) -> tuple[int, dict[str, str]]:
    """The status and the headers (names in lower case) of the next response."""
    left = HEAD_LIMIT
    too_long = f"a status line and headers longer than {HEAD_LIMIT} bytes"
    line = await connection.line(left, too_long)
    match = _STATUS_LINE.match(line)
    if match is None:
        raise ProbeFailed(f"not an HTTP answer: {clean(line, 60)!r}")
    headers: dict[str, str] = {}
    while True:
        left -= len(line) + 2
        line = await connection.line(max(left, 0), too_long)
        if not line:
            return int(match.group(1)), headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon and not line.startswith((b" ", b"\t")):
            raise ProbeFailed(f"not an HTTP header: {clean(line, 60)!r}")
        headers[name.strip().lower()] = value.strip()


async def read_body(
    connection: Connection, headers: dict[str, str], limit: int = BODY_LIMIT
) -> tuple[bytes, bool]:
    """The body up to *limit*, and whether that is all of it; one cut short is a failure."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(connection, limit)
    given = headers.get("content-length")
    if given is None:
        body = b""
        while len(body) < limit:
            more = await connection.some(limit - len(body))
            if not more:
                return body, True
            body += more
        return body, False
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise ProbeFailed(f"not a Content-Length: {clean(given, 40)!r}")
    length = int(given)
    try:
        return await connection.exactly(min(length, limit)), length <= limit
    except ProbeFailed as failed:
        raise ProbeFailed(f"the body was cut short: {failed.message}") from None


async def _chunks(connection: Connection, limit: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    total = 0
    while True:
        line = await connection.line(1024)
        match = _CHUNK_SIZE.match(line)
        if match is None:
            raise ProbeFailed(f"not a chunk's size: {clean(line, 40)!r}")
        size = int(match.group(), 16)
        if size == 0:
            while await connection.line(HEAD_LIMIT):
                pass
            return b"".join(parts), True
        if total + size > limit:
            parts.append(await connection.exactly(limit - total))
            return b"".join(parts), False
        parts.append(await connection.exactly(size))
        total += size
        if await connection.exactly(2) != b"\r\n":
            raise ProbeFailed("a malformed chunk")


def split_path(path: str) -> list[str | int]:
    """The steps of a JSON path such as ``checks[0].status``; ValueError for one that is none."""
    steps: list[str | int] = []
    at = 2 if path.startswith("$.") else 1 if path.startswith("$[") else 0
    while at < len(path):
        match = _PATH_STEP.match(path, at)
        if match is None:
            raise ValueError(path)
        steps.append(match.group(1) if match.group(2) is None else int(match.group(2)))
        at = match.end()
    if not steps or steps == ["$"]:
        raise ValueError(path)
    return steps


def lookup(document: Any, path: str) -> Any:
    for step in split_path(path):
        if isinstance(document, dict) and str(step) in document:
            document = document[str(step)]
        elif isinstance(document, list) and str(step).isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return _MISSING
    return document


def same(found: Any, wanted: Any) -> bool:
    """JSON's equality, in which true is not 1."""
    if isinstance(found, bool) != isinstance(wanted, bool):
        return False
    return bool(found == wanted)


def _integer(digits: str) -> int | float:
    # Python needs time that grows with the square of a number's length.
    return int(digits) if len(digits) < DIGITS_LIMIT else float("inf")


def check_json(body: str, wanted: tuple[tuple[str, Any], ...]) -> None:
    try:
        document = json.loads(body, parse_int=_integer)
    except (ValueError, RecursionError):
        raise ProbeFailed(f"the body is not JSON: {clean(body, 60)!r}") from None
    for path, value in wanted:
        found = lookup(document, path)
        if found is _MISSING:
            raise ProbeFailed(f"the JSON body has no {path}")
        if not same(found, value):
            shown = clean(json.dumps(found), 80)
            raise ProbeFailed(f"{path} is {shown}, not {clean(json.dumps(value), 80)}")


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt, tls=probe.tls) as connection:
        attempt.phase = "waiting for the response"
        connection.send(request(probe))
        for _response in range(INTERIM_LIMIT):
            status, headers = await read_head(connection)
            if status >= 200:
                break
        else:
            raise ProbeFailed("interim responses without end")
        detail: Detail = {"status": status}
        if "location" in headers and 300 <= status < 400:
            detail["location"] = clean(headers["location"].partition("?")[0], 120)
        if connection.ssl_object is not None:
            der = connection.ssl_object.getpeercert(binary_form=True) or b""
            with contextlib.suppress(CertificateUnreadable):
                detail["days"] = round(days_left(parse(der)), 1)
        body, complete = b"", True
        if probe.method != "HEAD" and status not in (204, 304):
            attempt.phase = "reading the body"
            body, complete = await read_body(connection, headers)
        detail["bytes"] = len(body)
    text = body.decode("utf-8", "replace")
    if status not in probe.status:
        wanted = " or ".join(map(str, probe.status))
        raise ProbeFailed(f"status {status}, not {wanted}{_words(headers, text)}", detail)
    try:
        if not complete and (probe.body is not None or probe.json):
            raise ProbeFailed(f"the body is longer than {BODY_LIMIT} bytes")
        if probe.body is not None and not probe.body.search(text):
            raise ProbeFailed(f"the body does not match {probe.body.pattern!r}{_words({}, text)}")
        if probe.json:
            check_json(text, probe.json)
    except ProbeFailed as failed:
        raise ProbeFailed(failed.message, detail) from None
    return detail


def _words(headers: dict[str, str], text: str) -> str:
    """What an unhealthy service says of itself; an error page says nothing."""
    if "html" in headers.get("content-type", "") or text.lstrip()[:1] in ("", "<"):
        return ""
    return f": {clean(text, 120)}"
