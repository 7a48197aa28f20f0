"""The controller is killed in the midst of a converge: a plain rerun ends healthy.

Ten points, spread evenly over the tasks that change something on a fresh host, from the first to
the last. Each time the task has just begun, so that its module is at work on the host, where it
goes on alone, and the rerun meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from harness import KEEP, System
from systems import SYSTEMS
from test_platform import assert_all_healthy

POINTS = 10
# Seconds into the task, in turn: as its module arrives, works, and works on.
DELAYS = (0.1, 0.5, 1.5)
ENTRY = replace(next(each for each in SYSTEMS if each.name == "dhanman/prod"), bare=False)


@pytest.fixture(scope="module")
def host_to_interrupt() -> Iterator[System]:
    """A host of its own, that has nothing yet."""
    found = System(ENTRY, "st-interrupted")
    try:
        found.up(scanner=False)
        yield found
    finally:
        if not KEEP:
            found.down()


def test_a_controller_that_is_killed_ten_times_leaves_nothing_that_a_rerun_does_not_mend(
    host_to_interrupt: System,
) -> None:
    pass
