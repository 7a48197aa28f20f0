"""What the lab needs from the machine: paths, locks, bounded commands, podman's settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
CAP_SYS_RESOURCE = 24
CGROUP2_RUNTIME = "berth-cgroup2"


class LabError(Exception):
    """Something the user can read and act upon."""


def say(text: str) -> None:
    """A progress line; stdout is kept for results."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def work_dir() -> Path:
    """Where the lab keeps its state: .work/lab at the root of the checkout."""
    base = os.environ.get("BERTH_WORK")
    path = (Path(base) if base else LAB.parent / ".work").resolve() / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def control_dir() -> Path:
    """Where SSH's control sockets lie: a short path, since a socket's is limited to 108 bytes."""
    path = Path(tempfile.gettempdir()) / f"berth-lab-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(name: str, timeout: float = 900) -> Iterator[None]:
    """Only one lab call at a time on this machine, in whatever checkout, does what `name` says."""
    path = control_dir() / f"{name}.lock"
    with path.open("w") as handle:
        deadline = time.monotonic() + timeout
        waiting = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"another lab call has held {path} for {timeout:.0f} s"
                    ) from None
                if not waiting:
                    say(f"waiting for another lab call to finish ({name})")
                    waiting = True
                time.sleep(0.2)
        yield


def as_root() -> list[str]:
    """Containers with a systemd of their own need root; an ordinary user borrows it."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def run(
    command: Sequence[str | Path],
    *,
    timeout: float = 60,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or to its time limit; its output is returned."""
    shown = " ".join(str(part) for part in command)
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            input=stdin if stdin is not None else "",
            env={**os.environ, **env} if env else None,
            check=False,
            # An interrupt is the lab's to handle: podman, hit by it half way, leaks addresses.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed; lab/packages.txt lists what is") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"not finished after {timeout:.0f} s: {shown}") from None
    if check and done.returncode != 0:
        raise LabError(
            f"failed ({done.returncode}): {shown}\n{(done.stderr or done.stdout).strip()}"
        )
    return done


@dataclass(frozen=True)
class Traits:
    """What of a machine decides how podman has to be set."""

    pure_cgroup2: bool
    systemd: bool
    raises_limits: bool
    runtimes: tuple[str, ...]

    @classmethod
    def detect(cls) -> Traits:
        """Read them from the running machine."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        # The bounding set, not the effective one: sudo can reach no further than that.
        bounding = next(
            (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd")),
            0,
        )
        search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return cls(
            pure_cgroup2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
            systemd=Path("/run/systemd/system").is_dir(),
            raises_limits=bool(bounding >> CAP_SYS_RESOURCE & 1),
            runtimes=tuple(name for name in ("crun", "runc") if shutil.which(name, path=search)),
        )


def containers_conf(traits: Traits) -> str:
    """podman's settings for a machine; they replace the machine's own."""
    if not traits.pure_cgroup2 and "runc" not in traits.runtimes:
        raise LabError("this machine mounts cgroup v1 too, which needs runc: install it")
    if not traits.runtimes:
        raise LabError("no container runtime: install runc or crun")
    lines = ["[containers]", "pids_limit = 0", 'log_driver = "k8s-file"']
    if not traits.raises_limits:
        # podman's own defaults are above what may be set here, and no container would start.
        lines.append('default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]')
    lines += [
        "[engine]",
        'events_logger = "file"',
        # crun refuses v1 and v2 side by side; systemd's newest releases want crun.
        f'runtime = "{traits.runtimes[0] if traits.pure_cgroup2 else "runc"}"',
        f'cgroup_manager = "{"systemd" if traits.pure_cgroup2 and traits.systemd else "cgroupfs"}"',
    ]
    # A host remembers its runtime by name, so the name has to be known to every call.
    lines += ["[engine.runtimes]", f'{CGROUP2_RUNTIME} = ["{LAB / "crun-cgroup2"}"]']
    return "\n".join(lines) + "\n"


def write_if_changed(path: Path, text: str) -> None:
    """Replace a file at once, so that a parallel call never reads half of it."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def podman_command(*args: str) -> list[str]:
    """podman under the lab's settings."""
    conf = work_dir() / "containers.conf"
    write_if_changed(conf, containers_conf(Traits.detect()))
    return [*as_root(), "env", f"CONTAINERS_CONF={conf}", "podman", *args]


def podman(
    *args: str, timeout: float = 60, check: bool = True, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run podman under the lab's settings."""
    return run(podman_command(*args), timeout=timeout, check=check, stdin=stdin)
