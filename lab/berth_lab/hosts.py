"""Projects of hosts. podman's labels are the only record, so that none can go stale."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from . import images, net
from .inventory import Access, render_ssh_config, render_yaml
from .machine import (
    CGROUP2_RUNTIME,
    LabError,
    Traits,
    as_root,
    control_dir,
    lock,
    podman,
    run,
    say,
    work_dir,
    write_if_changed,
)

PROJECT = "berth.lab.project"
WORK = "berth.lab.work"
HOST = "berth.lab.host"
ADDRESS = "berth.lab.address"
IMAGE = "berth.lab.image"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
BOOT_TIMEOUT = 90
LOCALHOST = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
NEEDS_CGROUP2 = ("debiantesting",)
# As PID 1 of a real machine systemd shares its mounts with its services; in a container it leaves
# them private, and credentials (LoadCredential=) then never reach a service.
BOOT = ("/bin/sh", "-c", "mount --make-rshared / && exec /sbin/init")
FAULT_TABLE = "berth_lab_fault"


@dataclass(frozen=True)
class Host:
    """One container of a project."""

    name: str
    address: IPv4Address
    image: str
    state: str


@dataclass
class Project:
    """What podman knows of a project."""

    name: str
    work: str = ""
    subnet: IPv4Network | None = None
    hosts: dict[str, Host] = field(default_factory=dict)

    def container(self, host: str) -> str:
        """The container's name."""
        return f"{self.network}-{host}"

    @property
    def network(self) -> str:
        """The network's name."""
        return f"berth-{self.name}"

    @property
    def directory(self) -> Path:
        """Where the project's generated files are."""
        return work_dir() / self.name

    def host(self, name: str) -> Host:
        """A host by its name."""
        if name not in self.hosts:
            known = ", ".join(self.hosts) or "no host at all"
            raise LabError(f"project {self.name} has no host {name!r}; there is {known}")
        return self.hosts[name]


def check_name(kind: str, name: str) -> str:
    """Names become host names and paths."""
    if not NAME.fullmatch(name):
        raise LabError(f"{kind} {name!r}: lower-case letters, digits and dashes, 42 at most")
    return name


def podman_json(*args: str) -> list[dict[str, Any]]:
    """What podman lists, as JSON."""
    listed = json.loads(podman(*args, "--format=json").stdout or "[]")
    return listed if isinstance(listed, list) else []


def projects() -> dict[str, Project]:
    """Every project on this machine, of whatever checkout."""
    found: dict[str, Project] = {}

    def project(labels: dict[str, str]) -> Project:
        entry = found.setdefault(labels[PROJECT], Project(labels[PROJECT]))
        entry.work = entry.work or labels.get(WORK, "")
        return entry

    for row in podman_json("network", "ls", f"--filter=label={PROJECT}"):
        project(row["labels"]).subnet = IPv4Network(row["subnets"][0]["subnet"])
    for row in podman_json("volume", "ls", f"--filter=label={PROJECT}"):
        project(row["Labels"])
    rows = podman_json("ps", "--all", f"--filter=label={PROJECT}")
    for row in sorted(rows, key=lambda row: IPv4Address(row["Labels"][ADDRESS])):
        labels = row["Labels"]
        host = Host(labels[HOST], IPv4Address(labels[ADDRESS]), labels[IMAGE], row["State"])
        project(labels).hosts[host.name] = host
    return found


def load(name: str) -> Project:
    """One project of this checkout; an unknown one is empty."""
    project = projects().get(check_name("project", name)) or Project(name, str(work_dir()))
    if project.work != str(work_dir()):
        raise LabError(f"project {name} belongs to {project.work}; choose another name")
    return project


def existing(name: str) -> Project:
    """A project that has been brought up."""
    project = load(name)
    if project.subnet is None:
        raise LabError(f"there is no project {name}: lab/lab up {name} HOST...")
    return project


def private_key() -> Path:
    """The key that opens every host of this checkout."""
    key = work_dir() / "id_ed25519"
    with lock("key"):
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "berth-lab", "-f", key])
    return key


def access(project: Project) -> Access:
    """How the project's hosts are reached."""
    return Access(project.name, private_key(), control_dir())


def addresses(project: Project) -> dict[str, str]:
    """Host names and addresses, the depot left out: nothing is installed there."""
    return {h.name: str(h.address) for h in project.hosts.values() if h.name != "depot"}


def inventory(project: Project) -> str:
    """The project's inventory."""
    return render_yaml(access(project), addresses(project))


