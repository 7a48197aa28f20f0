# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy itself: in which order a host is told what.

At every moment the port leads to a process that was ready, and the instance's file says what was
about to be done: whoever comes after a process that was killed here asks the kernel which slot the
port leads to, keeps that one, and empties the other.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    DRAIN,
    FINISH,
    PREPARE,
    PROBE,
    SETTLE,
    START,
    STOP,
    SWITCH,
    VERIFY,
    DeployFailed,
    Instance,
    Service,
    Slot,
    State,
    disk_digest,
    leads_to,
    reasons,
    slots_of,
)
from ansible_collections.berth.platform.plugins.module_utils.deploy_host import Machine

INTERVAL = 0.25
# How often in a row it has to be ready, however short it has to be stable.
SUCCESSES = 3
# How often in a row it may fail behind the port, before the port leads back.
FAILURES = 3
# What has been switched away from was broken: its connections get no more time than this.
PUT_BACK_DRAIN = 5.0

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a service."""

    name: str
    version: str
    before: str = ""
    reasons: list[str] = field(default_factory=list)
    result: str = "unchanged"
    step: str = ""
    message: str = ""
    seconds: float = 0.0
    pruned: list[str] = field(default_factory=list)
    slots: dict[str, str] = field(default_factory=dict)


@dataclass
class Work:
    """A service, what has to be done for it, and what came of it."""

    service: Service
    outcome: Outcome
    fresh: list[tuple[Instance, Slot]] = field(default_factory=list)
    due: list[Instance] = field(default_factory=list)
    failed: DeployFailed | None = None


class Deploy:
    """Brings services of a host to their releases."""

    def __init__(
        self,
        machine: Machine,
        say: Say,
        *,
        who: str = "",
        action: str = "converge",
        parallel: int = 4,
        clock: Callable[[], str] | None = None,
    ) -> None:
        self.machine = machine
        self.say = say
        self.who = who
        self.action = action
        self.parallel = parallel
        self.clock = clock or _clock

    # ------------------------------------------------------------ looking

    def why(self, service: Service, instance: Instance) -> list[str]:
        """Why this instance needs a deploy."""
        machine = self.machine
        state = machine.state(instance.unit)
        live = instance.slots[state.live if state else "a"]
        return reasons(
            state=state,
            active=machine.looks([live.service])[live.service].runs,
            leads=self._leads(instance),
            version=service.version,
            current=machine.current(service),
            wanted={name: slot.digest for name, slot in instance.slots.items()},
            found=self._disk(instance.slots.values()),
            links={name: machine.linked(slot.link) for name, slot in instance.slots.items()},
        )

    def predict(self, services: Iterable[Service]) -> list[Outcome]:
        """What a deploy would do, for check mode."""
        found = []
        for service in services:
            outcome = Outcome(service.name, service.version)
            outcome.before = self.machine.current(service) or ""
            for instance in service.instances:
                outcome.reasons += [f"{instance.unit}: {r}" for r in self.why(service, instance)]
            outcome.result = "due" if outcome.reasons else "unchanged"
            found.append(outcome)
        return found

    def _disk(self, slots: Iterable[Slot]) -> dict[str, str]:
        """Digests of the slots' files as they lie on the disk."""
        return {
            slot.name: disk_digest([str(e["path"]) for e in slot.files], self.machine.content)
            for slot in slots
        }

    def _leads(self, instance: Instance) -> str:
        ports = {name: slot.port for name, slot in instance.slots.items()}
        return leads_to(self.machine.leads(), instance.address, instance.port, ports)

    # ------------------------------------------------------------ doing

    def run(self, services: Sequence[Service]) -> list[Outcome]:
        """All of them; a service that fails does not hold up the others."""
        works = []
        for service in services:
            outcome = Outcome(service.name, service.version)
            works.append(Work(service, outcome))
        started = self.machine.now()
        for work in works:
            self._guard(work, self._begin)
        self._start_fresh([work for work in works if work.fresh and not work.failed])
        # What is new serves nobody yet, so that all of it is waited for at once.
        self._together(works, self._await_fresh, len(works))
        self._together(works, self._replace_all, self.parallel)
        for work in works:
            work.outcome.seconds = round(self.machine.now() - started, 1)
            self._record(work)
        return [work.outcome for work in works]

    def _together(self, works: Sequence[Work], do: Callable[[Work], None], most: int) -> None:
        todo = [work for work in works if not work.failed]
        if len(todo) == 1:
            self._guard(todo[0], do)
        elif todo:
            with ThreadPoolExecutor(max_workers=max(1, most)) as pool:
                list(pool.map(lambda work: self._guard(work, do), todo))

    def _guard(self, work: Work, do: Callable[[Work], None]) -> None:
        try:
            do(work)
        except DeployFailed as error:
            work.failed = error
        except Exception as error:
            work.failed = DeployFailed(SETTLE, f"{type(error).__name__}: {error}")

    def _begin(self, work: Work) -> None:
        """Put in order what an interrupted deploy left, and find what has to be done."""
        service, machine = work.service, self.machine
        work.outcome.before = machine.current(service) or ""
        if not machine.installed(service.path(service.version)):
            raise DeployFailed(PREPARE, f"the release {service.version} is not on this host")
        for instance in service.instances:
            why = self.why(service, instance)
            if not why:
                continue
            work.outcome.reasons += [f"{instance.unit}: {reason}" for reason in why]
            before = machine.state(instance.unit)
            interrupted = bool(before and before.journal)
            state = self._settle(service, instance)
            live = instance.slots[state.live]
            if not machine.looks([live.service])[live.service].runs:
                work.fresh.append((instance, live))
            elif self._differs(service, instance, state):
                work.due.append(instance)
            elif interrupted and machine.probe(instance.probes, direct=False):
                # Nobody saw it ready yet.
                work.fresh.append((instance, live))

    def _differs(self, service: Service, instance: Instance, state: State) -> bool:
        """Whether the process that serves is not the one that is wanted."""
        live = instance.slots[state.live]
        return (
            state.version(live.name) != service.version
            or state.digest(live.name) != live.digest
            or self._disk([live])[live.name] != live.digest
        )

    def _settle(self, service: Service, instance: Instance) -> State:
        """One slot serves and the other is empty, whatever was there."""
        machine = self.machine
        state = machine.state(instance.unit)
        if state is None:
            # It may be new, or have been one that was restarted: then it is adopted as it runs.
            state = State(live="a", address=instance.address, port=instance.port)
            state.slots = slots_of(instance)
            state.slots["a"].update(version=machine.current(service) or "", digest="")
        if (state.address, state.port) != (instance.address, instance.port):
            self._moved(instance, state)
        looks = machine.looks([slot.service for slot in instance.slots.values()])
        runs = {name: looks[slot.service].runs for name, slot in instance.slots.items()}
        interrupted = state.journal
        leads = self._leads(instance)
        if interrupted and not interrupted.get("told"):
            self.say(
                f"{instance.unit}: a deploy of {interrupted.get('version')} was interrupted at "
                f"the step {interrupted.get('step')}"
            )
            machine.record(
                service.unit,
                {
                    "time": interrupted.get("since") or self.clock(),
                    "who": interrupted.get("who") or "",
                    "action": interrupted.get("action") or "",
                    "service": service.name,
                    "version": interrupted.get("version"),
                    "result": "interrupted",
                    "step": interrupted.get("step"),
                    "instance": instance.unit,
                },
            )
        kept = self._which_to_keep(instance, state, leads, runs)
        other = instance.slots["b" if kept == "a" else "a"]
        if runs[kept] and leads != kept:
            machine.switch(instance.address, instance.port, instance.slots[kept].port)
        if runs[other.name] or machine.linked(other.link):
            if runs[other.name]:
                self._drain(service, instance, other, watch=False)
            machine.stop(other.service)
            machine.unlink(other.link)
        state.live = kept
        known = state.slots
        state.slots = slots_of(instance)
        for name, slot in known.items():
            if name in state.slots:
                state.slots[name].update({k: slot.get(k, "") for k in ("version", "digest")})
        state.journal = None
        machine.save(instance.unit, state)
        return state

    def _which_to_keep(
        self, instance: Instance, state: State, leads: str, runs: Mapping[str, bool]
    ) -> str:
        """The slot that the port leads to, if it serves; else the other, if that one runs."""
        leads = leads or state.live
        other = "b" if leads == "a" else "a"
        if runs[leads] and runs[other] and self.machine.probe(instance.probes, direct=False):
            # It was switched to and is not well: the one from before still is there.
            return other if not self._own(instance.slots[other]) else leads
        if runs[leads]:
            return leads
        return other if runs[other] else state.live

    def _own(self, slot: Slot) -> str:
        return self.machine.probe(slot.probes, direct=True)

    def _moved(self, instance: Instance, state: State) -> None:
        """The plan gives it another port: what runs on the old ones ends, and starts anew."""
        machine = self.machine
        self.say(f"{instance.unit}: moves from port {state.port} to {instance.port}")
        for slot in state.slots.values():
            machine.stop(f"{slot['unit']}.service")
            machine.unlink(str(slot["link"]))
        machine.switch(state.address, state.port, state.port)
        state.live, state.address, state.port = "a", instance.address, instance.port
        state.journal = None

    # ------------------------------------------------------------ where nobody serves

    def _bring_fresh(self, work: Work) -> None:
        for instance, slot in work.fresh:
            self._prepare(work.service, instance, slot, work.service.version)
            self._step(instance, slot, START)
            self.machine.switch(instance.address, instance.port, slot.port)
            self.say(f"{instance.unit}: starts {work.service.version}")

    def _start_fresh(self, works: Sequence[Work]) -> None:
        """Everything that does not run is brought and started in one go, and then waited for."""
        for work in works:
            self._guard(work, self._bring_fresh)
        ready = [work for work in works if not work.failed]
        units = [slot.service for work in ready for _instance, slot in work.fresh]
        if not units:
            return
        try:
            self.machine.reload(units)
            # What goes wrong is seen, unit by unit, by those that wait for them.
            self.machine.start(units, max(work.service.patience for work in ready) + 60)
        except DeployFailed as error:
            for work in ready:
                work.failed = error

    def _await_fresh(self, work: Work) -> None:
        for instance, slot in work.fresh:
            try:
                self._until_ready(work.service, instance, slot, stable=0)
            except DeployFailed:
                # It stays as it is, to be looked at; the next run waits for it again.
                state = self._state(instance)
                state.journal = {**(state.journal or {}), "told": True}
                self.machine.save(instance.unit, state)
                raise
            state = self._state(instance)
            state.live, state.journal = slot.name, None
            self.machine.save(instance.unit, state)
            self.say(f"{instance.unit}: is ready")

    # ------------------------------------------------------------ where somebody serves

    def _replace_all(self, work: Work) -> None:
        service = work.service
        done: list[tuple[Instance, Slot, str]] = []
        stable = min(service.stable, 1) if self.action == "rollback" else service.stable
        for instance in work.due:
            state = self._state(instance)
            old = instance.slots[state.live]
            version = state.version(old.name)
            try:
                self._replace(service, instance, old, service.version, stable)
            except DeployFailed:
                self._put_others_back(service, done)
                raise
            done.append((instance, old, version))
        if work.fresh or work.due or work.outcome.reasons:
            try:
                work.outcome.pruned = self.machine.finish(service)
            except DeployFailed as error:
                raise DeployFailed(FINISH, error.words) from error

    def _put_others_back(
        self, service: Service, done: Sequence[tuple[Instance, Slot, str]]
    ) -> None:
        """Instances that were replaced before one failed run the old release again."""
        for instance, old, version in reversed(done):
            if not version:
                continue
            self.say(f"{instance.unit}: goes back to {version}")
            try:
                self._replace(
                    service, instance, instance.other(old), version, stable=1, files=False
                )
            except DeployFailed as error:
                self.say(f"{instance.unit}: does not go back: {error.step}: {error.words}")

    def _replace(
        self,
        service: Service,
        instance: Instance,
        old: Slot,
        version: str,
        stable: float,
        *,
        files: bool = True,
    ) -> None:
        """The other slot takes over from the one that serves."""
        machine, new = self.machine, instance.other(old)
        self.say(f"{instance.unit}: {version} starts on port {new.port}, beside port {old.port}")
        try:
            holder = machine.holder(new.port)
            if holder:
                raise DeployFailed(PREPARE, f"port {new.port} is held by {holder}")
            self._prepare(service, instance, new, version, files=files)
            machine.reload([new.service])
            self._step(instance, new, START)
            words = machine.start([new.service], service.patience + 60)
            if words:
                raise DeployFailed(START, words)
            self._step(instance, new, PROBE)
            self._until_ready(service, instance, new, stable)
        except DeployFailed as error:
            raise self._give_up(service, instance, old, new, error) from error
        self.say(f"{instance.unit}: {version} is ready; port {instance.port} leads to it now")
        try:
            self._step(instance, new, SWITCH)
            machine.switch(instance.address, instance.port, new.port)
            self._step(instance, new, VERIFY)
            self._verify(instance, new)
            state = self._step(instance, new, DRAIN)
            state.live = new.name
            machine.save(instance.unit, state)
            self._drain(service, instance, old, watch=True)
        except DeployFailed as error:
            raise self._give_up(service, instance, old, new, error) from error
        self._step(instance, new, STOP)
        machine.stop(old.service)
        machine.unlink(old.link)
        state = self._state(instance)
        state.journal = None
        machine.save(instance.unit, state)
        self.say(f"{instance.unit}: {version} serves, what served before has ended")

    def _give_up(
        self, service: Service, instance: Instance, old: Slot, new: Slot, error: DeployFailed
    ) -> DeployFailed:
        """The old process serves as before; what is told about the new one."""
        machine = self.machine
        self.say(f"{instance.unit}: {error.step}: {error.words}")
        logs = error.logs or machine.logs(new.service, instance.log_files)
        if self._leads(instance) != old.name:
            machine.switch(instance.address, instance.port, old.port)
            self.say(f"{instance.unit}: port {instance.port} leads back to port {old.port}")
            self._wait_for_none(new, PUT_BACK_DRAIN)
        try:
            machine.stop(new.service)
            machine.unlink(new.link)
            state = self._state(instance)
            state.live, state.journal = old.name, None
            machine.save(instance.unit, state)
        except DeployFailed as more:
            # The journal stays, and the next run cleans up.
            self.say(f"{instance.unit}: {more.words}")
        return DeployFailed(error.step, f"{instance.unit}: {error.words}", logs)

    # ------------------------------------------------------------ steps

    def _state(self, instance: Instance) -> State:
        state = self.machine.state(instance.unit)
        if state is None:
            raise DeployFailed(SETTLE, f"the state of {instance.unit} has gone")
        return state

    def _step(self, instance: Instance, slot: Slot, step: str) -> State:
        """What is about to be done stands in the file before it is."""
        state = self._state(instance)
        since = (state.journal or {}).get("since") or self.clock()
        state.journal = {
            "step": step,
            "slot": slot.name,
            "version": state.version(slot.name),
            "since": since,
            "who": self.who,
            "action": self.action,
        }
        self.machine.save(instance.unit, state)
        return state

    def _prepare(
        self,
        service: Service,
        instance: Instance,
        slot: Slot,
        version: str,
        *,
        files: bool = True,
    ) -> None:
        machine = self.machine
        if not machine.installed(service.path(version)):
            raise DeployFailed(PREPARE, f"the release {version} is not on this host")
        state = self._state(instance)
        if files:
            state.slots[slot.name].update(version=version, digest=slot.digest)
        else:
            state.slots[slot.name].update(version=version)
        machine.save(instance.unit, state)
        self._step(instance, slot, PREPARE)
        if files:
            machine.bring(slot)
        machine.link(slot.link, f"../releases/{version}")

    def _until_ready(self, service: Service, instance: Instance, slot: Slot, stable: float) -> None:
        """Ready on its own port, without a break, for as long as it has to be."""
        machine = self.machine
        deadline = machine.now() + service.patience
        since: float | None = None
        # Also where a probe sees it fail before systemd says so.
        was_ready = 0.0
        in_a_row = 0
        needed = SUCCESSES if stable else 1
        while True:
            look = machine.looks([slot.service])[slot.service]
            # What starts for the first time may be early for what it needs.
            looped = look.restarts and stable
            if looped or look.active in ("failed", "inactive"):
                step = PROBE if was_ready else START
                lasted = f"was ready for {was_ready:.1f} s, then " if was_ready else ""
                raise DeployFailed(
                    step,
                    f"{lasted}{slot.service} {look.words}",
                    machine.logs(slot.service, instance.log_files),
                )
            words = self._own(slot)
            now = machine.now()
            if words:
                since, in_a_row = None, 0
            else:
                since = now if since is None else since
                in_a_row += 1
                was_ready = max(now - since, INTERVAL)
                if in_a_row >= needed and now - since >= stable:
                    return
            if words and now > deadline:
                how = f"is not ready after {service.patience:g} s"
                if was_ready:
                    how = f"was ready for {was_ready:.1f} s, then"
                raise DeployFailed(
                    PROBE,
                    f"{how}: {words}{self._where(slot)}",
                    machine.logs(slot.service, instance.log_files),
                )
            machine.sleep(INTERVAL)

    def _where(self, slot: Slot) -> str:
        """For the one whose process listens elsewhere."""
        ports = self.machine.listens(slot.service)
        if any(each.endswith(f":{slot.port}") for each in ports):
            return ""
        where = f"listens on {', '.join(ports)}" if ports else "listens nowhere"
        return f" (it has to listen on port {slot.port}, and {where})"

    def _verify(self, instance: Instance, slot: Slot) -> None:
        """The port leads to it, and it answers there."""
        machine = self.machine
        good = bad = 0
        while good < SUCCESSES:
            words = machine.probe(instance.probes, direct=False)
            good, bad = (0, bad + 1) if words else (good + 1, 0)
            if bad >= FAILURES:
                raise DeployFailed(VERIFY, f"does not answer through port {instance.port}: {words}")
            machine.sleep(0.1)

    def _drain(self, service: Service, instance: Instance, old: Slot, *, watch: bool) -> None:
        """Connections that were open end by themselves, for as long as they may."""
        machine = self.machine
        new = instance.other(old)
        deadline = machine.now() + service.drain
        bad = none = 0
        next_probe = machine.now()
        told = False
        while True:
            left = machine.connections(old.port)
            none = 0 if left else none + 1
            if none > 1:
                return
            now = machine.now()
            if now >= deadline:
                self.say(f"{instance.unit}: {left} connections are open after {service.drain:g} s")
                return
            if left and not told:
                told = True
                self.say(f"{instance.unit}: waits for {left} open connections")
            if watch and now >= next_probe:
                words = machine.probe(instance.probes, direct=False)
                look = machine.looks([new.service])[new.service]
                bad = bad + 1 if words else 0
                if bad >= FAILURES or look.restarts or not look.runs:
                    raise DeployFailed(
                        DRAIN, f"{words or look.words} while the old process was drained"
                    )
                next_probe = now + (INTERVAL if bad else 1.0)
            machine.sleep(0.2)

    def _wait_for_none(self, slot: Slot, seconds: float) -> None:
        machine = self.machine
        deadline = machine.now() + seconds
        while machine.connections(slot.port) and machine.now() < deadline:
            machine.sleep(0.2)

    # ------------------------------------------------------------ afterwards

    def _record(self, work: Work) -> None:
        """One line in the history, for every deploy that did something or tried to."""
        outcome, service = work.outcome, work.service
        failed = work.failed
        for instance in service.instances:
            state = self.machine.state(instance.unit)
            outcome.slots[instance.unit] = state.live if state else ""
        if failed:
            outcome.result, outcome.step = "failed", failed.step
            outcome.message = self._sentence(work, failed)
        elif outcome.reasons:
            outcome.result = "ok"
        if outcome.result == "unchanged":
            return
        entry = {
            "time": self.clock(),
            "who": self.who,
            "action": self.action,
            "service": service.name,
            "version": service.version,
            "before": outcome.before,
            "result": outcome.result,
            "seconds": outcome.seconds,
        }
        if failed:
            entry.update(step=failed.step, message=failed.words)
        self.machine.record(service.unit, entry)

    def _sentence(self, work: Work, failed: DeployFailed) -> str:
        outcome = work.outcome
        serving = "" if work.fresh or not outcome.before else f"; {outcome.before} serves on"
        logs = f"; its last lines:\n{failed.logs}" if failed.logs else ""
        return (
            f"{outcome.name} {outcome.version}: the step '{failed.step}' failed: "
            f"{failed.words}{serving}{logs}"
        )

    def retire(self, units: Iterable[str]) -> list[str]:
        """Instances that have one of these units (without C(.service)) have slots no longer."""
        gone = set(units)
        found = []
        for unit, state in self.machine.states().items():
            if not gone & {str(slot["unit"]) for slot in state.slots.values()}:
                continue
            self.machine.switch(state.address, state.port, state.port)
            for slot in state.slots.values():
                self.machine.unlink(str(slot["link"]))
            self.machine.forget(unit)
            found.append(unit)
        return found


def _clock() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
