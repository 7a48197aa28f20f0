# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that cannot be made to wait or to swallow more than they asked for.

A small asyncio protocol in place of asyncio's streams: they cannot change to TLS on Python 3.10,
and cost more per connection. Time limits are the scheduler's: it cancels, and ``leave`` is sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator

from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    ProbeFailed,
    clean,
)

# Above this much unread data the socket is not read until the reader has caught up.
HIGH_WATER = 256 * 1024
# Resolved names are believed for this many seconds, so that a thousand probes of a host ask once.
NAME_SECONDS = 5.0

_FAULTS = {
    ConnectionRefusedError: "connection refused",
    ConnectionResetError: "connection reset",
    BrokenPipeError: "connection reset",
    ConnectionAbortedError: "connection aborted",
}


def os_error(error: OSError) -> str:
    """Why a connection failed, in few words."""
    for kind, words in _FAULTS.items():
        if isinstance(error, kind):
            return words
    return clean(error.strerror or str(error) or type(error).__name__).lower()


def tls_error(error: ssl.SSLError) -> str:
    """Why TLS failed, in OpenSSL's words without its file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {clean(error.verify_message)}"
    reason = (error.reason or "").replace("_", " ").lower()
    return f"TLS failed: {reason or clean(str(error))}"


class Connection(asyncio.Protocol):
    """A byte stream with bounded reads."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._paused = False
        self._transport: asyncio.Transport | None = None
        # Below TLS, or the same.
        self._raw: asyncio.Transport | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = self._raw = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > HIGH_WATER and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = self._error or exc
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What probes call.

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def leave(self) -> None:
        """Let go at once; a peer that does not read cannot hold us."""
        if self._transport is None or self._raw is None:
            return
        if self._transport is not self._raw and not self._transport.is_closing():
            # Says goodbye (close_notify), without which PostgreSQL logs a reset connection. To
            # close it twice breaks it on Python 3.11.2, which Debian 12 has.
            self._transport.close()
        self._raw.abort()

    async def _more(self) -> bool:
        """Wait for more bytes; False when there will be none."""
        if self._ended:
            if isinstance(self._error, ssl.SSLError):
                raise ProbeFailed(tls_error(self._error))
            if isinstance(self._error, OSError):
                raise ProbeFailed(os_error(self._error))
            return False
        if self._paused and self._transport is not None:
            self._transport.resume_reading()
            self._paused = False
        before = len(self._buffer)
        while len(self._buffer) == before and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return len(self._buffer) > before or await self._more()

    async def exactly(self, count: int) -> bytes:
        """The next *count* bytes."""
        while len(self._buffer) < count:
            if not await self._more():
                raise ProbeFailed(_closed(len(self._buffer), count))
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def some(self, limit: int) -> bytes:
        """Up to *limit* bytes as soon as there are any; none at the end of the stream."""
        if not self._buffer and not await self._more():
            return b""
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        return data

    async def line(self, limit: int, too_long: str | None = None) -> bytes:
        """Up to and including the next newline, without the line's end."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= limit or (end < 0 and len(self._buffer) > limit):
                raise ProbeFailed(too_long or f"a line longer than {limit} bytes")
            if end >= 0:
                break
            searched = len(self._buffer)
            if not await self._more():
                raise ProbeFailed(_closed(len(self._buffer)))
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return data[:-1] if data.endswith(b"\r") else data

    async def start_tls(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Go on over TLS; what came before it in the clear is not believed (CVE-2021-23222)."""
        if self._buffer:
            raise ProbeFailed("data in the clear after the change to TLS")
        if self._transport is None or self._ended:
            raise ProbeFailed(_closed(0))
        transport = await asyncio.get_running_loop().start_tls(
            self._transport, self, context, server_hostname=server_name
        )
        if transport is None:
            raise ProbeFailed("connection closed during the TLS handshake")
        self._transport = transport

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        if self._transport is None:
            return None
        found = self._transport.get_extra_info("ssl_object")
        return found if isinstance(found, ssl.SSLObject) else None


