# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis and what speaks its protocol: AUTH, PING, and who answered.

RESP2 as in https://redis.io/docs/latest/develop/reference/protocol-spec/. A server that is still
loading its data set answers PING with -LOADING, one that lost its primary with -MASTERDOWN: both
serve nobody. Without credentials a server that asks for them is alive.
"""

from __future__ import annotations

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import (
    Connection,
    connected,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)

LINE_LIMIT = 1024
BULK_LIMIT = 64 * 1024


class ErrorReply(str):
    """A reply that began with a minus sign."""


def command(*words: str) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


async def reply(connection: Connection) -> str:
    """The next reply; only the kinds that AUTH, PING and INFO answer with."""
    line = (await connection.line(LINE_LIMIT)).decode("utf-8", "replace")
    kind, rest = line[:1], line[1:]
    if kind == "+":
        return rest
    if kind == "-":
        return ErrorReply(rest)
    if kind == "$" and rest.isascii() and rest.isdigit() and int(rest) <= BULK_LIMIT:
        return (await connection.exactly(int(rest) + 2))[:-2].decode("utf-8", "replace")
    raise ProbeFailed(f"not a Redis reply: {clean(line, 80)!r}")


def facts(info: str) -> Detail:
    """What INFO tells of the server: version and role."""
    wanted = {"redis_version": "version", "valkey_version": "version", "role": "role"}
    detail: Detail = {}
    for line in info.splitlines():
        key, colon, value = line.partition(":")
        if colon and key in wanted:
            detail[wanted[key]] = clean(value, 40)
    return detail


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt, tls=probe.tls) as connection:
        if probe.password is not None:
            attempt.phase = "waiting for the reply to AUTH"
            user = () if probe.user is None else (probe.user,)
            connection.send(command("AUTH", *user, probe.password))
            answer = await reply(connection)
            if answer != "OK":
                raise ProbeFailed(f"AUTH refused: {clean(answer)}")
        attempt.phase = "waiting for the reply to PING"
        connection.send(command("PING"))
        answer = await reply(connection)
        if isinstance(answer, ErrorReply):
            if answer.startswith("NOAUTH") and probe.password is None:
                return {"answer": "asks for credentials"}
            raise ProbeFailed(clean(answer))
        if answer != "PONG":
            raise ProbeFailed(f"PING was answered with {clean(answer, 80)!r}")
        attempt.phase = "waiting for the reply to INFO"
        detail: Detail = {"answer": "PONG"}
        for section in ("server", "replication"):
            connection.send(command("INFO", section))
            # A user who may PING need not be allowed to INFO.
            detail.update(facts(await reply(connection)))
        connection.send(command("QUIT"))
        return detail