def write_inventory(project: Project, directory: Path) -> None:
    """hosts.yml for Ansible and ssh_config for everything else."""
    write_if_changed(directory / "hosts.yml", inventory(project))
    config = render_ssh_config(access(project), addresses(project))
    write_if_changed(directory / "ssh_config", config)


def taken_subnets() -> list[IPv4Network]:
    """What podman's networks and the machine's routes hold."""
    used = [
        subnet["subnet"]
        for row in podman_json("network", "ls")
        for subnet in row.get("subnets") or []
        if ":" not in subnet["subnet"]
    ]
    routes = json.loads(run(["ip", "-4", "-j", "route", "show"]).stdout or "[]")
    used += [route["dst"] for route in routes if route["dst"] != "default"]
    return [IPv4Network(text, strict=False) for text in used]


def ensure_network(project: Project, wanted: IPv4Network | None) -> IPv4Network:
    """The project's network, made if need be."""
    if project.subnet:
        if wanted and wanted != project.subnet:
            raise LabError(f"project {project.name} is on {project.subnet}, not {wanted}")
        return project.subnet
    with lock("network"):
        taken = taken_subnets()
        if wanted and any(wanted.overlaps(net) for net in taken if net.prefixlen >= 16):
            raise LabError(f"{wanted} overlaps a network that is in use")
        subnet = wanted or net.choose_subnet(taken)
        labels = [f"--label={PROJECT}={project.name}", f"--label={WORK}={project.work}"]
        podman("network", "create", *labels, f"--subnet={subnet}", project.network)
    say(f"network {project.network} is {subnet}")
    return subnet


def container_options(project: Project, host: Host) -> list[str]:
    """What every container of a project is started with."""
    return [
        f"--name={project.container(host.name)}",
        f"--hostname={host.name}",
        f"--network={project.network}",
        f"--network-alias={host.name}",
        f"--ip={host.address}",
        f"--mac-address={net.mac_address(host.address)}",
        f"--label={PROJECT}={project.name}",
        f"--label={WORK}={project.work}",
        f"--label={HOST}={host.name}",
        f"--label={ADDRESS}={host.address}",
        f"--label={IMAGE}={host.image}",
    ]


def boot_options() -> list[str]:
    """A systemd that has a cgroup tree of its own, in which limits are enforced."""
    return [
        "--privileged",
        # Together, these two: any other pair shares the machine's systemd tree among the hosts
        # or loses the limits.
        "--systemd=false",
        "--cgroupns=private",
        "--tmpfs=/run:mode=755,exec",
        "--tmpfs=/run/lock",
        "--tmpfs=/tmp:exec,mode=1777",
        "--env=container=podman",
        # podman's /etc/hosts is a mount that cannot be replaced and forgets what a role wrote.
        "--no-hosts",
        "--stop-signal=SIGRTMIN+3",
    ]


def create(project: Project, host: Host, volumes: Sequence[str]) -> None:
    """Start a new host."""
    mounts = []
    for path in volumes:
        volume = f"{project.container(host.name)}{path.replace('/', '-')}"
        labels = [f"--label={PROJECT}={project.name}", f"--label={WORK}={project.work}"]
        if podman("volume", "exists", volume, check=False).returncode:
            podman("volume", "create", *labels, volume)
        mounts.append(f"--volume={volume}:{path}")
    image = images.Image.parse(host.image)
    start = ["run", "--detach"]
    if image.system in NEEDS_CGROUP2 and not Traits.detect().pure_cgroup2:
        if "crun" not in Traits.detect().runtimes:
            raise LabError(f"{image} needs crun on this machine: install it")
        start.insert(0, f"--runtime={CGROUP2_RUNTIME}")
    podman(*start, *container_options(project, host), *boot_options(), *mounts, image.tag, *BOOT)
    put(project, host.name, "/etc/hosts", f"{LOCALHOST}{host.address} {host.name}\n", "022")


def put(project: Project, host: str, path: str, text: str, umask: str) -> None:
    """Write a file in a running host."""
    script = f'umask {umask}; mkdir -p "${{1%/*}}"; cat >"$1"'
    command = ["exec", "-i", project.container(host), "sh", "-c", script, "sh", path]
    podman(*command, stdin=text, timeout=20)


def authorise(project: Project, host: str) -> None:
    """Put the key in. It is not part of the image, which all checkouts share."""
    public = private_key().with_suffix(".pub").read_text(encoding="ascii")
    put(project, host, "/root/.ssh/authorized_keys", public, "077")


