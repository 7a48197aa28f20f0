# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: log in and get an answer to a query; without a user, what pg_isready looks for.

Messages as in https://www.postgresql.org/docs/current/protocol-message-formats.html. A server
that is starting up, shutting down or out of connections answers, and serves nobody: unhealthy.
Any other answer, a refusal included, proves life when no user was given.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import struct

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import (
    Connection,
    connected,
    secure,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.scram import (
    MECHANISM,
    Exchange,
    ScramError,
)

PROTOCOL = 3 << 16
SSL_REQUEST = struct.pack(">ii", 8, 80877103)
TERMINATE = b"X\0\0\0\4"
MESSAGE_LIMIT = 1024 * 1024
# As pg_isready: a server asks any user for a password, and logs nothing when we then hang up.
ANYBODY = "postgres"
# SQLSTATE of a server that answers and cannot serve: cannot_connect_now, too_many_connections,
# admin_shutdown, crash_shutdown.
NOT_SERVING = {"57P03", "53300", "57P01", "57P02"}

OK, KERBEROS5, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 2, 3, 5, 10, 11, 12


class Refused(ProbeFailed):
    """The server's ErrorResponse."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def startup(user: str, database: str) -> bytes:
    pairs = {
        "user": user,
        "database": database,
        "application_name": "berth-probe",
        "client_encoding": "UTF8",
    }
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in pairs.items()) + b"\0"
    return struct.pack(">ii", len(body) + 8, PROTOCOL) + body


def md5_password(user: str, password: str, salt: bytes) -> str:
    """What AuthenticationMD5Password asks for."""
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False)
    return "md5" + outer.hexdigest()


def refusal(body: bytes) -> Refused:
    """The SQLSTATE and the message of an ErrorResponse."""
    fields = {}
    for part in body.split(b"\0"):
        if part:
            fields[part[:1]] = part[1:]
    code = clean(fields.get(b"C", b"?????"), 5)
    return Refused(code, clean(fields.get(b"M", b"an error without a message")))


def first_value(body: bytes) -> str | None:
    """The first column of a DataRow, as text; None for NULL."""
    try:
        (columns,) = struct.unpack_from(">h", body)
        if columns < 1:
            return None
        (length,) = struct.unpack_from(">i", body, 2)
    except struct.error:
        raise ProbeFailed("a malformed row") from None
    if length < 0:
        return None
    return body[6 : 6 + length].decode("utf-8", "replace")


class Session:
    """Reads messages, and remembers what the server says of itself on the way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.parameters: dict[str, str] = {}

    def send(self, data: bytes) -> None:
        self._connection.send(data)

    async def next(self) -> tuple[bytes, bytes]:
        """The next message that matters; an error is raised."""
        while True:
            kind, length = struct.unpack(">ci", await self._connection.exactly(5))
            if not 4 <= length <= MESSAGE_LIMIT or not kind.isalnum():
                raise ProbeFailed("not a PostgreSQL server")
            body = await self._connection.exactly(length - 4)
            if kind == b"E":
                raise refusal(body)
            if kind == b"S":
                name, _zero, value = body.rstrip(b"\0").partition(b"\0")
                self.parameters[clean(name, 40)] = clean(value, 80)
            elif kind not in (b"N", b"K", b"A", b"v"):
                return kind, body

    async def authenticate(self, user: str, password: str) -> None:
        exchange: Exchange | None = None
        while True:
            kind, body = await self.next()
            if kind != b"R" or len(body) < 4:
                raise ProbeFailed("not a PostgreSQL server")
            method, rest = struct.unpack_from(">i", body)[0], body[4:]
            if method == OK:
                if exchange is not None:
                    raise ProbeFailed("the server ended SCRAM without its proof")
                return
            if method == SASL_FINAL and exchange is not None:
                exchange.verify(rest.decode("utf-8", "replace"))
                exchange = None
            elif method == SASL_CONTINUE and exchange is not None:
                # In a thread: thousands of rounds of SHA-256 would stop every other probe.
                answer = await asyncio.to_thread(exchange.final, rest.decode("utf-8", "replace"))
                self.send(message(b"p", answer.encode()))
            elif method == SASL:
                if MECHANISM.encode() not in rest.split(b"\0"):
                    raise ProbeFailed(f"the server does not offer {MECHANISM}")
                exchange = Exchange(user, password, secrets.token_urlsafe(18))
                first = exchange.first().encode()
                head = MECHANISM.encode() + b"\0" + struct.pack(">i", len(first))
                self.send(message(b"p", head + first))
            elif method == MD5 and len(rest) == 4:
                self.send(message(b"p", md5_password(user, password, rest).encode() + b"\0"))
            elif method == CLEARTEXT:
                self.send(message(b"p", password.encode() + b"\0"))
            else:
                raise ProbeFailed(f"authentication method {method} is not supported")

    async def ready(self) -> None:
        kind, _body = await self.next()
        if kind != b"Z":
            raise ProbeFailed("the server did not become ready")

    async def query(self, text: str) -> str | None:
        """Run *text*; the first value of its last result's first row."""
        self.send(message(b"Q", text.encode() + b"\0"))
        found: str | None = None
        fresh = True
        while True:
            kind, body = await self.next()
            if kind == b"Z":
                return found
            if kind == b"T":
                fresh = True
            elif kind == b"D" and fresh:
                found, fresh = first_value(body), False


async def _open(attempt: Attempt, connection: Connection) -> None:
    """Ask for TLS as sslmode says."""
    probe = attempt.probe
    if probe.sslmode == "disable":
        return
    attempt.phase = "asking for TLS"
    connection.send(SSL_REQUEST)
    answer = await connection.exactly(1)
    if answer == b"S":
        context = attempt.tools.contexts.get(
            probe.sslmode in ("verify-ca", "verify-full"),
            probe.ca_file,
            probe.sslmode == "verify-full",
        )
        await secure(attempt, connection, context)
    elif answer == b"E":
        # An ErrorResponse, in the clear: from a server that cannot even fork.
        (length,) = struct.unpack(">i", await connection.exactly(4))
        if not 4 <= length <= MESSAGE_LIMIT:
            raise ProbeFailed("not a PostgreSQL server")
        raise refusal(await connection.exactly(length - 4))
    elif answer != b"N":
        raise ProbeFailed("not a PostgreSQL server")
    elif probe.sslmode != "prefer":
        raise ProbeFailed(f"the server does not offer TLS, and sslmode is {probe.sslmode}")


def _detail(session: Session, connection: Connection) -> Detail:
    detail: Detail = {"tls": connection.ssl_object is not None}
    if "server_version" in session.parameters:
        detail["version"] = session.parameters["server_version"].split(" ")[0]
    standby = session.parameters.get("in_hot_standby")
    if standby is not None:
        detail["standby"] = standby == "on"
    return detail


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt) as connection:
        await _open(attempt, connection)
        session = Session(connection)
        user = probe.user or ANYBODY
        session.send(startup(user, probe.database or user))
        if probe.user is None:
            return await _alive(attempt, session, connection)
        attempt.phase = "authenticating"
        try:
            await session.authenticate(user, probe.password or "")
        except ScramError as error:
            raise ProbeFailed(clean(str(error))) from None
        await session.ready()
        attempt.phase = "waiting for the answer to the query"
        try:
            return await _answer(attempt, session, connection)
        finally:
            session.send(TERMINATE)


