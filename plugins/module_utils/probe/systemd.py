# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd: the unit is active and stays so. All units are asked for in one call.

Only C(active) is healthy (systemd(1)): a unit between two restarts is C(activating), and one that
was restarted between two looks of the same probe is flapping.
"""

from __future__ import annotations

import asyncio
import time

from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.process import run

PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ActiveEnterTimestampMonotonic",
    "LoadError",
)  # fmt: skip
# Probes that ask within this many seconds of each other share a call.
WINDOW = 0.02
OUTPUT_LIMIT = 4 * 1024 * 1024
HEALTHY = {"active", "reloading", "refreshing"}


def parse(output: str, units: list[str]) -> dict[str, dict[str, str]]:
    """C(systemctl show) writes a block per unit, in the order asked for, with a line between."""
    blocks: list[dict[str, str]] = [{}]
    for line in output.splitlines():
        if not line:
            blocks.append({})
            continue
        name, equals, value = line.partition("=")
        if equals:
            blocks[-1][name] = value
    filled = [block for block in blocks if block]
    if len(filled) != len(units):
        raise ProbeFailed("systemctl did not tell about every unit")
    return dict(zip(units, filled, strict=True))


class Systemd:
    """Collects questions for a moment and asks them in one call."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[dict[str, str]]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self.calls = 0

    async def state(self, unit: str) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(WINDOW, self._flush)
        if unit not in self._waiting:
            future: asyncio.Future[dict[str, str]] = loop.create_future()
            # Whoever asked may be out of time by then.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting[unit] = future
        return await asyncio.shield(self._waiting[unit])

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        task = asyncio.ensure_future(self._ask(waiting))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _ask(self, waiting: dict[str, asyncio.Future[dict[str, str]]]) -> None:
        self.calls += 1
        units = list(waiting)
        try:
            argv = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *units]
            done = await run(argv, OUTPUT_LIMIT)
            if done.rc != 0:
                words = clean(done.stderr) or f"ended with {done.rc}"
                raise ProbeFailed(f"systemctl: {words}")
            states = parse(done.stdout.decode("utf-8", "replace"), units)
        except (ProbeFailed, OSError) as error:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(ProbeFailed(clean(str(error))))
            return
        for unit, future in waiting.items():
            if not future.done():
                future.set_result(states[unit])


def judge(state: dict[str, str], restarts_before: int | None) -> Detail:
    """The detail of a healthy unit; raises for any other."""
    active, sub = state.get("ActiveState", "unknown"), state.get("SubState", "unknown")
    detail: Detail = {"active": active, "sub": sub}
    restarts = state.get("NRestarts", "")
    if restarts.isdigit():
        detail["restarts"] = int(restarts)
    entered = state.get("ActiveEnterTimestampMonotonic", "")
    if active == "active" and entered.isdigit() and int(entered):
        detail["active_seconds"] = max(0, round(time.monotonic() - int(entered) / 1e6))
    load = state.get("LoadState", "unknown")
    if load == "not-found" and active == "inactive":
        raise ProbeFailed("no such unit", detail)
    if load == "masked":
        raise ProbeFailed("the unit is masked", detail)
    if active not in HEALTHY:
        result = state.get("Result", "success")
        words = f"{active} ({sub})" + (f", result {result}" if result != "success" else "")
        if load not in ("loaded", "not-found"):
            words += f", unit file {load}"
        raise ProbeFailed(words, detail)
    if restarts_before is not None and int(detail.get("restarts", 0)) > restarts_before:
        raise ProbeFailed(
            f"flapping: restarted {detail['restarts'] - restarts_before} times between two looks",
            detail,
        )
    return detail


async def check(attempt: Attempt) -> Detail:
    attempt.phase = "waiting for systemctl"
    state = await attempt.tools.systemd.state(attempt.probe.unit)
    before = attempt.memory.get("restarts")
    restarts = state.get("NRestarts", "")
    if restarts.isdigit():
        attempt.memory["restarts"] = int(restarts)
    return judge(state, before)
