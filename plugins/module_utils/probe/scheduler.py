# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs any number of probes at once, each by its own rules, all of them before the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.probe import (
    amqp,
    command,
    http,
    kafka,
    postgresql,
    redis,
    systemd,
    tcp,
    tls,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.connection import (
    Contexts,
    Resolver,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    Probe,
    ProbeFailed,
    clean,
    redact,
)

Check = Callable[[Attempt], Awaitable[Detail]]

CHECKS: Mapping[str, Check] = {
    "http": http.check,
    "https": http.check,
    "tcp": tcp.check,
    "tls": tls.check,
    "postgresql": postgresql.check,
    "redis": redis.check,
    "amqp": amqp.check,
    "kafka": kafka.check,
    "systemd": systemd.check,
    "command": command.check,
}
# Descriptors that are not probes' own: standard streams, the loop's, a module's files.
SPARE_DESCRIPTORS = 64
# A command needs its pipes and its watcher.
DESCRIPTORS_EACH = 6
DEADLINE = "deadline"
# How many attempts may be in their first moments at once, and how long those are. More would only
# wait for each other on this host's cores, and count that as the servers' latency.
YOUNG = 12
YOUNG_SECONDS = 0.1


@dataclass
class Tools:
    """What the probes of a run share."""

    resolver: Resolver = field(default_factory=Resolver)
    contexts: Contexts = field(default_factory=Contexts)
    systemd: systemd.Systemd = field(default_factory=systemd.Systemd)


@dataclass
class Outcome:
    """What is known of a probe, at any moment."""

    probe: Probe
    healthy: bool = False
    attempts: int = 0
    latency: float | None = None
    first_error: str | None = None
    last_error: str | None = None
    detail: Detail = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None

    def failed(self, message: str, detail: Detail | None = None) -> None:
        self.first_error = self.first_error or message
        self.last_error = message
        self.detail = detail or {}

    def result(self) -> dict[str, Any]:
        """What the user gets to see, without secrets."""
        secrets = self.probe.secrets()
        elapsed = 0.0
        if self.started is not None:
            elapsed = (self.ended or time.monotonic()) - self.started
        found: dict[str, Any] = {
            "name": self.probe.name,
            "type": self.probe.type,
            "target": self.probe.target,
            "unit": self.probe.unit,
            "healthy": self.healthy,
            "attempts": self.attempts,
            "elapsed": round(elapsed, 3),
            "latency": None if self.latency is None else round(self.latency, 4),
            "first_error": redact(self.first_error, secrets),
            "last_error": redact(self.last_error, secrets),
            "detail": redact(self.detail, secrets),
        }
        return found


class Turns:
    """Lets attempts begin a few at a time, while many wait for servers that are slow."""

    def __init__(self, parallel: int) -> None:
        self._all = asyncio.Semaphore(parallel)
        self._young = asyncio.Semaphore(YOUNG)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._all:
            await self._young.acquire()
            grown = False

            def grow() -> None:
                nonlocal grown
                if not grown:
                    grown = True
                    self._young.release()

            later = asyncio.get_running_loop().call_later(YOUNG_SECONDS, grow)
            try:
                yield
            finally:
                later.cancel()
                grow()


async def _attempt(outcome: Outcome, attempt: Attempt) -> bool:
    """One attempt, by the wall clock no longer than its timeout; whether it succeeded."""
    probe = outcome.probe
    attempt.phase = "starting"
    outcome.attempts += 1
    started = time.monotonic()
    outcome.latency = None
    try:
        detail = await asyncio.wait_for(CHECKS[probe.type](attempt), probe.timeout)
    except asyncio.TimeoutError:
        outcome.failed(f"timed out after {probe.timeout:g} s {attempt.phase}")
        return False
    except ProbeFailed as failed:
        outcome.failed(failed.message, failed.detail)
        return False
    except Exception as error:
        # One probe's surprise must not cost the others their result.
        outcome.failed(f"unexpected {type(error).__name__}: {clean(str(error))}")
        return False
    outcome.latency = time.monotonic() - started
    if probe.latency is not None and outcome.latency > probe.latency:
        outcome.failed(
            f"took {outcome.latency:.3f} s, more than the {probe.latency:g} s allowed", detail
        )
        return False
    outcome.detail = detail
    return True


async def _run(outcome: Outcome, turns: Turns, tools: Tools) -> None:
    """Attempts until enough in a row succeeded or more than C(retries) failed."""
    probe = outcome.probe
    attempt = Attempt(probe, tools)
    in_a_row = failures = 0
    while True:
        # Units are asked for together, in one call: they need no turn.
        together = probe.type == "systemd"
        async with contextlib.nullcontext() if together else turns.turn():
            if outcome.started is None:
                outcome.started = time.monotonic()
            succeeded = await _attempt(outcome, attempt)
        in_a_row = in_a_row + 1 if succeeded else 0
        failures += not succeeded
        if in_a_row >= probe.successes or failures > probe.retries:
            outcome.healthy = succeeded
            outcome.ended = time.monotonic()
            return
        await asyncio.sleep(probe.interval)


async def _run_all(probes: Iterable[Probe], deadline: float, parallel: int) -> list[Outcome]:
    outcomes = [Outcome(probe) for probe in probes]
    turns = Turns(parallel)
    tools = Tools()
    tasks = [asyncio.ensure_future(_run(outcome, turns, tools)) for outcome in outcomes]
    if tasks:
        _done, late = await asyncio.wait(tasks, timeout=deadline)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if outcome.ended is None:
            outcome.failed(DEADLINE, outcome.detail)
            outcome.ended = time.monotonic()
    return outcomes


def _descriptors(parallel: int) -> int:
    """How many attempts at once the limit on open files allows, after raising it as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = parallel * DESCRIPTORS_EACH + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
            soft = max(soft, raised)
    if soft == resource.RLIM_INFINITY:
        return parallel
    return max(1, min(parallel, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_EACH))


def run_probes(
    probes: Iterable[Probe], deadline: float = 120.0, parallel: int = 100
) -> dict[str, Any]:
    """Look at everything; the results in the order of the probes."""
    started = time.monotonic()
    outcomes = asyncio.run(_run_all(probes, deadline, _descriptors(parallel)))
    healthy = sum(outcome.healthy for outcome in outcomes)
    return {
        "healthy": healthy == len(outcomes),
        "summary": {
            "total": len(outcomes),
            "healthy": healthy,
            "unhealthy": len(outcomes) - healthy,
            "elapsed": round(time.monotonic() - started, 3),
        },
        "probes": [outcome.result() for outcome in outcomes],
    }
