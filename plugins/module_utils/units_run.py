# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to systemd through systemctl, with as few calls as will do. Runs on the target."""

from __future__ import annotations

import contextlib
import glob
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.hostfacts import (
    PENDING_DIRECTORY,
    parse_show,
)
from ansible_collections.berth.platform.plugins.module_utils.units_plan import (
    PROPERTIES,
    Steps,
    Unit,
    Wanted,
    batches,
    make_steps,
    match_blocks,
    needs_reload,
    verdict,
)

JOURNAL_LINES = 20
UNIT_FILES = "/etc/systemd/system"
# A service of type simple counts as active as soon as it is forked: one with a faulty
# configuration dies a moment later, and that moment is waited for.
SETTLE_SECONDS = 0.4
_SETTLING_TYPES = ("simple", "exec", "idle")


class UnitsFailed(Exception):
    def __init__(self, message: str, units: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.units = dict(units or {})


@dataclass
class Answer:
    code: int
    out: str
    err: str
    late: bool = False

    @property
    def words(self) -> str:
        return "\n".join(part for part in (self.err.strip(), self.out.strip()) if part)


Caller = Callable[[Sequence[str], float], Answer]


def call_program(argv: Sequence[str], seconds: float) -> Answer:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "SYSTEMD_PAGER": "",
        "SYSTEMD_COLORS": "0",
    }
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(-1, "", f"no answer within {seconds:g} s", late=True)
    except OSError as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass
class Result:
    changed: bool = False
    daemon_reloaded: bool = False
    units: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _unread(unit: Unit) -> Unit:
    """systemd 252 does not notice a first drop-in by itself: look for what it has not read."""
    there = glob.glob(os.path.join(UNIT_FILES, glob.escape(unit.id) + ".d", "*.conf"))
    return replace(unit, stale=unit.stale or not set(there) <= set(unit.drop_ins))


