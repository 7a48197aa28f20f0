# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done to systemd units so that they are as wanted. Pure.

The meaning of unit file states follows systemctl(1), section "is-enabled".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STATES = ("started", "stopped", "restarted", "reloaded")

# What `systemctl show` is asked for; one call for all units.
PROPERTIES = (
    "Id",
    "Names",
    "LoadState",
    "LoadError",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
    "CanReload",
    "Type",
    "RemainAfterExit",
    "Result",
    "NRestarts",
    "RestartUSec",
    "ExecMainStatus",
    "Job",
)

# Nothing to enable: these run when something needs them, or they are made elsewhere.
NOT_ENABLABLE = ("static", "generated", "transient")
ENABLED = ("enabled", "alias", "linked-enabled")

_SUFFIXES = (
    ".service",
    ".socket",
    ".timer",
    ".target",
    ".path",
    ".mount",
    ".automount",
    ".slice",
    ".scope",
    ".swap",
    ".device",
)
_NAME = re.compile(r"^[A-Za-z0-9:_.\\@-]+$")


@dataclass(frozen=True)
class Wanted:
    name: str
    enabled: bool | None = None
    masked: bool | None = None
    state: str | None = None


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit."""

    name: str
    id: str = ""
    load: str = "not-found"
    load_error: str = ""
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    fragment: str = ""
    drop_ins: tuple[str, ...] = ()
    stale: bool = False
    can_reload: bool = False
    type: str = ""
    remains: bool = False
    result: str = ""
    restarts: int = 0
    restart_seconds: float = 0.0
    exit_status: str = ""
    job: str = ""

    @property
    def known(self) -> bool:
        return self.load not in ("not-found", "")

    @property
    def masked(self) -> bool:
        return self.load == "masked" or self.enabled in ("masked", "masked-runtime")

    def summary(self) -> dict[str, str]:
        return {
            "load": self.load,
            "active": self.active,
            "sub": self.sub,
            "enabled": self.enabled,
        }


@dataclass
class Steps:
    """What to do, in the order of the fields."""

    unmask: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    # Verb and unit, in the order in which the units were given.
    run: list[tuple[str, str]] = field(default_factory=list)
    actions: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        return any(self.actions.values())


def full_name(name: str) -> str:
    """The name with its suffix, as systemctl completes it."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


def read_wanted(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Wanted], list[str]]:
    """The wanted units and everything that is wrong with them."""
    wanted: list[Wanted] = []
    faults: list[str] = []
    seen: set[str] = set()
    for entry in entries:
        name = full_name(str(entry["name"]))
        if not _NAME.match(name):
            faults.append(f"{name}: not the name of a unit")
            continue
        if "@." in name:
            faults.append(
                f"{name}: is a template, name an instance such as {name.replace('@.', '@main.')}"
            )
            continue
        if name in seen:
            faults.append(f"{name}: named more than once")
        seen.add(name)
        unit = Wanted(name, entry.get("enabled"), entry.get("masked"), entry.get("state"))
        if unit.masked and (unit.enabled or unit.state in ("started", "restarted", "reloaded")):
            faults.append(f"{name}: a masked unit can neither be enabled nor run")
        wanted.append(unit)
    return wanted, faults


def parse_seconds(text: str) -> float:
    """Seconds of a time span as systemd prints it: C(1min 30s), C(100ms), C(infinity)."""
    factors = {
        "us": 1e-6,
        "ms": 1e-3,
        "s": 1.0,
        "min": 60.0,
        "h": 3600.0,
        "d": 86400.0,
        "w": 604800.0,
    }
    total = 0.0
    for number, unit in re.findall(r"([0-9.]+)\s*([a-zµ]+)", text):
        total += float(number) * factors.get(unit, 0.0)
    return total


def unit_from(name: str, block: Mapping[str, str]) -> Unit:
    restarts = block.get("NRestarts", "")
    return Unit(
        name=name,
        id=block.get("Id", name) or name,
        load=block.get("LoadState", "not-found"),
        load_error=block.get("LoadError", ""),
        active=block.get("ActiveState", "inactive"),
        sub=block.get("SubState", "dead"),
        enabled=block.get("UnitFileState", ""),
        fragment=block.get("FragmentPath", ""),
        drop_ins=tuple(block.get("DropInPaths", "").split()),
        stale=block.get("NeedDaemonReload") == "yes",
        can_reload=block.get("CanReload") == "yes",
        type=block.get("Type", ""),
        remains=block.get("RemainAfterExit") == "yes",
        result=block.get("Result", ""),
        restarts=int(restarts) if restarts.isdigit() else 0,
        restart_seconds=parse_seconds(block.get("RestartUSec", "")),
        exit_status=block.get("ExecMainStatus", ""),
        job=block.get("Job", ""),
    )


def match_blocks(names: Sequence[str], blocks: Sequence[Mapping[str, str]]) -> dict[str, Unit]:
    """One unit for each name asked for; systemctl answers in the order of the names, but an
    alias and its unit may share one answer."""
    units: dict[str, Unit] = {}
    if len(blocks) == len(names):
        for name, block in zip(names, blocks, strict=True):
            units[name] = unit_from(name, block)
        return units
    for name in names:
        for block in blocks:
            if name == block.get("Id") or name in block.get("Names", "").split():
                units[name] = unit_from(name, block)
                break
        else:
            units[name] = Unit(name)
    return units


