"""What every scenario's tests share: all hosts by name, converging again, and the journal."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import testinfra

# Without the kernel's, which are those of the whole machine.
TRANSPORTS = " ".join(f"_TRANSPORT={name}" for name in ("journal", "stdout", "syslog"))
JOURNAL = f"journalctl --no-pager --quiet --output=short-iso --lines=40 {TRANSPORTS}"


@pytest.fixture(scope="session")
def inventory() -> str:
    """The directory that molecule and the lab have written the inventory to."""
    return str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent)


@pytest.fixture(scope="session")
def hosts(inventory: str) -> dict[str, Any]:
    """Every host of the scenario by its name, for a test that needs two of them.

    The fixture `host` is testinfra's own: the test runs once for each host, or once for those
    that `testinfra_hosts = ["ansible://server"]` in the module names.
    """
    found = testinfra.get_hosts(["ansible://all"], ansible_inventory=inventory)
    return {host.backend.get_pytest_id().removeprefix("ansible://"): host for host in found}


@pytest.fixture(scope="session")
def converge(inventory: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the scenario's converge.yml again: converge("--check", nginx_sites=[...])."""

    def run(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        playbook = str(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "converge.yml")
        extra = ["-e", json.dumps(variables)] if variables else []
        command = ["ansible-playbook", "-i", inventory, *extra, *arguments, playbook]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false"}
        return subprocess.run(
            command,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def lab() -> Callable[..., None]:
    """Ask the lab about a host of the scenario: lab("restart", "server")."""
    project = "molecule-" + re.sub("[^a-z0-9]+", "-", os.environ["MOLECULE_SCENARIO_NAME"])
    program = str(Path(__file__).parents[2] / "lab" / "lab")

    def run(command: str, host: str, *arguments: str) -> None:
        subprocess.run([program, command, project, host, *arguments], check=True)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure in a test is explained by the host's journal more often than by the assertion."""
    report = yield
    if report.when == "call" and report.failed:
        funcargs = getattr(item, "funcargs", {})
        found = dict(funcargs.get("hosts", {}))
        if "host" in funcargs:
            found["host"] = funcargs["host"]
        for name, host in found.items():
            report.sections.append((f"journal of {name}", host.run(JOURNAL).stdout))
    return report
