"""What every scenario's tests share: all hosts by name, and the journal of what failed."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
import testinfra

JOURNAL = "journalctl --no-pager --quiet --output=short-iso --lines=60 --priority=notice"


@pytest.fixture(scope="session")
def hosts() -> dict[str, Any]:
    """Every host of the scenario by its name, for a test that needs two of them.

    The fixture `host` is testinfra's own: the test runs once for each host, or once for those
    that `testinfra_hosts = ["ansible://server"]` in the module names.
    """
    inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
    found = testinfra.get_hosts(["ansible://all"], ansible_inventory=inventory)
    return {host.backend.get_pytest_id().removeprefix("ansible://"): host for host in found}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure in a test is explained by the host's journal more often than by the assertion."""
    report = yield
    if report.when == "call" and report.failed:
        funcargs = getattr(item, "funcargs", {})
        hosts = dict(funcargs.get("hosts", {}))
        if "host" in funcargs:
            hosts["host"] = funcargs["host"]
        for name, host in hosts.items():
            report.sections.append((f"journal of {name}", host.run(JOURNAL).stdout))
    return report
