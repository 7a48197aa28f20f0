# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy that loses no request works with: values and decisions, standard library only.

An instance of a service has a port for ever, and two slots of which one serves: C(a) listens on the
port itself, C(b) on the standby port. Each has a unit, an environment file, credentials, and a link
to the release that it runs. A slot without a link does not start, whoever asks, because its unit
has the link as a condition: what serves after a reboot is what served before.

    /var/lib/berth/deploy/<unit>.json      what an instance's slots are, and where a deploy is
    /var/lib/berth/deploy/<unit>.lock      held by the process that deploys a service
    /var/lib/berth/deploy/<unit>.history   what became of its deploys, a line each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

STATE_DIRECTORY = "/var/lib/berth/deploy"
HISTORY_LINES = 500
NAMES = ("a", "b")

# The steps of a deploy, in order, as they are told to people.
SETTLE, PREPARE, START, PROBE, SWITCH, VERIFY, DRAIN, STOP, FINISH = (
    "settle",
    "prepare",
    "start",
    "probe",
    "switch",
    "verify",
    "drain",
    "stop",
    "finish",
)


class DeployFailed(Exception):
    """A step that failed: which one, why, and what the process said last."""

    def __init__(self, step: str, words: str, logs: str = "") -> None:
        super().__init__(words)
        self.step = step
        self.words = words
        self.logs = logs


@dataclass(frozen=True)
class Slot:
    """A place in which a process of an instance can run."""

    name: str
    unit: str
    port: int
    link: str
    credentials: str
    files: tuple[Mapping[str, Any], ...] = ()
    probes: tuple[Mapping[str, Any], ...] = ()

    @property
    def service(self) -> str:
        """As systemd calls it."""
        return f"{self.unit}.service"

    @property
    def digest(self) -> str:
        return files_digest(self.files)


@dataclass(frozen=True)
class Instance:
    """A port, and the two slots behind it."""

    unit: str
    address: str
    port: int
    slots: Mapping[str, Slot]
    probes: tuple[Mapping[str, Any], ...] = ()
    log_files: tuple[str, ...] = ()

    def other(self, slot: Slot) -> Slot:
        return self.slots["b" if slot.name == "a" else "a"]


@dataclass(frozen=True)
class Service:
    """A service, the release it is to run, and how patient a deploy is."""

    name: str
    unit: str
    home: str
    version: str
    group: str = "root"
    keep: int = 3
    marker: str = ""
    patience: float = 60
    stable: float = 8
    drain: float = 30
    instances: tuple[Instance, ...] = ()

    @property
    def directory(self) -> str:
        return f"{self.home}/releases"

    @property
    def link(self) -> str:
        return f"{self.home}/current"

    def path(self, version: str) -> str:
        return f"{self.directory}/{version}"


@dataclass
class State:
    """What is known of an instance's slots."""

    live: str = "a"
    address: str = ""
    port: int = 0
    # By slot: unit, port, link, and what was last started there, version and digest.
    slots: dict[str, dict[str, Any]] = field(default_factory=dict)
    journal: dict[str, Any] | None = None

    def version(self, slot: str) -> str:
        return str(self.slots.get(slot, {}).get("version") or "")

    def digest(self, slot: str) -> str:
        return str(self.slots.get(slot, {}).get("digest") or "")


def files_digest(files: Iterable[Mapping[str, Any]]) -> str:
    """What a slot's process is started with."""
    wanted = sorted((str(each["path"]), str(each["content"])) for each in files)
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def disk_digest(paths: Iterable[str], content: Callable[[str], str | None]) -> str:
    """The same of what lies on the disk; empty where a file is missing."""
    texts = {path: content(path) for path in paths}
    if None in texts.values():
        return ""
    return files_digest([{"path": path, "content": text} for path, text in texts.items()])


