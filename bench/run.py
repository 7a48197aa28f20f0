"""Measures the collection against one apt call and against loops of ordinary modules.

Every converge starts from a bare host with package lists; all run in one session on one machine,
one after another, so that their ratios mean something where their seconds vary.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".work"
BENCH = ROOT / "bench"
LAB = [sys.executable, str(ROOT / "lab" / "lab")]
SYSTEM = "dhanman/prod"
TARGETS = {"no-op ratio": 0.2, "no-op seconds": 12.0, "cold ratio": 1.8}

sys.path.insert(0, str(ROOT / "lab"))


@dataclass(frozen=True)
class Run:
    """One playbook run."""

    seconds: float
    tasks: int
    changed: int
    trips: int


def lab(*words: str) -> str:
    """A call of the lab program; what it prints."""
    done = subprocess.run([*LAB, *words], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def play(project: str, venv: str, *words: str) -> Run:
    """Run ansible-playbook, counting its connections."""
    state = WORK / "lab" / project
    counter = state / "ssh-count"
    counter.write_text("")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(state / "vault-password"),
        "ANSIBLE_SSH_EXECUTABLE": str(BENCH / "count-ssh"),
        "BERTH_SSH_COUNT": str(counter),
        "ANSIBLE_NOCOLOR": "1",
    }
    if venv != "venv":
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(WORK / venv)
    start = time.monotonic()
    done = subprocess.run(
        [str(WORK / venv / "bin" / "ansible-playbook"), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    counts = [
        {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}
        for line in done.stdout.split("PLAY RECAP")[-1].splitlines()
        if "ok=" in line
    ]
    return Run(
        seconds,
        sum(each["ok"] + each["skipped"] for each in counts),
        sum(each["changed"] for each in counts),
        len(counter.read_text().splitlines()),
    )


def fresh(project: str) -> Path:
    """A bare host for a project, and its overlay."""
    lab("down", project)
    overlay = Path(lab("system", SYSTEM, "--project", project, "--bare"))
    # What the run before has left to be written would be paid for by this one.
    os.sync()
    return overlay


def manual(project: str) -> set[str]:
    """The packages that were asked for on the host, not only pulled in."""
    return set(lab("ssh", project, "prod1", "apt-mark", "showmanual").split())


def one_call(packages: list[str]) -> float:
    """Seconds that apt takes for these packages on a bare host."""
    fresh("bench-apt")
    start = time.monotonic()
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    lab("ssh", "bench-apt", "prod1", "DEBIAN_FRONTEND=noninteractive", *command)
    seconds = time.monotonic() - start
    lab("down", "bench-apt")
    return seconds


def measure(repeats: int) -> dict[str, Any]:
    """All figures."""
    results: dict[str, Any] = {}
    results["berth cold"], results["apt"] = [], []
    packages: list[str] = []
    for _each in range(repeats):
        overlay = fresh("bench-berth")
        before = manual("bench-berth")
        words = ["site.yml", "-i", str(ROOT / "inventories" / SYSTEM), "-i", str(overlay)]
        print("berth, cold", flush=True)
        results["berth cold"].append(play("bench-berth", "venv", *words))
        packages = sorted(manual("bench-berth") - before)
        print("one apt call", flush=True)
        results["apt"].append(one_call(packages))
    results["packages"] = packages
    print("berth, no-op", flush=True)
    results["berth no-op"] = [play("bench-berth", "venv", *words) for _each in range(repeats)]
    lab("down", "bench-berth")

    print("ordinary modules", flush=True)
    venv = WORK / "bench-venv"
    if not (venv / "bin" / "ansible-playbook").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run(
            [
                str(WORK / "venv/bin/uv"),
                "pip",
                "install",
                "--quiet",
                "--python",
                str(venv / "bin/python"),
                "-r",
                str(BENCH / "requirements.txt"),
            ],
            check=True,
        )
    overlay = fresh("bench-ordinary")
    words = [str(BENCH / "ordinary.yml"), "-i", str(overlay)]
    results["ordinary cold"] = play("bench-ordinary", "bench-venv", *words)
    print("ordinary modules, no-op", flush=True)
    results["ordinary no-op"] = [
        play("bench-ordinary", "bench-venv", *words) for _each in range(repeats)
    ]
    lab("down", "bench-ordinary")
    return results


def median(runs: list[Run]) -> float:
    """The median of the runs' seconds."""
    return statistics.median(run.seconds for run in runs)


def version(venv: str) -> str:
    """The ansible-core of an environment."""
    first = subprocess.run(
        [str(WORK / venv / "bin" / "ansible"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[0]
    return first.removeprefix("ansible [core ").removesuffix("]")


def page(results: dict[str, Any]) -> str:
    """docs/benchmarks.md."""
    berth, ordinary = results["berth no-op"], results["ordinary no-op"]
    noop = median(berth)
    cold, calls = results["berth cold"], results["apt"]
    apt = statistics.median(calls)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**3
    rows = [
        (f"one apt call, the same packages (median of {len(calls)})", apt, "-", "-"),
        (f"Berth, cold (median of {len(cold)})", median(cold), cold[0].tasks, cold[0].trips),
        (f"Berth, no-op (median of {len(berth)})", noop, berth[0].tasks, berth[0].trips),
        (
            "ordinary modules, cold",
            results["ordinary cold"].seconds,
            results["ordinary cold"].tasks,
            results["ordinary cold"].trips,
        ),
        (
            f"ordinary modules, no-op (median of {len(ordinary)})",
            median(ordinary),
            ordinary[0].tasks,
            ordinary[0].trips,
        ),
    ]
    ratios = {
        "no-op ratio": noop / median(ordinary),
        "no-op seconds": noop,
        "cold ratio": median(cold) / apt,
    }
    lines = [
        "# Benchmarks",
        "",
        f"Dhanman prod on one Debian 13 host of the lab, {datetime.date.today()}: `make bench`.",
        "",
        f"Machine: {os.cpu_count()} cores, {memory} GiB, {platform.system()} {platform.release()}. "
        f"ansible-core {version('venv')}, the ordinary playbook with {version('bench-venv')}; "
        f"Python {platform.python_version()}. Every cold run starts on a bare host with package "
        "lists; all runs follow one another in one session. Machines are noisy: read the ratios.",
        "",
        "| | seconds | tasks | round trips |",
        "|---|---|---|---|",
        *(
            f"| {name} | {seconds:.1f} | {tasks} | {trips} |"
            for name, seconds, tasks, trips in rows
        ),
        "",
        "| target | wanted | measured |",
        "|---|---|---|",
        f"| no-op, Berth to ordinary | at most {TARGETS['no-op ratio']:.2f} "
        f"| {ratios['no-op ratio']:.2f} |",
        f"| no-op, seconds | under {TARGETS['no-op seconds']:.0f} "
        f"| {ratios['no-op seconds']:.1f} |",
        f"| cold, Berth to the apt call | at most {TARGETS['cold ratio']:.1f} "
        f"| {ratios['cold ratio']:.2f} |",
        "",
        "A task that loops counts once, a round trip is a connection that carried a command. "
        "The ordinary playbook is `bench/ordinary.yml`; it does less: no checks of what is "
        "reachable, no backup of the first hour, no users of the object store, no least privilege.",
        "",
        f"Packages: {', '.join(results['packages'])}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the raw figures there")
    args = parser.parse_args()
    results = measure(args.repeats)
    text = page(results)
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    if args.json:
        args.json.write_text(json.dumps(results, default=vars, indent=2))
    print(text)


if __name__ == "__main__":
    main()
