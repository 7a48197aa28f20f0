"""The controller is killed in the midst of a converge: a plain rerun ends healthy.

Ten points, spread evenly over the tasks that change something on a fresh host, from the first to
the last, each of them met on a fresh host. A task has just begun when the controller dies, so that
its module is at work on the host, where it goes on alone, and the rerun meets it. Every second
time the controller's connection dies, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from harness import KEEP, System
from systems import SYSTEMS
from test_platform import assert_all_healthy

POINTS = 10
# Seconds into the task, in turn: while its module arrives, begins, and is at work.
DELAYS = (0.1, 0.6, 1.5)
ENTRY = replace(next(each for each in SYSTEMS if each.name == "dhanman/prod"), bare=False)


class Killer:
    """Says when a task has been running for so long."""

    def __init__(self, task: str, delay: float) -> None:
        self.task = task
        self.delay = delay
        self.began = 0.0

    def __call__(self, events: list[dict[str, Any]]) -> bool:
        if not self.began and any(e["event"] == "task" and e["task"] == self.task for e in events):
            self.began = time.monotonic()
        return bool(self.began) and time.monotonic() - self.began >= self.delay


class Current:
    """The host that is interrupted, which can be had anew."""

    def __init__(self) -> None:
        self.system = System(ENTRY, "st-interrupted")

    def renew(self) -> System:
        """A host that has nothing yet."""
        self.system = System(ENTRY, "st-interrupted")
        self.system.up(scanner=False)
        return self.system


@pytest.fixture(scope="module")
def current() -> Iterator[Current]:
    """A host of this module's own."""
    found = Current()
    try:
        yield found
    finally:
        if not KEEP:
            found.system.down()


def points(system: System) -> list[str]:
    """Tasks at which to kill, evenly from the first one that changes something to the last."""
    play = system.play("site.yml", "--check")
    changing = [e["task"] for e in play.results if e["changed"] and not e["handler"]]
    changing = list(dict.fromkeys(changing))
    assert len(changing) > POINTS
    return [changing[number * (len(changing) - 1) // (POINTS - 1)] for number in range(POINTS)]


def test_ten_kills_leave_nothing_that_a_rerun_does_not_mend(current: Current) -> None:
    system = current.renew()
    for number, task in enumerate(points(system)):
        if number:
            system = current.renew()
        delay = DELAYS[number % len(DELAYS)]
        system.say(f"to be killed {delay} s into {task}")
        play = system.play("site.yml", stop=Killer(task, delay))
        assert play.rc == -9, f"not killed at {task}: {play.tail}"
        assert not play.recap
        if number % 2:
            next(iter(system.hosts.values())).hang_up()
        assert_all_healthy(system, system.play("site.yml"))
    assert sorted(system.play("site.yml").changes) == []


@pytest.mark.parametrize(
    ("task", "delay"),
    [
        ("berth.platform.tls : Certificates are in place", 1.5),
        ("berth.platform.postgresql : Databases, users and privileges are as listed", 0.6),
        ("berth.platform.app : Services run", 0.1),
    ],
    ids=["certificates", "passwords", "services"],
)
def test_a_rotation_that_is_killed_is_finished_by_a_plain_run(
    current: Current, task: str, delay: float
) -> None:
    """New passwords and a new authority, and nothing is left that still goes by the old ones."""
    interrupted = current.system
    kept = {name: text for name, text in interrupted.secrets.items() if "cipher" in name}
    names = sorted(set(interrupted.secrets) - set(kept) - {"rabbitmq-cookie"})
    old = interrupted.secrets
    asked = ["playbooks/rotate.yml", "-e", f"secret={','.join(names)}"]
    play = interrupted.play(*asked, stop=Killer(task, delay))
    assert play.rc == -9, f"not killed at {task}: {play.tail}"
    del interrupted.secrets
    assert all(interrupted.secrets[name] != old[name] for name in names)
    assert all(interrupted.secrets[name] == text for name, text in kept.items())

    # Old connections and sessions would go on; a reader of the old files would, too.
    play = interrupted.play("site.yml")
    assert_all_healthy(interrupted, play)
    assert sorted(interrupted.play("site.yml").changes) == []
