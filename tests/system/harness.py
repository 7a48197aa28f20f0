"""A system under test: its hosts in the lab, the plays over them, and commands on the hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from systems import Entry

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("BERTH_WORK") or ROOT / ".work").resolve() / "system"
BIN = ROOT / ".work" / "venv" / "bin"
REMOTE = HERE / "remote"
SCANNER = "scanner"
# Without the kernel's, which are those of the whole machine.
TRANSPORTS = " ".join(f"_TRANSPORT={name}" for name in ("journal", "stdout", "syslog"))
JOURNAL = f"journalctl --no-pager --quiet --output=short-iso --lines=80 {TRANSPORTS}"
# Leaves the hosts when the tests end, and finds them when the next ones begin.
KEEP = bool(os.environ.get("BERTH_KEEP"))

say: Callable[[str], None] = print


def lab(*arguments: str, timeout: float = 900) -> str:
    """Run a command of the lab; its standard output."""
    command = [sys.executable, str(ROOT / "lab" / "lab"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise AssertionError(f"lab {' '.join(arguments)} failed:\n{done.stderr}{done.stdout}")
    return done.stdout


def remove_leftovers() -> None:
    """What an earlier run that was killed has left."""
    for line in lab("list").splitlines():
        # A project of another checkout has that checkout's path behind it.
        if line.startswith("st-") and "(" not in line:
            lab("down", line.split()[0])


@dataclass(frozen=True)
class Done:
    """A command's end."""

    rc: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Host:
    """A host of the lab, over SSH."""

    name: str
    address: str
    config: Path

    def ssh(self, command: str) -> list[str]:
        """The command line that runs a shell command there."""
        return ["ssh", "-F", str(self.config), self.name, command]

    def run(self, command: str, stdin: str = "", timeout: float = 120) -> Done:
        """Run a shell command as root."""
        done = subprocess.run(
            self.ssh(command),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def out(self, command: str, stdin: str = "", timeout: float = 120) -> str:
        """The output of a command that has to succeed."""
        done = self.run(command, stdin, timeout)
        assert done.rc == 0, f"{self.name}: {command}: {done.rc}\n{done.stderr}{done.stdout}"
        return done.stdout.strip()

    def script(self, name: str, timeout: float = 180, **data: Any) -> Any:
        """Run a script of remote/ with its data on the standard input; its answer."""
        program = (REMOTE / f"{name}.py").read_text(encoding="utf-8")
        command = f"exec python3 -c {shlex.quote(program)}"
        return json.loads(self.out(command, json.dumps(data), timeout))

    @contextlib.contextmanager
    def background(self, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A Python program that runs there until the block ends; it has said a line by then."""
        guard = "import os, sys, threading\nthreading.Thread(target=lambda: (sys.stdin.read(), "
        guard += "os._exit(0)), daemon=True).start()\n"
        command = self.ssh(f"exec python3 -u -c {shlex.join([guard + program, *arguments])}")
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), f"{self.name}: the program did not start"
            yield process
        finally:
            process.communicate(timeout=20)

    def hang_up(self) -> None:
        """End the connection that Ansible and we share, as when the controller loses its power."""
        command = ["ssh", "-F", str(self.config), "-O", "exit", self.name]
        subprocess.run(command, capture_output=True, timeout=20, check=False)

    def psql(self, statement: str, database: str = "postgres") -> str:
        """What PostgreSQL answers its superuser."""
        command = f"runuser -u postgres -- psql -XAtq -d {shlex.quote(database)}"
        return self.out(f"cd / && {command}", statement)

    def journal(self) -> str:
        """The last lines of the journal."""
        try:
            lines = self.run(JOURNAL, timeout=20).stdout.splitlines()
        except subprocess.TimeoutExpired:
            return f"{self.name} does not answer"
        # Modules log how they were called, which the play has said already.
        return "\n".join(line[:300] for line in lines if "Invoked with" not in line)


@dataclass
class Play:
    """A run of a playbook, with its output and what it did, task by task."""

    command: list[str]
    rc: int
    log: Path
    events: list[dict[str, Any]] = field(repr=False)
    seconds: float

    @property
    def output(self) -> str:
        """All that it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def tail(self) -> str:
        """The end of what it printed, with lines that can be read."""
        return "\n".join(line[:1000] for line in self.output.splitlines()[-60:])

    @property
    def results(self) -> list[dict[str, Any]]:
        """Each task's result on each host."""
        return [event for event in self.events if event["event"] == "result"]

    @property
    def changes(self) -> set[tuple[str, str]]:
        """Host and task of all that changed."""
        return {(each["host"], each["task"]) for each in self.results if each["changed"]}

    @property
    def paths(self) -> set[tuple[str, str]]:
        """Host and path of every file that changed."""
        return {(each["host"], path) for each in self.results for path in each["files"]}

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The counts of each host."""
        return next((e["hosts"] for e in reversed(self.events) if e["event"] == "stats"), {})

    def probes(self, host: str) -> dict[str, bool]:
        """Whether each probe of a host was healthy in the end."""
        found: dict[str, bool] = {}
        for each in self.results:
            if each["host"] == host:
                found.update(each["probes"])
        return found

    def expect(self, rc: int = 0) -> None:
        """Fail with its last words unless it ended so."""
        if self.rc != rc:
            command = " ".join(self.command)
            pytest.fail(f"{command} ended with {self.rc}:\n{self.tail}", pytrace=False)


@dataclass
class System:
    """An inventory of the project on hosts of the lab."""

    entry: Entry
    project: str = ""
    plays: list[Play] = field(default_factory=list)
    overlay: Path = Path()
    # Every command line on the machine during the first runs.
    processes: set[str] = field(default_factory=set)
    tried: list[tuple[str, ...]] = field(default_factory=list)
    # Nothing has run on the hosts yet. With BERTH_KEEP something may have.
    fresh: bool = True

    def __post_init__(self) -> None:
        self.project = self.project or self.entry.project

    # ------------------------------------------------------------------------------ hosts

    def up(self, *, scanner: bool = True) -> None:
        """Fresh hosts, and the one that looks at them from outside."""
        began = time.monotonic()
        if not KEEP:
            self.down()
        options = ["--project", self.project, "--image", self.entry.image]
        options += ["--bare"] if self.entry.bare else []
        options += ["--extra", SCANNER] if scanner else []
        self.overlay = Path(lab("system", self.entry.name, *options).splitlines()[-1])
        # A copy: plays write the port lock beside the inventory.
        self.fresh = not self.inventory.exists()
        if self.fresh:
            shutil.copytree(ROOT / "inventories", self.directory / "inventories", symlinks=True)
        image = f"{self.entry.image}-{'bare' if self.entry.bare else 'baked'}"
        self.say(f"hosts from {image} in {time.monotonic() - began:.0f} s")

    def down(self) -> None:
        """Remove all that was made."""
        lab("down", self.project)
        shutil.rmtree(self.directory, ignore_errors=True)

    def say(self, text: str) -> None:
        """A line of progress."""
        say(f"  {self.entry.name}: {text}")

    @cached_property
    def directory(self) -> Path:
        """Where the inventory's copy and the plays' logs are."""
        path = WORK / self.project
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def inventory(self) -> Path:
        """The copy of the inventory."""
        return self.directory / "inventories" / self.entry.name

    @property
    def lock(self) -> Path:
        """The port lock beside it."""
        return self.inventory / "ports.lock.yml"

    @property
    def state(self) -> Path:
        """The lab's folder for the project."""
        return self.overlay.parent

    @cached_property
    def addresses(self) -> dict[str, str]:
        """The address of every host, the scanner's included."""
        listed = yaml.safe_load((self.state / "hosts.yml").read_text(encoding="utf-8"))
        return {name: each["ansible_host"] for name, each in listed["all"]["hosts"].items()}

    def host(self, name: str) -> Host:
        """A host by the name that the inventory has for it."""
        return Host(name, self.addresses[name], self.state / "ssh_config")

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts of the inventory."""
        return {name: self.host(name) for name in self.addresses if name != SCANNER}

    @property
    def scanner(self) -> Host:
        """The host beside them."""
        return self.host(SCANNER)

    def reboot(self) -> None:
        """All hosts at once, as after a power cut in the rack."""
        command = [sys.executable, str(ROOT / "lab" / "lab"), "restart", self.project]
        running = [
            subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for name in self.hosts
        ]
        for process in running:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output.decode(errors="replace")

    # ------------------------------------------------------------------------------ plays

    def environment(self, events: Path) -> dict[str, str]:
        """Ansible's, without anything of the user's."""
        own = {name: text for name, text in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {
            **own,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.state / "vault-password"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "system_events",
            "BERTH_EVENTS": str(events),
        }

    def play(
        self,
        playbook: str = "site.yml",
        *options: str,
        rc: int | None = 0,
        timeout: float = 900,
        stop: Callable[[list[dict[str, Any]]], bool] | None = None,
    ) -> Play:
        """Run a playbook; with *stop*, kill it as soon as its events so far are of that kind."""
        name = f"{len(self.plays):02}-{Path(playbook).stem}"
        log, events = self.directory / f"{name}.log", self.directory / f"{name}.jsonl"
        events.write_text("", encoding="utf-8")
        command = [str(BIN / "ansible-playbook"), playbook]
        sources = [self.inventory, self.overlay, self.given_overlay]
        command += [part for path in sources for part in ("-i", str(path))] + list(options)
        began = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self.environment(events),
                start_new_session=True,
            )
            try:
                self._watch(process, events, stop, began + timeout)
            finally:
                if process.poll() is None:
                    kill_tree(process.pid)
                process.wait()
        short = [playbook, *options]
        spent = time.monotonic() - began
        done = Play(short, process.returncode, log, read_events(events), spent)
        self.plays.append(done)
        ended = f"rc {done.rc}" if stop is None else "killed" if done.rc == -9 else f"rc {done.rc}"
        self.say(f"{' '.join(short)}: {ended}, {len(done.changes)} changes, {spent:.1f} s")
        if rc is not None and stop is None:
            done.expect(rc)
        return done

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        events: Path,
        stop: Callable[[list[dict[str, Any]]], bool] | None,
        deadline: float,
    ) -> None:
        """Wait for the end, or for the point at which to kill; say now and then where it is."""
        told = time.monotonic()
        while True:
            try:
                process.wait(0.5 if stop is None else 0.02)
                return
            except subprocess.TimeoutExpired:
                pass
            now = time.monotonic()
            assert now < deadline, f"{process.args} takes too long:\n{events.read_text()[-2000:]}"
            if stop is not None and stop(read_events(events)):
                return
            if now - told > 20:
                told = now
                tasks = [each["task"] for each in read_events(events) if each["event"] == "task"]
                self.say(f"… task {len(tasks)}, {tasks[-1] if tasks else 'starting'}")

    @cached_property
    def given_overlay(self) -> Path:
        """Values for the secrets that the user has to give, as a third inventory."""
        path = self.directory / "given"
        file = path / "group_vars" / "all" / "given.yml"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            values = {name: f"given{os.urandom(12).hex()}" for name in self.entry.given}
            file.write_text(json.dumps(values), encoding="utf-8")
            (path / "hosts.yml").write_text("all: {}\n", encoding="utf-8")
        return path

    def _first(self, *options: str) -> Play:
        """A run that many tests look at: it happens once, and fails once."""
        assert options not in self.tried, f"site.yml {' '.join(options)} has failed before"
        self.tried.append(options)
        with ProcessWatch() as watch:
            play = self.play("site.yml", *options, rc=None)
        self.processes |= watch.seen
        return play

    @cached_property
    def first_check(self) -> Play:
        """The dry run over hosts that have nothing yet."""
        return self._first("--check", "--diff", "-vvv")

    @cached_property
    def first_run(self) -> Play:
        """The run that makes a platform of them."""
        assert self.first_check
        return self._first("--diff", "-vvv")

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan, as playbooks/plan.yml writes it."""
        path = self.directory / "plan.json"
        self.play("playbooks/plan.yml", "-e", f"plan_json={path}")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def planned(self, component: str) -> dict[str, dict[str, Any]]:
        """What the plan says to a role, by host, where it says anything."""
        hosts = self.plan["hosts"]
        return {name: each[component] for name, each in hosts.items() if each.get(component)}

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Every generated secret, from the vault file."""
        command = [str(BIN / "ansible-vault"), "view", str(self.state / "secrets.vault.yml")]
        password = ["--vault-password-file", str(self.state / "vault-password")]
        shown = subprocess.run([*command, *password], capture_output=True, text=True, check=True)
        found: dict[str, str] = yaml.load(shown.stdout, Loader=yaml.BaseLoader)
        return found

    def reveal(self, value: str) -> str:
        """A value of the plan with its secrets in place."""
        for name, secret in self.secrets.items():
            for suffix in ("", "|urlencode"):
                value = value.replace(f"{{secret:{name}{suffix}}}", secret)
        return value

    def services(self) -> Iterator[tuple[Host, dict[str, Any], dict[str, Any]]]:
        """Each instance of each service: its host, the service and the instance."""
        for name, app in self.planned("app").items():
            for service in app["services"]:
                for instance in service["instances"]:
                    yield self.host(name), service, instance


@dataclass
class ProcessWatch:
    """Every command line on this machine while the block runs.

    The lab's hosts are containers, so that their processes are seen here along with the
    controller's own.
    """

    seen: set[str] = field(default_factory=set)

    def __enter__(self) -> ProcessWatch:
        program = [sys.executable, str(HERE / "process_watch.py")]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        output, _ = self.process.communicate(timeout=30)
        self.seen.update(json.loads(output))


def kill_tree(pid: int) -> None:
    """End a process and all that it has started, whatever their groups, before they can react."""
    found = [pid]
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
                if int(parent.split()[1]) == one:
                    found.append(int(path.parent.name))
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a play; the last line of one that was killed may be half written."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