def container_state(project: Project, host: Host) -> str:
    """podman's word for it: running, paused, exited..."""
    form = "--format={{.State.Status}}"
    return podman("inspect", form, project.container(host.name), check=False).stdout.strip()


def wait_for_boot(project: Project, host: Host) -> str:
    """Wait until systemd has settled; `running` or `degraded`."""
    ask = ["exec", project.container(host.name), "systemctl", "is-system-running", "--wait"]
    deadline = time.monotonic() + BOOT_TIMEOUT
    answer = "silent"
    while (left := deadline - time.monotonic()) > 0:
        done = podman(*ask, timeout=left + 1, check=False)
        answer = done.stdout.strip() or done.stderr.strip()
        if answer in ("running", "degraded"):
            return answer
        if container_state(project, host) in ("exited", "stopped"):
            log = podman("logs", "--tail=20", project.container(host.name), check=False)
            raise LabError(f"{host.name} stopped while booting\n{log.stdout}{log.stderr}".rstrip())
        time.sleep(0.1)
    raise LabError(f"{host.name} has not booted after {BOOT_TIMEOUT} s; systemd says: {answer}")


def failed_units(project: Project, host: str) -> str:
    """The names of the units that failed."""
    ask = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"]
    done = podman("exec", project.container(host), *ask, timeout=20, check=False)
    return ", ".join(line.split()[0] for line in done.stdout.splitlines() if line.strip())


def wait_for_ssh(host: Host, timeout: float = 30) -> None:
    """Wait until sshd greets."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((str(host.address), 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise LabError(f"{host.name} ({host.address}) does not answer SSH after {timeout:.0f} s")


def settle(project: Project, host: Host, *, fresh: bool) -> None:
    """Wait until a host is usable. A unit that failed is an error if the host has just booted."""
    state = wait_for_boot(project, host)
    authorise(project, host.name)
    wait_for_ssh(host)
    if state == "degraded":
        text = f"{host.name} is degraded, failed: {failed_units(project, host.name)}"
        if fresh:
            raise LabError(text)
        say(f"warning: {text}")


def in_parallel(calls: Sequence[Callable[[], None]]) -> None:
    """Run all calls, then report every failure."""
    with ThreadPoolExecutor(max_workers=max(1, len(calls))) as pool:
        futures = [pool.submit(call) for call in calls]
    errors = [error for future in futures if (error := future.exception())]
    for error in errors:
        if not isinstance(error, LabError):
            raise error
    if errors:
        raise LabError("\n".join(str(error) for error in errors))


def up(
    name: str,
    wanted: dict[str, images.Image],
    subnet: IPv4Network | None,
    volumes: dict[str, list[str]],
) -> Project:
    """Bring up the missing hosts of a project and keep those that run."""
    for host in wanted:
        check_name("host", host)
        if host == "depot":
            raise LabError("host 'depot': the name is the lab's own")
    for host in volumes:
        if host not in wanted:
            raise LabError(f"--volume for {host!r}, which is not among the hosts")
    for image in dict.fromkeys(wanted.values()):
        images.ensure(image)
    with lock(f"project-{check_name('project', name)}"):
        project = load(name)
        project.subnet = ensure_network(project, subnet)
        began = time.monotonic()
        calls = []
        for host_name, image in wanted.items():
            known = project.hosts.get(host_name)
            if known is None:
                used = [other.address for other in project.hosts.values()]
                address = net.next_address(project.subnet, used)
                known = Host(host_name, address, str(image), "absent")
                project.hosts[host_name] = known
            elif known.image != str(image):
                say(f"warning: {host_name} runs already, with {known.image} instead of {image}")
            calls.append(partial(raise_host, project, known, volumes.get(host_name, [])))
        in_parallel(calls)
        write_inventory(project, project.directory)
    say(f"{len(wanted)} hosts of {name} are ready after {time.monotonic() - began:.1f} s")
    return project


def raise_host(project: Project, host: Host, volumes: Sequence[str]) -> None:
    """Bring one host from whatever state it is in to running."""
    fresh = host.state not in ("running", "paused", "exited", "stopped")
    if fresh:
        close_masters(project, host)
        # A call that was killed leaves one that was created and never started.
        podman("rm", "--force", "--ignore", project.container(host.name))
        create(project, host, volumes)
    elif host.state == "paused":
        podman("unpause", project.container(host.name))
    elif host.state != "running":
        close_masters(project, host)
        podman("start", project.container(host.name))
    settle(project, host, fresh=fresh)


def close_masters(project: Project, host: Host | None = None) -> None:
    """End SSH's shared connections: a later host at the same address must not inherit one."""
    pattern = f"{project.name}-{host.address}-*" if host else f"{project.name}-[0-9]*.*-*"
    for path in control_dir().glob(pattern):
        run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab"], timeout=10, check=False)
        path.unlink(missing_ok=True)


