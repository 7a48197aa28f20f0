# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs: their output bounded, their whole process group gone when we are done with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.berth.platform.plugins.module_utils.probe.model import ProbeFailed, clean

# A program that ended may have left children that hold its output open: they get this long.
DRAIN_SECONDS = 0.2
REAP_SECONDS = 1.0
POLL_SECONDS = 0.01
READ_BYTES = 65536


@dataclass(frozen=True)
class Finished:
    """How a program ended; a signal's number is negative, as in subprocess."""

    rc: int
    stdout: bytes
    stderr: bytes


class _Pipe:
    """Reads to the end and keeps the beginning, for a program must not block on a full pipe."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self.kept = bytearray()
        self.ended = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.kept += data[: self._limit - len(self.kept)]
        if not data:
            self.leave()

    def leave(self) -> None:
        if not self.ended.is_set():
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self.ended.set()


async def _ended(process: subprocess.Popen[bytes]) -> int:
    # asyncio's own way differs between versions of Python: some wait for the children's end, too.
    while (rc := process.poll()) is None:
        await asyncio.sleep(POLL_SECONDS)
    return rc


async def run(argv: Sequence[str], limit: int) -> Finished:
    """Run *argv* without a shell and without input, keep *limit* bytes of each output."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
    except FileNotFoundError:
        raise ProbeFailed(f"{clean(argv[0], 80)}: no such program") from None
    except OSError as error:
        reason = (error.strerror or "cannot be run").lower()
        raise ProbeFailed(f"{clean(argv[0], 80)}: {reason}") from None
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    pipes = [_Pipe(stream.fileno(), limit) for stream in streams]
    try:
        rc = await _ended(process)
        outputs = asyncio.gather(*(pipe.ended.wait() for pipe in pipes))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(outputs, DRAIN_SECONDS)
        return Finished(rc, bytes(pipes[0].kept), bytes(pipes[1].kept))
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in pipes:
            pipe.leave()
        for stream in streams:
            stream.close()
        # What even SIGKILL does not end is not waited for.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_ended(process), REAP_SECONDS)