class Systemd:
    def __init__(
        self, call: Caller = call_program, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._call = call
        self._sleep = sleep

    def show(self, names: Sequence[str]) -> dict[str, Unit]:
        if not names:
            return {}
        argv = ["systemctl", "show", "--no-pager", "--property=" + ",".join(PROPERTIES), "--"]
        answer = self._call([*argv, *names], 30)
        if answer.code != 0:
            raise UnitsFailed(f"systemd does not answer: {answer.words}")
        units = match_blocks(names, parse_show(answer.out))
        return {name: _unread(unit) for name, unit in units.items()}

    def tell(
        self, verb: str, names: Sequence[str], seconds: float = 120, options: Sequence[str] = ()
    ) -> Answer:
        return self._call(["systemctl", "--no-ask-password", *options, verb, "--", *names], seconds)

    def must(self, verb: str, names: Sequence[str]) -> None:
        if not names:
            return
        answer = self.tell(verb, names)
        if answer.code != 0:
            raise UnitsFailed(f"`systemctl {verb} {' '.join(names)}` failed: {answer.words}")

    def reload_daemon(self) -> None:
        answer = self._call(["systemctl", "daemon-reload"], 90)
        if answer.code != 0:
            raise UnitsFailed(f"`systemctl daemon-reload` failed: {answer.words}")

    def journal(self, name: str) -> str:
        answer = self._call(
            [
                "journalctl",
                "--no-pager",
                "--quiet",
                "--output=short-iso",
                f"--lines={JOURNAL_LINES}",
                f"--unit={name}",
            ],
            15,
        )
        return answer.out.rstrip() if answer.code == 0 else ""

    def explain(self, unit: Unit, told: str) -> str:
        lines = [
            f"{unit.name}: is {unit.active} ({unit.sub}), result {unit.result or 'none'}"
            + (f", last exit status {unit.exit_status}" if unit.exit_status else "")
            + (f", restarted {unit.restarts} times by systemd" if unit.restarts else "")
        ]
        if told:
            lines.append(told)
        journal = self.journal(unit.name)
        lines.append(journal if journal else "(its journal is empty)")
        return "\n".join(lines)

    def _run_batches(self, steps: Steps, wait: float, deadline: float) -> dict[str, str]:
        """Gives the orders; what systemctl said of a failure, by unit."""
        told: dict[str, str] = {}
        orders = batches(steps.run)
        for number, (verb, names) in enumerate(orders, 1):
            # Those before the last are there for it to find.
            options = ("--no-block",) if not wait and number == len(orders) else ()
            left = max(deadline - time.monotonic(), 1 if wait else 60)
            answer = self.tell(verb, names, left, options)
            if answer.code == 0:
                continue
            for name in names:
                told[name] = (
                    f"`systemctl {verb}` is not done after {wait:g} s"
                    if answer.late
                    else f"`systemctl {verb}`: {answer.words}"
                )
            if verb == "reload" and not answer.late:
                # A unit whose reload failed keeps running: its state alone tells nothing.
                units = self.show(names)
                raise UnitsFailed("\n".join(self.explain(units[n], told[n]) for n in names))
        return told

    def wait_until_up(
        self, names: Sequence[str], told: Mapping[str, str], wait: float, deadline: float
    ) -> dict[str, Unit]:
        """Waits until every unit is up for good. Raises UnitsFailed for those that are not."""
        if not names:
            return {}
        restarts: dict[str, int] = {}
        steady_since: dict[str, float] = {}
        failed: set[str] = set()
        waiting = list(dict.fromkeys(names))
        units = self.show(waiting)
        while True:
            now = time.monotonic()
            still: list[str] = []
            for name in waiting:
                unit = units[name]
                up = verdict(unit)
                if up is False:
                    failed.add(name)
                    continue
                if up is None:
                    steady_since.pop(name, None)
                    still.append(name)
                    continue
                if unit.type not in _SETTLING_TYPES or unit.active != "active":
                    continue
                if restarts.get(name) != unit.restarts or name not in steady_since:
                    looped = unit.restarts > 0 and name in restarts
                    restarts[name] = unit.restarts
                    steady_since[name] = now
                    if looped:
                        # It has crashed once: stay until it lived longer than its pause.
                        steady_since[name] = now + min(5.0, 1.0 + unit.restart_seconds)
                if now - steady_since[name] < SETTLE_SECONDS:
                    still.append(name)
            if not still:
                break
            if now > deadline:
                failed.update(still)
                break
            waiting = still
            self._sleep(0.1)
            units.update(self.show(waiting))
        if failed:
            explained = []
            for name in names:
                if name in failed:
                    why = told.get(name, "")
                    if verdict(units[name]) is None and not why:
                        why = f"not up for good after {wait:g} s"
                    explained.append(self.explain(units[name], why))
            raise UnitsFailed("\n".join(explained), {n: units[n].summary() for n in failed})
        return units

    def run(
        self,
        wanted: Sequence[Wanted],
        *,
        check: bool,
        daemon_reload: bool | None = None,
        wait: float = 30,
    ) -> Result:
        names = [unit.name for unit in wanted]
        result = Result()
        try:
            units = self.show(names)
        except UnitsFailed:
            if not check:
                raise
            # No systemd yet: all of it is still to come.
            units = {name: Unit(name) for name in names}
        reload = needs_reload(wanted, units) if daemon_reload is None else daemon_reload
        stale = any(unit.stale for unit in units.values())
        if reload and not check:
            self.reload_daemon()
            result.daemon_reloaded = True
            units = self.show(names)
        before = dict(units)
        steps = make_steps(wanted, units, check=check, linked=has_wants_link)
        if steps.faults:
            # What exactly is wrong with a unit file is only said in the journal.
            faulty = [n for n in names if units[n].load in ("bad-setting", "error")]
            raise UnitsFailed("\n".join([*steps.faults, *map(self.journal, faulty)]).strip())
        result.notes = steps.notes
        # A unit that systemd had an old reading of is changed by reading it again; being
        # asked to reload, by `daemon_reload: true`, is a change as any order is.
        result.changed = steps.any or (reload and (stale or daemon_reload is True))
        if not check and (steps.any or steps.run):
            units = {**units, **self._carry_out(steps, names, wait)}
        elif check:
            units = {name: _predicted(unit, steps.actions[name]) for name, unit in units.items()}
        for name in names:
            result.units[name] = {
                "before": before[name].summary(),
                "after": units[name].summary(),
                "action": "+".join(steps.actions[name]) or "none",
            }
        return result

    def _carry_out(self, steps: Steps, names: Sequence[str], wait: float) -> dict[str, Unit]:
        self.must("unmask", steps.unmask)
        self.must("stop", steps.stop)
        self.must("disable", steps.disable)
        self.must("mask", steps.mask)
        self.must("enable", steps.enable)
        if steps.reset:
            # Fails for a unit that has left the failed state by itself, which is as good.
            self.tell("reset-failed", steps.reset)
        deadline = time.monotonic() + wait
        told = self._run_batches(steps, wait, deadline)
        if wait:
            self.wait_until_up([name for _verb, name in steps.run], told, wait, deadline)
        elif told:
            raise UnitsFailed("\n".join(f"{name}: {words}" for name, words in told.items()))
        return self.show(names)


def _predicted(unit: Unit, actions: Sequence[str]) -> Unit:
    """What a unit would be after the actions."""
    if {"start", "restart", "reload"} & set(actions):
        unit = replace(unit, active="active", sub="running")
    if "stop" in actions:
        unit = replace(unit, active="inactive", sub="dead")
    if "enable" in actions:
        unit = replace(unit, enabled="enabled")
    if "disable" in actions:
        unit = replace(unit, enabled="disabled")
    if "mask" in actions:
        unit = replace(unit, enabled="masked", load="masked")
    if "unmask" in actions and unit.masked:
        unit = replace(unit, enabled="", load="loaded")
    return unit


def has_wants_link(unit: Unit) -> bool:
    """Whether some other unit pulls this one in by a link."""
    name = glob.escape(unit.id or unit.name)
    return any(
        glob.glob(f"{directory}/*.{kind}/{name}")
        for directory in ("/etc/systemd/system", "/run/systemd/system")
        for kind in ("wants", "requires", "upholds")
    )


def remove_marker(name: str, root: str = "/") -> bool:
    """Takes away the marker that C(files) left: the services know of the change now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(root, PENDING_DIRECTORY, name))
        return True
    return False