def needs_reload(wanted: Sequence[Wanted], units: Mapping[str, Unit]) -> bool:
    """Whether systemd has to read its unit files again before it is told anything."""
    for unit in wanted:
        now = units[unit.name]
        if now.stale:
            return True
        # A file that was written just now. Who wants a unit gone does not need it read.
        gone = unit.state in (None, "stopped") and not unit.enabled and not unit.masked
        if not now.known and not gone:
            return True
    return False


def _plan_enablement(unit: Wanted, now: Unit, steps: Steps, linked: Callable[[Unit], bool]) -> None:
    actions = steps.actions[unit.name]
    if unit.enabled is None or not (now.known or unit.enabled):
        return
    state = now.enabled
    if now.masked and unit.masked is False:
        # Under the mask there is another state, which only systemctl can see.
        state = "disabled" if unit.enabled else ""
    if state == "indirect":
        state = "enabled" if linked(now) else "disabled"
    if unit.enabled:
        if state in ENABLED:
            return
        if state in NOT_ENABLABLE:
            if state == "static":
                steps.notes.append(f"{unit.name}: is static, there is nothing to enable")
            return
        # A unit that is only linked is enabled by the path of its file.
        by_path = state in ("linked", "linked-runtime") and now.fragment
        steps.enable.append(now.fragment if by_path else now.id or unit.name)
        actions.append("enable")
    elif state in ("enabled", "enabled-runtime", "linked-enabled"):
        steps.disable.append(now.id or unit.name)
        actions.append("disable")


def _plan_state(unit: Wanted, now: Unit, steps: Steps) -> None:
    actions = steps.actions[unit.name]
    running = now.active in ("active", "reloading", "refreshing")
    # A crash loop is neither: it counts as running only when it has come up for good.
    starting = now.active == "activating"
    if unit.state == "stopped" or (unit.masked and unit.state is None):
        if now.known and (running or starting):
            steps.stop.append(unit.name)
            actions.append("stop")
        elif now.known and now.active == "failed" and unit.state == "stopped":
            # Not running, which is all that was asked.
            return
    elif unit.state == "started":
        if running:
            return
        if now.active == "failed":
            steps.reset.append(unit.name)
        steps.run.append(("start", unit.name))
        if not starting:
            actions.append("start")
    elif unit.state in ("restarted", "reloaded"):
        verb = "restart"
        if not running and not starting:
            verb = "start"
        elif unit.state == "reloaded" and running and now.can_reload:
            verb = "reload"
        if now.active == "failed":
            steps.reset.append(unit.name)
        steps.run.append((verb, unit.name))
        actions.append(verb)


def make_steps(
    wanted: Sequence[Wanted],
    units: Mapping[str, Unit],
    *,
    check: bool,
    linked: Callable[[Unit], bool],
) -> Steps:
    """Compares what is with what is wanted. C(linked) tells whether an indirect unit has a
    link in a directory of wanted units. In check mode an unknown unit is expected to come."""
    steps = Steps()
    for unit in wanted:
        now = units[unit.name]
        steps.actions[unit.name] = []
        wants_it = unit.enabled or unit.state in ("started", "restarted", "reloaded")
        if wants_it and not check:
            if not now.known:
                steps.faults.append(f"{unit.name}: there is no such unit on this host")
                continue
            if now.load in ("bad-setting", "error"):
                words = now.load_error.removeprefix("org.freedesktop.systemd1.")
                words = words or "see `systemd-analyze verify`"
                steps.faults.append(f"{unit.name}: its unit file is faulty: {words}")
                continue
            if now.masked and unit.masked is not False:
                steps.faults.append(
                    f"{unit.name}: is masked; give `masked: false` to make it usable"
                )
                continue
        if unit.masked is True and not now.masked:
            steps.mask.append(unit.name)
            steps.actions[unit.name].append("mask")
        elif unit.masked is False and now.masked:
            steps.unmask.append(unit.name)
            steps.actions[unit.name].append("unmask")
        _plan_enablement(unit, now, steps, linked)
        _plan_state(unit, now, steps)
    return steps


def batches(run: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Neighbours with the same verb go in one call, in the order given."""
    found: list[tuple[str, list[str]]] = []
    for verb, name in run:
        if found and found[-1][0] == verb:
            found[-1][1].append(name)
        else:
            found.append((verb, [name]))
    return found


def verdict(unit: Unit) -> bool | None:
    """Whether a unit that was told to run does. C(None): cannot be told yet."""
    if unit.active in ("active", "reloading", "refreshing"):
        return None if unit.active == "reloading" or unit.job not in ("", "0") else True
    if unit.active == "failed":
        return False
    if unit.active == "inactive" and unit.type == "oneshot" and not unit.remains:
        # It ran and is done; while its job waits it has not begun.
        if unit.job not in ("", "0"):
            return None
        return unit.result == "success"
    if unit.active == "inactive" and unit.job in ("", "0"):
        return False
    # activating, also between two attempts of a service that restarts by itself
    return None
