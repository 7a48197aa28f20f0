"""Plumbing of the system tests: the systems' hosts, the order of the tests, and what a failure
shows.

Tests of one system share its hosts, in the order of their stages; then the hosts go, and the next
system's come. BERTH_KEEP=1 leaves them, and finds them again.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from fnmatch import fnmatch

import harness
import pytest
from harness import SCANNER, System
from systems import SYSTEMS, Entry

# Outside of 10.0.0.0/8 and of every lab network: somebody from the internet.
STRANGER = "172.31.255.9"


def pytest_configure(config: pytest.Config) -> None:
    """The markers, and a way around the capturing for progress."""
    config.addinivalue_line("markers", "stage(number): when among the tests of a system")
    config.addinivalue_line("markers", "systems(pattern): which systems a test is for")
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, flush=True)

    harness.say = say

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # As an exception, so that the hosts go.
    signal.signal(signal.SIGTERM, stop)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `system` runs for each one that is listed."""
    if "system" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("systems")
    patterns = marker.args if marker else ("*",)
    entries = [each for each in SYSTEMS if any(fnmatch(each.name, p) for p in patterns)]
    ids = [each.project for each in entries]
    metafunc.parametrize("system", entries, ids=ids, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """System by system, and stage by stage within one; what needs its own hosts comes last."""

    def place(item: pytest.Item) -> tuple[int, int]:
        callspec = getattr(item, "callspec", None)
        entry = callspec.params.get("system") if callspec else None
        marker = item.get_closest_marker("stage")
        stage = marker.args[0] if marker else 0
        return (SYSTEMS.index(entry) if entry in SYSTEMS else len(SYSTEMS), stage)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> None:
    if not harness.KEEP:
        harness.remove_leftovers()


@pytest.fixture(scope="session")
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """The system's hosts, as its tests have left them so far."""
    entry: Entry = request.param
    found = System(entry)
    try:
        found.up()
        yield found
    finally:
        if not harness.KEEP:
            found.down()


@pytest.fixture
def converged(system: System) -> System:
    """The system once it has converged; where it has not, that is one failure and not fifty."""
    if system.first_run.rc:
        pytest.skip(f"{system.entry.name} did not converge")
    return system


@pytest.fixture
def stranger(system: System) -> Iterator[str]:
    """A second address of the scanner, to which every host knows the way."""
    own = system.addresses[SCANNER]
    system.scanner.out(f"ip address replace {STRANGER}/32 dev eth0")
    for host in system.hosts.values():
        host.out(f"ip route replace {STRANGER}/32 via {own} dev eth0")
    yield STRANGER
    for host in system.hosts.values():
        host.out(f"ip route delete {STRANGER}/32")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is explained by the hosts' journals more often than by the assertion."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, System) and value.overlay.name:
                if value.plays and "ended with" not in str(report.longrepr):
                    report.sections.append(("the last play's end", value.plays[-1].tail))
                for name, host in value.hosts.items():
                    report.sections.append((f"journal of {name}", host.journal()))
                break
    return report
