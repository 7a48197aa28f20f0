"""Asks a server many times a second, from outside, and counts every request that is lost.

    load.py --address 10.89.3.11 --name www.example.com --ca ca.pem --path /api/version \\
        --path 'POST /api/work' --websockets 50 --websocket-path /api/ws --tally version

Half of the requests use connections that are kept, the other half make a connection each. Lines
on the standard input steer it: `phase NAME` begins another phase, `stop` or the input's end ends
it. On the standard output it says `{"event": "running"}` once a request and all WebSockets have
been answered, `{"event": "phase", …}` for each phase, and a summary at the end. The exit status is
0 if nothing was lost or unsent, else 1. Python's standard library alone, 3.11 or later.

Requests leave by the clock, whether earlier ones were answered or not, and each one's time counts
from when it was due: a server that stalls cannot hide it. What is not as expected within the
timeout is lost: no connection, a reset, an end in the middle, another status. Nothing is tried
again, but with --resend a GET whose kept connection turns out to be closed before any answer, as
RFC 9112 (9.3.1) lets clients do; those are counted apart. A WebSocket that is closed with 1001 and
comes back at the first try is drained, and what it had not got an echo of it sends again; any other
end is lost.

`unsent` in the summary are requests that were due while --most others had no answer yet: not lost,
but the load was not what was asked for. `lag` is how late requests left: where it is small, the
server and not this program was measured. With TLS a request costs 0.6 to 0.9 ms of one
processor: 200 a second take a fifth of it, and 600 were reached on a busy machine with two.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import re
import shlex
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GOING_AWAY = 1001
# Of each of the two kinds of failures' details; all are counted.
DETAILS = 500
# Without --seconds it ends by itself, too.
LONGEST = 900.0
# Until it has begun in earnest; else it ends.
PATIENCE = 30.0
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What is asked, and how often."""

    address: str
    port: int = 443
    name: str = "localhost"
    tls: bool = True
    ca: str = ""
    paths: Sequence[str] = ("/",)
    expect: int = 200
    headers: Sequence[str] = ()
    rate: float = 200.0
    kept: float = 0.5
    connections: int = 20
    websockets: int = 0
    websocket_path: str = "/ws"
    websocket_interval: float = 1.0
    sources: Sequence[str] = ()
    timeout: float = 10.0
    resend: bool = False
    most: int = 1000
    tally: str = ""
    seconds: float = 0.0
    phase: str = "start"


class Lost(Exception):
    """Why a request has no answer, or not the right one."""


class Unheard(Lost):
    """A kept connection was closed before the request had any answer."""


