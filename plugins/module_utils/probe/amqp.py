# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AMQP 0-9-1: through the handshake into the virtual host, and out again in order.

Frames as in the specification, https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, sections
2.3.5 and 4.2, and RabbitMQ's errata for field tables. Without credentials a server that begins
the handshake with Connection.Start is alive.
"""

from __future__ import annotations

import struct

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

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEARTBEAT, END = 1, 8, 0xCE
CONNECTION = 10
START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK, CLOSE, CLOSE_OK = 10, 11, 30, 31, 40, 41, 50, 51
# What a client must be able to receive before Tune settles it (section 4.2.3 asks for 4096).
FRAME_LIMIT = 128 * 1024
FRAMES_LIMIT = 32

_NUMBERS = {
    "b": ">b", "B": ">B", "s": ">h", "U": ">h", "u": ">H", "I": ">i", "i": ">I",
    "l": ">q", "L": ">q", "f": ">f", "d": ">d", "T": ">Q",
}  # fmt: skip
DEPTH_LIMIT = 8


class Reader:
    """Values out of a frame; reading beyond its end is the server's fault."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ProbeFailed("a malformed frame")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, layout: str) -> int | float:
        value: int | float = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def short_string(self) -> str:
        return self.take(self.take(1)[0]).decode("utf-8", "replace")

    def long_string(self) -> bytes:
        return self.take(int(self.number(">I")))

    def table(self, depth: int = 0) -> dict[str, object]:
        inner = Reader(self.long_string())
        found: dict[str, object] = {}
        while not inner.at_end:
            name = inner.short_string()
            found[name] = inner.value(depth)
        return found

    def value(self, depth: int) -> object:
        if depth > DEPTH_LIMIT:
            raise ProbeFailed("a malformed frame")
        kind = chr(self.take(1)[0])
        if kind == "S":
            return self.long_string().decode("utf-8", "replace")
        if kind == "t":
            return self.take(1) != b"\0"
        if kind == "F":
            return self.table(depth + 1)
        if kind == "x":
            return self.long_string()
        if kind == "V":
            return None
        if kind == "D":
            self.take(5)
            return None
        if kind == "A":
            inner = Reader(self.long_string())
            items = []
            while not inner.at_end:
                items.append(inner.value(depth + 1))
            return items
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        raise ProbeFailed("a malformed frame")


def short_string(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def long_string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def table(values: dict[str, str | bool | dict[str, bool]]) -> bytes:
    """A field table of strings, booleans and tables of booleans."""
    parts = []
    for name, value in values.items():
        parts.append(short_string(name))
        if isinstance(value, bool):
            parts.append(b"t" + bytes([value]))
        elif isinstance(value, dict):
            parts.append(b"F" + table({**value}))
        else:
            parts.append(b"S" + long_string(value.encode()))
    return long_string(b"".join(parts))


def method(number: int, arguments: bytes) -> bytes:
    """A method frame of class connection, on channel 0."""
    payload = struct.pack(">HH", CONNECTION, number) + arguments
    return struct.pack(">BHI", METHOD, 0, len(payload)) + payload + bytes([END])


def start_ok(user: str, password: str) -> bytes:
    properties = table(
        {
            "product": "berth health probe",
            # The server then says why it refuses, and does not just hang up.
            "capabilities": {"authentication_failure_close": True},
        }
    )
    response = b"\0" + user.encode() + b"\0" + password.encode()
    return method(
        START_OK,
        properties + short_string("PLAIN") + long_string(response) + short_string("en_US"),
    )


async def _method(connection: Connection, wanted: int) -> Reader:
    """The arguments of the next method, which must be *wanted*."""
    for _frame in range(FRAMES_LIMIT):
        head = await connection.exactly(7)
        if head[:4] == b"AMQP":
            raise ProbeFailed("the server does not speak AMQP 0-9-1")
        kind, _channel, size = struct.unpack(">BHI", head)
        if kind not in (METHOD, HEARTBEAT) or size > FRAME_LIMIT:
            raise ProbeFailed("not an AMQP frame")
        payload = await connection.exactly(size + 1)
        if payload[-1] != END:
            raise ProbeFailed("not an AMQP frame")
        if kind == HEARTBEAT:
            continue
        reader = Reader(payload[:-1])
        class_number, number = reader.number(">H"), reader.number(">H")
        if class_number == CONNECTION and number == wanted:
            return reader
        if class_number == CONNECTION and number == CLOSE:
            code = reader.number(">H")
            raise ProbeFailed(f"refused: {code} {clean(reader.short_string())}")
        raise ProbeFailed(f"an unexpected method {class_number}.{number}")
    raise ProbeFailed("too many frames")


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt, tls=probe.tls) as connection:
        attempt.phase = "waiting for Connection.Start"
        connection.send(HEADER)
        start = await _method(connection, START)
        start.take(2)
        properties = start.table()
        detail: Detail = {
            key: clean(value, 80)
            for key in ("product", "version", "cluster_name")
            if isinstance(value := properties.get(key), str)
        }
        if probe.user is None:
            return detail
        mechanisms = start.long_string().split()
        if b"PLAIN" not in mechanisms:
            raise ProbeFailed("the server does not offer PLAIN authentication")
        attempt.phase = "authenticating"
        connection.send(start_ok(probe.user, probe.password or ""))
        tune = await _method(connection, TUNE)
        channels, frame = tune.number(">H"), tune.number(">I")
        connection.send(method(TUNE_OK, struct.pack(">HIH", channels, frame, 0)))
        attempt.phase = f"opening the virtual host {probe.vhost}"
        connection.send(method(OPEN, short_string(probe.vhost) + b"\0\0"))
        await _method(connection, OPEN_OK)
        attempt.phase = "closing"
        connection.send(method(CLOSE, struct.pack(">H", 200) + short_string("bye") + b"\0\0\0\0"))
        await _method(connection, CLOSE_OK)
        return detail