async def _answer(attempt: Attempt, session: Session, connection: Connection) -> Detail:
    """One query, and whether its first value is the expected one."""
    probe = attempt.probe
    expected = probe.expect
    if probe.query is None:
        value = await session.query("SELECT 1")
        expected = "1"
    else:
        # The transaction is rolled back by leaving, and refuses to write.
        limit = math.ceil(probe.timeout * 1000)
        await session.query(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}")
        value = await session.query(probe.query)
    detail = _detail(session, connection)
    if probe.query is not None:
        detail["value"] = None if value is None else clean(value, 80)
    if expected is not None and value != expected:
        shown = "nothing" if value is None else repr(clean(value, 80))
        raise ProbeFailed(f"the query gave {shown}, not {expected!r}", detail)
    return detail


async def _alive(attempt: Attempt, session: Session, connection: Connection) -> Detail:
    """An authentication request, or an error that only a working server gives."""
    attempt.phase = "waiting for the server's answer"
    try:
        kind, body = await session.next()
        if kind != b"R" or len(body) < 4:
            raise ProbeFailed("not a PostgreSQL server")
        if body[:4] == b"\0\0\0\0":
            await session.ready()
            session.send(TERMINATE)
            return {**_detail(session, connection), "answer": "accepts connections"}
        return {**_detail(session, connection), "answer": "asks for credentials"}
    except Refused as refused:
        if refused.code in NOT_SERVING:
            raise
        return {**_detail(session, connection), "answer": refused.message}