def down(project: Project) -> None:
    """Remove everything of a project; what is gone already is fine."""
    with lock(f"project-{project.name}"):
        close_masters(project)
        label = f"--filter=label={PROJECT}={project.name}"
        containers = [row["Names"][0] for row in podman_json("ps", "--all", label)]
        if containers:
            podman("rm", "--force", "--time=0", "--volumes", *containers, timeout=120)
        volumes = [row["Name"] for row in podman_json("volume", "ls", label)]
        if volumes:
            podman("volume", "rm", "--force", *volumes)
        networks = [row["name"] for row in podman_json("network", "ls", label)]
        if networks:
            podman("network", "rm", "--force", *networks)
        shutil.rmtree(project.directory, ignore_errors=True)
    say(f"project {project.name} is gone")


def down_all() -> None:
    """Remove every project of this checkout."""
    for project in projects().values():
        if project.work == str(work_dir()):
            down(project)


def reboot(project: Project, host: Host) -> None:
    """Shut a host down as a reboot does, and start it again at the same address."""
    began = time.monotonic()
    podman("stop", "--time=60", project.container(host.name), timeout=90)
    close_masters(project, host)
    podman("start", project.container(host.name))
    settle(project, host, fresh=True)
    say(f"{host.name} is back after {time.monotonic() - began:.1f} s")


def nft(project: Project, host: Host, rules: str) -> None:
    """Load rules in a host's network from outside: it need not have nft, and may be paused."""
    inspect = ("inspect", "--format", "{{.State.Pid}}", project.container(host.name))
    pid = podman(*inspect).stdout.strip()
    if pid == "0":
        raise LabError(f"{host.name} does not run")
    run([*as_root(), "nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], stdin=rules)


MEND = f"add table inet {FAULT_TABLE}\ndelete table inet {FAULT_TABLE}\n"
CUT = f"""{MEND}
table inet {FAULT_TABLE} {{
  chain in {{ type filter hook input priority -300; policy drop; iif lo accept; }}
  chain out {{ type filter hook output priority -300; policy drop; oif lo accept; }}
}}
"""


def fault(project: Project, host: Host, action: str) -> None:
    """Break a host in one way, or mend it."""
    container = project.container(host.name)
    if action == "cut":
        nft(project, host, CUT)
    elif action == "mend":
        nft(project, host, MEND)
    elif action == "start":
        raise_host(project, host, [])
    else:
        podman(action, container)
        if action == "kill":
            close_masters(project, host)
    say(f"{host.name}: {action}")


def depot(project: Project, directory: Path) -> str:
    """Serve a directory to the project's hosts; returns its URL."""
    if not directory.is_dir():
        raise LabError(f"{directory} is no directory")
    if project.subnet is None:
        raise LabError(f"project {project.name} has no network")
    image = images.Image("debian13", "bare")
    images.ensure(image)
    address = project.subnet.network_address + net.DEPOT
    host = Host("depot", address, str(image), "absent")
    mount = f"--volume={directory.resolve()}:/srv/depot:ro"
    serve = ["python3", "-m", "http.server", "80", "--directory", "/srv/depot"]
    with lock(f"project-{project.name}"):
        # Always anew: it starts in a fraction of a second, and the directory may be another.
        podman("rm", "--force", "--ignore", "--time=0", project.container("depot"))
        options = container_options(project, host)
        podman("run", "--detach", "--stop-signal=KILL", *options, mount, image.tag, *serve)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection((str(address), 80), timeout=1).close()
            return f"http://{address}"
        except OSError:
            time.sleep(0.05)
    raise LabError(f"the depot at {address} does not answer")


def table(rows: Iterable[Project]) -> str:
    """All projects and hosts, one line each."""
    lines = []
    for project in sorted(rows, key=lambda entry: entry.name):
        note = "" if project.work == str(work_dir()) else f"  ({project.work})"
        lines.append(f"{project.name}  {project.subnet or 'no network'}{note}")
        lines += [
            f"  {h.name:<16} {h.address!s:<16} {h.state:<10} {h.image}"
            for h in project.hosts.values()
        ]
    return "\n".join(lines)