def _closed(have: int, want: int | None = None) -> str:
    if not have:
        return "connection closed without an answer"
    return f"connection closed after {have} bytes" + (f" of {want}" if want else "")


class Resolver:
    """Names to addresses, each name once, in threads that nobody has to wait for.

    asyncio's own resolver runs in an executor whose threads are joined at exit: one dead name
    server would outlive every deadline.
    """

    def __init__(self) -> None:
        self._cache: dict[str, tuple[float, asyncio.Future[list[str]]]] = {}

    async def addresses(self, name: str) -> list[str]:
        if is_literal(name):
            return [name]
        now = time.monotonic()
        made, future = self._cache.get(name, (0.0, None))
        if future is None or (future.done() and (future.exception() or now - made > NAME_SECONDS)):
            future = self._ask(name)
            self._cache[name] = (now, future)
        return await asyncio.shield(future)

    def _ask(self, name: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | None, error: Exception | None) -> None:
            if future.done():
                return
            if found is not None:
                future.set_result(found)
            else:
                future.set_exception(error or OSError("no address"))

        def work() -> None:
            found: list[str] | None = None
            failure: Exception | None = None
            try:
                entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
            except (OSError, UnicodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not a valid name"
                failure = ProbeFailed(f"cannot resolve {clean(name, 80)}: {str(reason).lower()}")
            # When the loop is closed the run is over, and nobody asks any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, found, failure)

        threading.Thread(target=work, daemon=True).start()
        # Nobody may be waiting when it fails (their time was up): that is no accident to log.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future


class Contexts:
    """TLS settings, made once each: reading the system's authorities takes milliseconds."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, bool, str | None], ssl.SSLContext] = {}

    def get(self, verify: bool, ca_file: str | None, check_hostname: bool = True) -> ssl.SSLContext:
        key = (verify, verify and check_hostname, ca_file if verify else None)
        if key not in self._made:
            self._made[key] = _context(*key)
        return self._made[key]


def _context(verify: bool, check_hostname: bool, ca_file: str | None) -> ssl.SSLContext:
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ProbeFailed(f"ca_file {ca_file} holds no certificate") from None
    except OSError as error:
        raise ProbeFailed(f"ca_file {ca_file}: {os_error(error)}") from None
    context.check_hostname = check_hostname
    return context


def is_literal(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


@contextlib.asynccontextmanager
async def connected(attempt: Attempt, *, tls: bool = False) -> AsyncIterator[Connection]:
    """A connection to the probe's address, over TLS if asked, gone when the block is left."""
    connection = Connection()
    try:
        try:
            await _connect(attempt, connection)
            if tls:
                await secure(attempt, connection)
            yield connection
        except ssl.SSLError as error:
            raise ProbeFailed(tls_error(error)) from None
        except OSError as error:
            raise ProbeFailed(os_error(error)) from None
    finally:
        connection.leave()


async def secure(
    attempt: Attempt, connection: Connection, context: ssl.SSLContext | None = None
) -> None:
    """TLS on top, by the probe's own verify, ca_file and names."""
    probe = attempt.probe
    attempt.phase = "waiting for the TLS handshake"
    if context is None:
        context = attempt.tools.contexts.get(probe.verify, probe.ca_file)
    await connection.start_tls(context, probe.server_name or probe.host or probe.address)


async def _connect(attempt: Attempt, connection: Connection) -> None:
    probe = attempt.probe
    loop = asyncio.get_running_loop()
    started = loop.time()
    attempt.phase = "resolving the name"
    addresses = await attempt.tools.resolver.addresses(probe.address)
    attempt.phase = "connecting"
    failure: OSError | None = None
    for number, address in enumerate(addresses):
        # An address that does not answer must leave time for those behind it.
        behind = len(addresses) - number - 1
        left = probe.timeout - (loop.time() - started)
        opening = loop.create_connection(lambda: connection, address, probe.port)
        try:
            if behind:
                await asyncio.wait_for(opening, max(left / (behind + 1), 0.05))
            else:
                await opening
        except asyncio.TimeoutError:
            failure = OSError(f"no answer from {address}")
        except OSError as error:
            failure = error
        else:
            return
    raise failure or OSError("no address")