class Closed(Exception):
    """The other side has closed the WebSocket."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


def reason(error: BaseException) -> str:
    """An error of the network in few words, the same for the same cause."""
    if isinstance(error, Lost):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    if isinstance(error, ConnectionResetError):
        return "reset"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else str(error)
    return f"{type(error).__name__}: {error}"


# ----------------------------------------------------------------------------------- one connection


class Link(asyncio.Protocol):
    """A connection: answers to one request after another, then perhaps a WebSocket."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.buffer = bytearray()
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.asked = 0
        self.open = False
        self.reusable = True
        # Of the answer that is being read: its status, where its body begins, how long that is.
        self.head: tuple[int, int, int | None] | None = None
        self.frames: asyncio.Queue[bytes | None] | None = None
        self.parts = bytearray()
        self.code = 1006
        # The head of the answer that made it a WebSocket.
        self.upgraded = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, orderly or not."""
        self.open = False
        if self.frames is not None:
            self.frames.put_nowait(None)
        if self.waiting is None or self.waiting.done():
            return
        if self.head and self.head[2] is None and error is None:
            status, begin, _ = self.head
            self.waiting.set_result((status, bytes(self.buffer[begin:])))
        elif self.buffer:
            self.waiting.set_exception(Lost("ended in the middle of the answer"))
        else:
            how = reason(error) if error else "closed"
            kind = Unheard if self.asked > 1 else Lost
            self.waiting.set_exception(kind(f"{how} before the answer"))

    def eof_received(self) -> bool:
        """Nothing more will come."""
        return False

    def data_received(self, data: bytes) -> None:
        """More of an answer, or of frames."""
        self.buffer += data
        if self.frames is not None:
            self._read_frames()
        elif self.waiting is not None and not self.waiting.done():
            try:
                self._read_answer()
            except (ValueError, IndexError):
                self.waiting.set_exception(Lost("not an answer of HTTP"))
        else:
            # Nobody has asked.
            self.close()

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; its status and body."""
        self.asked += 1
        self.head = None
        self.waiting = asyncio.get_running_loop().create_future()
        if self.open:
            self.transport.write(request)
        else:
            kind = Unheard if self.asked > 1 else Lost
            self.waiting.set_exception(kind("closed before the answer"))
        return self.waiting

    def close(self) -> None:
        """End it at once."""
        self.open = False
        self.transport.abort()

    def _read_answer(self) -> None:
        assert self.waiting is not None
        if self.head is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[: end + 2])
            if not head.startswith(b"HTTP/1.1 "):
                raise ValueError("another protocol")
            status = int(head[9:12])
            self.upgraded = head if status == 101 else b""
            if CLOSES.search(head):
                self.reusable = False
            length: int | None = None
            if found := LENGTH.search(head):
                length = int(found[1])
            elif CHUNKED.search(head):
                length = -1
            elif status in (101, 204, 304):
                length = 0
            if length is None:
                self.reusable = False
            self.head = (status, end + 4, length)
        status, begin, length = self.head
        if length is None:
            return
        if length == -1:
            body = self._read_chunks(begin)
            if body is None:
                return
        else:
            if len(self.buffer) < begin + length:
                return
            body = bytes(self.buffer[begin : begin + length])
            del self.buffer[: begin + length]
            if self.buffer and status != 101:
                self.reusable = False
        if status == 101:
            self.frames = asyncio.Queue()
        self.waiting.set_result((status, body))
        if self.frames is not None and self.buffer:
            self._read_frames()

    def _read_chunks(self, at: int) -> bytes | None:
        """The body, once its last chunk is there."""
        parts: list[bytes] = []
        while True:
            end = self.buffer.find(b"\r\n", at)
            if end < 0:
                return None
            size = int(self.buffer[at:end].split(b";")[0], 16)
            if size == 0:
                last = self.buffer.find(b"\r\n\r\n", end)
                if last < 0:
                    return None
                del self.buffer[: last + 4]
                return b"".join(parts)
            at = end + 2
            if len(self.buffer) < at + size + 2:
                return None
            parts.append(bytes(self.buffer[at : at + size]))
            at += size + 2

    # ----------------------------------------------------------------------- RFC 6455

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """A whole message, masked as a client's have to be."""
        if not self.open:
            return
        mask = os.urandom(4)
        size = len(payload)
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        if size > 125:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        masked = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
        self.transport.write(head + mask + masked)

    def _read_frames(self) -> None:
        assert self.frames is not None
        while len(self.buffer) >= 2:
            first, size = self.buffer[0], self.buffer[1] & 0x7F
            begin = 2
            if size == 126:
                begin = 4
                if len(self.buffer) < begin:
                    return
                (size,) = struct.unpack_from("!H", self.buffer, 2)
            elif size == 127:
                begin = 10
                if len(self.buffer) < begin:
                    return
                (size,) = struct.unpack_from("!Q", self.buffer, 2)
            if len(self.buffer) < begin + size:
                return
            payload = bytes(self.buffer[begin : begin + size])
            del self.buffer[: begin + size]
            opcode = first & 0x0F
            if opcode == 8:
                self.code = struct.unpack_from("!H", payload)[0] if size >= 2 else 1005
                self.send_frame(8, payload[:2])
                self.frames.put_nowait(None)
                return
            if opcode == 9:
                self.send_frame(10, payload)
            elif opcode < 3:
                self.parts += payload
                if first & 0x80:
                    self.frames.put_nowait(bytes(self.parts))
                    self.parts.clear()

    async def receive(self) -> bytes:
        """The next message."""
        assert self.frames is not None
        message = await self.frames.get()
        if message is None:
            raise Closed(self.code)
        return message


# ------------------------------------------------------------------------------------- what is told


@dataclass
class Times:
    """One kind of requests in one phase."""

    sent: int = 0
    ok: int = 0
    lost: int = 0
    unsent: int = 0
    resent: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))

    def told(self) -> dict[str, Any]:
        """Counts, and times in milliseconds."""
        ordered = sorted(self.seconds)
        return {
            "sent": self.sent,
            "ok": self.ok,
            "lost": self.lost,
            "unsent": self.unsent,
            "resent": self.resent,
            **{name: percentile(ordered, part) for name, part in PERCENTILES.items()},
        }


PERCENTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The nearest rank, in milliseconds."""
    if not ordered:
        return None
    return round(ordered[max(0, -int(-part * len(ordered) // 1) - 1)] * 1000, 2)


@dataclass
class Phase:
    """A time between two marks. A request belongs to the phase in which it was due."""

    name: str
    began: float
    ended: float = 0.0
    kept: Times = field(default_factory=Times)
    fresh: Times = field(default_factory=Times)
    # Messages and their echoes.
    websocket: Times = field(default_factory=Times)
    drained: int = 0
    ticks: int = 0
    longest_gap: float = 0.0
    idle_closed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """All that was lost in it."""
        return self.kept.lost + self.fresh.lost + self.websocket.lost

    def told(self) -> dict[str, Any]:
        """The phase as JSON."""
        return {
            "name": self.name,
            "seconds": round(self.ended - self.began, 3),
            "lost": self.lost,
            "kept": self.kept.told(),
            "fresh": self.fresh.told(),
            "websocket": {
                **self.websocket.told(),
                "drained": self.drained,
                "ticks": self.ticks,
                "longest_gap": round(self.longest_gap * 1000, 2),
            },
            "idle_closed": self.idle_closed,
            "reasons": dict(self.reasons),
            "tally": dict(self.tally),
        }


# --------------------------------------------------------------------------------------- the client


class Client:
    """Sends by the clock, and keeps count."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.context = self._context()
        self.stopping = asyncio.Event()
        self.began = self.loop.time()
        self.wall = time.time()
        self.phases = [Phase(options.phase, self.began)]
        self.failures: list[dict[str, Any]] = []
        self.lags: array[float] = array("d")
        self.idle: deque[Link] = deque()
        self.kept_open = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.open_websockets = 0
        self.running = False
        self.answered = False
        self.sources = [host for each in options.sources for host in addresses(each)]
        self.turn = 0
        pattern = rf'"{re.escape(options.tally)}":\s*("[^"]*"|[^,}}\s]+)'.encode()
        self.tally = re.compile(pattern) if options.tally else None
        self.requests = {
            kept: [self._request(path, kept) for path in options.paths] for kept in (True, False)
        }

    def _context(self) -> ssl.SSLContext | None:
        if not self.options.tls:
            return None
        return ssl.create_default_context(cafile=self.options.ca or None)

    def _head(self, method: str, path: str, *more: str) -> bytes:
        usual = [f"{method} {path} HTTP/1.1", f"Host: {self.options.name}", *self.options.headers]
        return "\r\n".join([*usual, *more, "", ""]).encode()

    def _request(self, text: str, kept: bool) -> tuple[str, bytes]:
        method, _, path = text.rpartition(" ")
        more = [] if kept else ["Connection: close"]
        if method not in ("", "GET"):
            more.append("Content-Length: 0")
        method = method or "GET"
        return f"{method} {path}", self._head(method, path, *more)

    @property
    def phase(self) -> Phase:
        """The one that is now."""
        return self.phases[-1]

    def mark(self, name: str) -> None:
        """Begin another phase."""
        now = self.loop.time()
        self.phase.ended = now
        self.phases.append(Phase(name, now))
        say({"event": "phase", "name": name, "second": round(now - self.began, 3)})

    def lose(self, phase: Phase, times: Times, kind: str, what: str, error: BaseException) -> None:
        """Count a loss, with its time and reason."""
        why = reason(error)
        times.lost += 1
        phase.reasons[f"{kind}: {why}"] += 1
        if len(self.failures) < DETAILS:
            second = self.loop.time() - self.began
            self.failures.append(
                {
                    "time": round(self.wall + second, 3),
                    "second": round(second, 3),
                    "phase": phase.name,
                    "kind": kind,
                    "request": what,
                    "reason": why,
                }
            )

    async def connect(self) -> Link:
        """A new connection, from the next of the sources."""
        options = self.options
        source = None
        if self.sources:
            source = (self.sources[self.turn % len(self.sources)], 0)
            self.turn += 1
        try:
            _, link = await self.loop.create_connection(
                Link,
                options.address,
                options.port,
                ssl=self.context,
                server_hostname=options.name if self.context else None,
                local_addr=source,
            )
        except (OSError, EOFError) as error:
            raise Lost(f"connect: {reason(error)}") from error
        return link

    # ------------------------------------------------------------------- requests

    async def keep_pace(self) -> None:
        """A request whenever one is due."""
        interval = 1 / self.options.rate
        due = self.loop.time()
        share = 0.0
        turns = {True: 0, False: 0}
        while not self.stopping.is_set():
            now = self.loop.time()
            while due <= now:
                share += self.options.kept
                kept = share >= 1
                share -= kept
                requests = self.requests[kept]
                what, request = requests[turns[kept] % len(requests)]
                turns[kept] += 1
                self.lags.append(now - due)
                task = self.loop.create_task(self.one(kept, what, request, due))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                due += interval
            await asyncio.sleep(due - self.loop.time())

    async def one(self, kept: bool, what: str, request: bytes, due: float) -> None:
        """One request, from when it was due to its answer."""
        phase = self.phase
        times = phase.kept if kept else phase.fresh
        if len(self.tasks) > self.options.most:
            times.unsent += 1
            return
        times.sent += 1
        try:
            async with asyncio.timeout(self.options.timeout):
                if kept:
                    status, body = await self.ask_kept(what, request, times)
                else:
                    status, body = await self.ask_fresh(request)
            if status != self.options.expect:
                raise Lost(f"status {status}")
        except Exception as error:  # one of this program's own is a loss, too
            self.lose(phase, times, "kept" if kept else "fresh", what, error)
            return
        times.ok += 1
        times.seconds.append(self.loop.time() - due)
        if self.tally and (found := self.tally.search(body)):
            phase.tally[found[1].decode().strip('"')] += 1
        self.answered = True

    async def ask_fresh(self, request: bytes) -> tuple[int, bytes]:
        """By a connection of its own."""
        link = await self.connect()
        try:
            return await link.ask(request)
        finally:
            link.close()

    async def ask_kept(self, what: str, request: bytes, times: Times) -> tuple[int, bytes]:
        """By one that is kept: the one that was idle for the longest."""
        try:
            return await self.ask_by(await self.take(), request)
        except Unheard:
            if not (self.options.resend and what.startswith("GET ")):
                raise
        times.resent += 1
        self.kept_open += 1
        try:
            link = await self.connect()
        except BaseException:
            self.kept_open -= 1
            raise
        return await self.ask_by(link, request)

    async def take(self) -> Link:
        """An idle connection, or a new one while there are too few or all are busy."""
        while self.idle and self.kept_open >= self.options.connections:
            link = self.idle.popleft()
            if link.open:
                return link
            self.phase.idle_closed += 1
            self.kept_open -= 1
        self.kept_open += 1
        try:
            return await self.connect()
        except BaseException:
            self.kept_open -= 1
            raise

    async def ask_by(self, link: Link, request: bytes) -> tuple[int, bytes]:
        """Ask, and put the connection back if it is good for more."""
        good = False
        try:
            answer = await link.ask(request)
            good = link.open and link.reusable and self.kept_open <= self.options.connections
            return answer
        finally:
            if good:
                self.idle.append(link)
            else:
                self.kept_open -= 1
                link.close()

    # ----------------------------------------------------------------- WebSockets

    async def websocket(self, number: int) -> None:
        """One that is to stay open, and comes back where it was closed."""
        options = self.options
        await asyncio.sleep(options.websocket_interval * number / options.websockets)
        pending: list[bytes] = []
        left: float | None = None
        drained = False
        while not self.stopping.is_set():
            link: Link | None = None
            phase = self.phase
            try:
                async with asyncio.timeout(options.timeout):
                    link = await self.upgrade()
                self.open_websockets += 1
                try:
                    now = self.loop.time()
                    if left is not None:
                        phase.longest_gap = max(phase.longest_gap, now - left)
                    if drained:
                        phase.drained += 1
                    drained = False
                    await self.talk(link, number, pending)
                finally:
                    left = self.loop.time()
                    if not self.stopping.is_set():
                        self.open_websockets -= 1
            except Exception as error:
                phase = self.phase
                if isinstance(error, Closed) and error.code == GOING_AWAY and not drained:
                    # Counted once it is back.
                    drained = True
                    continue
                what = f"WebSocket {number}"
                if drained:
                    what += ", coming back after 1001"
                drained = False
                self.lose(phase, phase.websocket, "websocket", what, error_of(error))
                await asyncio.sleep(0.5)
            finally:
                if link is not None:
                    link.send_frame(8, struct.pack("!H", 1000))
                    link.close()

    async def upgrade(self) -> Link:
        """A new WebSocket."""
        link = await self.connect()
        key = base64.b64encode(os.urandom(16))
        head = self._head(
            "GET",
            self.options.websocket_path,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
        )
        try:
            status, _ = await link.ask(head)
        except BaseException:
            link.close()
            raise
        accepted = base64.b64encode(hashlib.sha1(key + GUID).digest())
        if status == 101 and accepted in link.upgraded:
            return link
        link.close()
        raise Lost(f"status {status} instead of 101" if status != 101 else "accepted another key")

    async def talk(self, link: Link, number: int, pending: list[bytes]) -> None:
        """Messages and their echoes, until it is closed. *pending* has what waits for its echo."""
        interval = self.options.websocket_interval
        while pending or not self.stopping.is_set():
            if not pending:
                pending.append(f"{number}.{os.urandom(6).hex()}".encode())
            began = self.loop.time()
            phase = self.phase
            phase.websocket.sent += 1
            link.send_frame(1, pending[0])
            async with asyncio.timeout(self.options.timeout):
                while await link.receive() != pending[0]:
                    phase.ticks += 1
            pending.clear()
            phase.websocket.ok += 1
            phase.websocket.seconds.append(self.loop.time() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(began + interval):
                    while True:
                        await link.receive()
                        self.phase.ticks += 1

    # ------------------------------------------------------------------------ all

    async def run(self) -> dict[str, Any]:
        """Until it is told to stop; the summary."""
        processor = time.process_time()
        sockets = [
            self.loop.create_task(self.websocket(each)) for each in range(self.options.websockets)
        ]
        pace = self.loop.create_task(self.keep_pace())
        starter = self.loop.create_task(self.tell_running())
        await self.stopping.wait()
        seconds = self.loop.time() - self.began
        open_websockets = self.open_websockets
        await pace
        while self.tasks:
            await asyncio.wait(set(self.tasks))
        # What was begun is waited for, echoes too.
        starter.cancel()
        done = await asyncio.gather(starter, *sockets, return_exceptions=True)
        for link in self.idle:
            link.close()
        self.phase.ended = self.loop.time()
        # A fault of this program is no loss of the server's, and must not pass for none at all.
        for error in done:
            if isinstance(error, Exception):
                raise error
        used = time.process_time() - processor
        return self.summary(seconds, used, open_websockets)

    async def tell_running(self) -> None:
        """Say so once it has begun in earnest."""
        wanted = self.options.websockets
        self.loop.call_later(PATIENCE, self.give_up)
        while not (self.answered and self.open_websockets == wanted):
            await asyncio.sleep(0.05)
        self.running = True
        say({"event": "running"})

    def give_up(self) -> None:
        """There is no use in a load that has not begun."""
        if not self.running:
            self.stopping.set()

    def summary(self, seconds: float, processor: float, open_websockets: int) -> dict[str, Any]:
        """All that was counted."""
        kinds = [times for phase in self.phases for times in (phase.kept, phase.fresh)]
        sent = sum(times.sent for times in kinds)
        lags = sorted(self.lags)
        return {
            "event": "summary",
            "lost": sum(phase.lost for phase in self.phases),
            "sent": sent,
            "ok": sum(times.ok for times in kinds),
            "unsent": sum(times.unsent for times in kinds),
            "resent": sum(times.resent for times in kinds),
            "echoes": sum(phase.websocket.ok for phase in self.phases),
            "drained": sum(phase.drained for phase in self.phases),
            "open_websockets": open_websockets,
            "seconds": round(seconds, 3),
            "rate": round(sent / seconds, 1) if seconds else 0.0,
            "lag": {name: percentile(lags, part) for name, part in PERCENTILES.items()},
            "processor": round(processor / seconds, 3) if seconds else 0.0,
            "phases": [phase.told() for phase in self.phases],
            "failures": self.failures,
        }


def error_of(error: BaseException) -> BaseException:
    """A close code as a reason."""
    return Lost(str(error)) if isinstance(error, Closed) else error


def addresses(text: str) -> list[str]:
    """An address, or all of a network's."""
    network = ipaddress.ip_network(text, strict=False)
    return [str(each) for each in network.hosts()] or [str(network.network_address)]


def say(event: dict[str, Any]) -> None:
    """A line of JSON."""
    print(json.dumps(event), flush=True)


async def steered(options: Options) -> dict[str, Any]:
    """Run by what the standard input says."""
    client = Client(options)
    loop = asyncio.get_running_loop()

    def obey(line: str) -> None:
        command, _, rest = line.strip().partition(" ")
        if command == "phase" and rest:
            client.mark(rest)
        elif command == "stop":
            client.stopping.set()

    def listen() -> None:
        rest = b""
        # By the number: a thread that waits for sys.stdin would hinder the program's end.
        with contextlib.suppress(RuntimeError, OSError):
            while data := os.read(0, 4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    loop.call_soon_threadsafe(obey, line.decode())
            if not options.seconds:
                loop.call_soon_threadsafe(client.stopping.set)

    threading.Thread(target=listen, daemon=True).start()
    loop.call_later(options.seconds or LONGEST, client.stopping.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, client.stopping.set)
    return await client.run()


def parse(arguments: Sequence[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--address", required=True, help="where to connect to")
    add("--port", type=int, default=443)
    add("--name", default="localhost", help="server name, of TLS and of the Host header")
    add("--plain", dest="tls", action="store_false", help="without TLS")
    add("--ca", default="", help="file with the authority to trust, and no other")
    add("--path", dest="paths", action="append", metavar="'[METHOD ]PATH'", help="several: in turn")
    add("--expect", type=int, default=200, help="status of an answer that is right")
    add("--header", dest="headers", action="append", default=[], metavar="'NAME: VALUE'")
    add("--rate", type=float, default=200.0, help="requests a second")
    add("--kept", type=float, default=0.5, help="share of requests by connections that are kept")
    add("--connections", type=int, default=20, help="how many are kept")
    add("--websockets", type=int, default=0, help="how many are open")
    add("--websocket-path", default="/ws")
    add("--websocket-interval", type=float, default=1.0, help="seconds between its messages")
    add("--source", dest="sources", action="append", default=[], help="own address or network")
    add("--timeout", type=float, default=10.0, help="seconds for a request in all")
    add("--resend", action="store_true", help="a GET that a closed kept connection did not take")
    add("--most", type=int, default=1000, help="requests without an answer, above which none leave")
    add("--tally", default="", help="key of JSON answers whose values are counted")
    add("--seconds", type=float, default=0.0, help="end by itself, whatever the standard input")
    add("--phase", default="start", help="name of the first phase")
    given = vars(parser.parse_args(arguments))
    given["paths"] = given["paths"] or ["/"]
    return Options(**given)


# --------------------------------------------------------------------------------------- for tests


@dataclass
class Load:
    """The client as a process: here, or on a host by the command line that runs a shell there."""

    process: subprocess.Popen[str]
    summary: dict[str, Any] = field(default_factory=dict)

    def _event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the load client ended with {self.process.wait()}")
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "summary":
            self.summary = event
        return event

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def begin(self, phase: str) -> None:
        """Another phase; it has begun when this returns."""
        self._tell(f"phase {phase}")
        while self._event().get("name") != phase:
            pass

    def stop(self) -> dict[str, Any]:
        """End it; the summary."""
        if self.process.poll() is None and not self.summary:
            self._tell("stop")
        while not self.summary:
            self._event()
        self.process.wait(30)
        return self.summary


@contextlib.contextmanager
def load(arguments: Sequence[str], shell: Sequence[str] = ()) -> Iterator[Load]:
    """Load for a block, from here or through *shell* (`host.ssh("")[:-1]`); it runs by then."""
    command = [sys.executable, __file__, *arguments]
    if shell:
        program = Path(__file__).read_text(encoding="utf-8")
        command = [*shell, shlex.join(["exec", "python3", "-c", program, *arguments])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found = Load(process)
    try:
        while (event := found._event())["event"] != "running":
            if event["event"] == "summary":
                reasons = [phase["reasons"] for phase in event["phases"]]
                raise AssertionError(f"the load did not begin: {reasons}")
        yield found
    finally:
        with contextlib.suppress(OSError):
            process.communicate(timeout=40)
        process.kill()
        process.wait()


def main() -> int:
    """The command."""
    summary = asyncio.run(steered(parse(sys.argv[1:])))
    say(summary)
    return 1 if summary["lost"] or summary["unsent"] else 0


if __name__ == "__main__":
    sys.exit(main())