def services_from(given: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> list[Service]:
    """Services from plain values, as the role's filter makes them."""
    found = []
    for each in given:
        instances = []
        for one in each["instances"]:
            slots = {
                name: Slot(
                    name=name,
                    unit=str(slot["unit"]),
                    port=int(slot["port"]),
                    link=str(slot["link"]),
                    credentials=str(slot["credentials"]),
                    files=tuple(slot["files"]),
                    probes=tuple(slot["probes"]),
                )
                for name, slot in one["slots"].items()
            }
            instances.append(
                Instance(
                    unit=str(one["unit"]),
                    address=str(one["address"]),
                    port=int(one["port"]),
                    slots=slots,
                    probes=tuple(one["probes"]),
                    log_files=tuple(one.get("log_files") or ()),
                )
            )
        options = {
            key: each[key]
            for key in ("group", "keep", "patience", "stable", "drain")
            if each.get(key) is not None
        }
        version = str(versions.get(each["name"]) or each.get("version") or "")
        if not version:
            raise DeployFailed(PREPARE, f"{each['name']}: no version is given")
        found.append(
            Service(
                name=str(each["name"]),
                unit=str(each["unit"]),
                home=str(each["home"]),
                version=version,
                marker=str(each.get("marker") or "").replace("{version}", version),
                instances=tuple(instances),
                **options,
            )
        )
    return found


# ---------------------------------------------------------------- what is written down


def dump(state: State) -> str:
    return json.dumps(asdict(state), indent=1, sort_keys=True) + "\n"


def load(text: str) -> State | None:
    """From an instance's file; None without one, or from one that nobody can read."""
    try:
        data = json.loads(text)
        return State(
            live=data["live"] if data["live"] in NAMES else "a",
            address=str(data["address"]),
            port=int(data["port"]),
            slots=dict(data["slots"]),
            journal=data.get("journal"),
        )
    except (ValueError, KeyError, TypeError):
        return None


def slots_of(instance: Instance) -> dict[str, dict[str, Any]]:
    """The slots as they stand in the file."""
    return {
        name: {"unit": slot.unit, "port": slot.port, "link": slot.link}
        for name, slot in instance.slots.items()
    }


def history(text: str, last: int = HISTORY_LINES) -> list[dict[str, Any]]:
    """The deploys of a service, the latest last; a line that a crash cut is passed over."""
    found = []
    for line in text.splitlines()[-last:]:
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


# ---------------------------------------------------------------- what has to be done


def leads_to(
    loaded: Iterable[tuple[str, int, int]], address: str, port: int, slots: Mapping[str, int]
) -> str:
    """The slot that gets what comes to the port now; empty if none of them does."""
    for where, here, there in loaded:
        if (where, here) == (address, port):
            return next((name for name, other in slots.items() if other == there), "")
    return "a"


def reasons(
    *,
    state: State | None,
    active: bool,
    leads: str,
    version: str,
    current: str | None,
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    links: Mapping[str, str],
) -> list[str]:
    """Why an instance needs a deploy; none if it is as it should be.

    O(wanted) and O(found) are digests by slot, of what is to be and of what lies on the disk;
    O(links) are versions that the slots link to.
    """
    if state is None:
        return ["it is new"]
    if state.journal:
        return [f"a deploy of {state.journal.get('version')} was interrupted"]
    live = state.live
    why = []
    if not active:
        why.append("it does not run")
    if leads != live:
        why.append("its port leads elsewhere")
    if state.version(live) != version:
        why.append(f"it runs {state.version(live) or 'an unknown release'}")
    elif current != version:
        why.append(f"{current or 'nothing'} is active")
    if not wanted.get(live) or wanted[live] != state.digest(live):
        why.append("its unit, environment or credentials changed")
    elif found.get(live) != wanted[live]:
        why.append("its files were changed by hand")
    if links.get(live) != state.version(live):
        why.append("its release is not linked")
    idle = "b" if live == "a" else "a"
    if links.get(idle):
        why.append("the other slot is not empty")
    return why


def refused(holder: Mapping[str, Any], service: str) -> str:
    """What the second of two deploys is told."""
    return (
        f"{service} is being deployed already: {holder.get('version') or 'a release'} by "
        f"{holder.get('who') or 'somebody'}, since {holder.get('since') or 'an unknown time'} "
        f"(process {holder.get('pid') or 'unknown'} on the host)"
    )


def previous_version(past: Sequence[str], current: str | None, installed: Iterable[str]) -> str:
    """What a rollback goes back to; empty if there is nothing."""
    there = set(installed)
    return next((each for each in reversed(past) if each != current and each in there), "")
