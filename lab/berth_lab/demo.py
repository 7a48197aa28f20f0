"""`make demo`: a whole system from nothing, with progress, and how long each phase took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import artifacts, hosts, images, systems
from .machine import LAB, LabError, as_root, say, work_dir

ROOT = LAB.parent
PACKAGES = "packages.txt"


@dataclass
class Phases:
    """What took how long, in seconds."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announce a phase and take its time."""
        say(f"== {name}")
        start = time.monotonic()
        yield
        self.spent[name] = time.monotonic() - start

    def table(self) -> str:
        """The phases with their shares."""
        total = sum(self.spent.values()) or 1
        lines = [
            f"  {name:<28} {seconds:6.1f} s  {100 * seconds / total:3.0f} %"
            for name, seconds in self.spent.items()
        ]
        return "\n".join([*lines, f"  {'from nothing to here':<28} {total:6.1f} s"])


def listed(path: Path) -> list[str]:
    """The packages of a list."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def missing_packages() -> list[str]:
    """Those that the lab needs and this machine has not."""
    wanted = listed(LAB / PACKAGES)
    ask = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    have = {line.split()[0] for line in answer.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in have]


def install_packages() -> None:
    """Install what is missing, naming it first."""
    missing = missing_packages()
    if not missing:
        return
    say(f"installing on this machine: {' '.join(missing)}")
    if shutil.which("apt-get") is None:
        raise LabError(f"install these with your package manager: {' '.join(missing)}")
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise LabError(f"neither root nor sudo: install {' '.join(missing)}")
    apt = [*as_root(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        subprocess.run([*apt, *step], check=True, stdout=subprocess.DEVNULL, timeout=900)


def environment(project: hosts.Project) -> dict[str, str]:
    """What Ansible needs beside its arguments."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(project.directory / "vault-password"),
        "ANSIBLE_FORCE_COLOR": "1" if os.isatty(1) else "0",
    }


def play(
    playbook: str, system: systems.System, overlay: Path, *options: str, quiet: bool = False
) -> None:
    """Run a playbook over the system's inventory and the lab's overlay."""
    program = work_dir().parent / "venv" / "bin" / "ansible-playbook"
    command = [str(program), playbook, "-i", str(system.inventory), "-i", str(overlay), *options]
    say(" ".join(["ansible-playbook", *command[1:]]))
    project = hosts.existing(overlay.parent.name)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(project),
        timeout=1800,
        check=False,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode:
        print(done.stdout or "", end="")
        raise LabError(
            f"{playbook} ended with {done.returncode}; mend what it says and run this again: "
            "it goes on from where it stands"
        )


def together(*jobs: Callable[[], object]) -> None:
    """Run jobs side by side; the first failure is raised once all have ended."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def probes(report: Path) -> str:
    """The table of probes in the report's text."""
    _before, _head, after = report.read_text(encoding="utf-8").partition("\nProbes\n")
    table, _blank, _rest = after.strip("\n").partition("\n\n")
    return f"\nProbes\n\n{table}"


def addresses(system: systems.System, project: hosts.Project, plan: Path) -> str:
    """Where to look: the domains, and how this machine's browser finds them."""
    content = json.loads(plan.read_text(encoding="utf-8"))
    edges = [name for name, host in content["hosts"].items() if "edge" in host["components"]]
    domains = content["domains"]
    if not edges or not domains:
        return ""
    address = project.host(edges[0]).address
    lines = ["", "Open in a browser, once /etc/hosts has this line:", ""]
    lines += [f"  {address} {' '.join(domains)}", ""]
    lines += [f"  https://{domain}/" for domain in domains]
    lines += ["", "Without touching /etc/hosts:", ""]
    lines += [f"  curl -k --resolve {domains[0]}:443:{address} https://{domains[0]}/"]
    return "\n".join(lines)


def status(name: str) -> None:
    """The report of a system that is up."""
    system = systems.parse(name)
    project = hosts.existing(system.project)
    report = project.directory / "report.html"
    overlay = project.directory / "overlay"
    play("playbooks/status.yml", system, overlay, "-e", f"status_html={report}")
    print(f"Report: {report}")


def demo(name: str, *, bare: bool = False) -> None:
    """Everything from nothing: tools, hosts, the system converged, and a report."""
    system = systems.parse(name)
    phases = Phases()
    with phases.phase("system packages"):
        install_packages()
    with phases.phase("virtual environment"):
        subprocess.run(["make", "-s", "setup"], cwd=ROOT, check=True, timeout=900)
    with phases.phase("host image, object store"):
        image = images.Image.parse("debian13", baked=not bare)
        together(lambda: images.ensure(image), lambda: artifacts.ensure("versitygw"))
    with phases.phase("test hosts"):
        overlay = systems.up(system, baked=not bare)
    project = hosts.existing(system.project)
    report = project.directory / "report.html"
    plan = project.directory / "plan.json"
    with phases.phase("converge"):
        play("site.yml", system, overlay)
    with phases.phase("report"):
        text = report.with_suffix(".txt")
        written = ("-e", f"status_html={report}", "-e", f"status_text={text}")
        play("playbooks/status.yml", system, overlay, *written, quiet=True)
        play("playbooks/plan.yml", system, overlay, "-e", f"plan_json={plan}", quiet=True)
    print(probes(text))
    print(addresses(system, project, plan))
    print(f"\nReport: {report}\n\n{phases.table()}")
    print(f"\nAgain: make demo SYSTEM={name}    Away with it: make destroy")
