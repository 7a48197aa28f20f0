# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PM2: what the applications of a host come to as files and units, and what has to change; pure."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import systemd_unit

REGISTRY = "/etc/berth/pm2"
HOMES = "/var/lib/pm2"
LOGS = "/var/log/pm2"
PROGRAMS = "/usr/local/lib/berth/pm2"
PROGRAM = "/usr/local/bin/berth-pm2"
# In the environment of every process, so that what runs tells what it was started from.
HASH = "BERTH_HASH"
SECRETS = "BERTH_SECRETS"
# How much later than we PM2 itself gives up on a process that does not say "ready": it would call
# it online then.
GRACE_MS = 3000

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMORY = re.compile(r"[1-9][0-9]*[KMG]?")
_PATH = re.compile(r"/[^\s\"\\*?\[\]{}]*")
# What PM2 takes for something else than a name.
_RESERVED = frozenset({"all"})
_NODE = re.compile(r"(?:.*/)?node")


class Pm2Error(ValueError):
    """Applications that cannot be run, with every fault that was found."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep all faults; the message lists them."""
        super().__init__("\n".join(faults))
        self.faults = list(faults)


def unit_of(user: str) -> str:
    return f"pm2-{user}.service"


def layout(
    apps: Iterable[Mapping[str, Any]], users: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Files, units and what the module is told; raise Pm2Error with every fault."""
    settings, faults = _users(users)
    read: dict[str, list[_App]] = {}
    for number, raw in enumerate(apps):
        app = _App(f"pm2_apps[{number}]", raw)
        faults += app.faults
        named = read.setdefault(app.user, [])
        if app.name in {other.name for other in named}:
            faults.append(f"{app.where}.name: {app.name!r} is named twice for the user {app.user}")
        named.append(app)
    if faults:
        raise Pm2Error(faults)

    files: list[dict[str, Any]] = []
    exclusive: list[dict[str, str]] = []
    accounts: list[dict[str, str]] = []
    for user in sorted(read):
        daemon = _Daemon(user, settings.get(user, {}), read[user])
        accounts.append({"name": user, "group": daemon.group, "home": f"{HOMES}/{user}"})
        try:
            files += daemon.files()
        except systemd_unit.UnitError as error:
            faults += [f"pm2_users ({user}): {fault}" for fault in error.faults]
        exclusive.append({"path": f"{REGISTRY}/{user}", "pattern": "*.json"})
    if faults:
        raise Pm2Error(faults)
    ordered = [app for user in sorted(read) for app in read[user]]
    return {
        "accounts": accounts,
        "files": files,
        "exclusive": exclusive,
        "units": [
            {"name": unit_of(user), "enabled": True, "state": "started"} for user in sorted(read)
        ],
        # What a daemon must have been started after.
        "watched": [
            {
                "name": unit_of(user),
                "paths": ["/opt/pm2/current", f"/etc/systemd/system/{unit_of(user)}"],
            }
            for user in sorted(read)
        ],
        "apps": [app.told() for app in ordered],
    }


def retired_files(users: Iterable[str]) -> list[dict[str, Any]]:
    """What users without applications leave behind; logs stay."""
    return [
        {"path": path, "state": "absent"}
        for user in users
        for path in (
            f"/etc/systemd/system/{unit_of(user)}",
            f"/etc/logrotate.d/pm2-{user}",
            f"{HOMES}/{user}",
            f"{REGISTRY}/{user}",
        )
    ]


def _users(raw: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    found: dict[str, Mapping[str, Any]] = {}
    faults = []
    for number, user in enumerate(raw):
        name = str(user.get("name") or "")
        if not _USER.fullmatch(name):
            faults.append(f"pm2_users[{number}].name: {name!r} is no user name")
        if name in found:
            faults.append(f"pm2_users[{number}].name: {name!r} is named twice")
        found[name] = user
    return found, faults


class _App:
    """An application, checked."""

    def __init__(self, where: str, raw: Mapping[str, Any]) -> None:
        self.where = where
        self.raw = {key: value for key, value in raw.items() if value is not None}
        self.faults: list[str] = []
        self.name = str(raw.get("name") or "")
        self.user = str(raw.get("user") or "")
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            self._fault("name", "letters, digits, . _ and - are expected, a letter first, not all")
        if not _USER.fullmatch(self.user) or self.user == "root":
            self._fault("user", "the name of a user other than root is expected")
        self.cwd = self._path("cwd")
        self.env = self._variables("env")
        self.secrets = self._variables("secret_env")
        both = sorted(set(self.env) & set(self.secrets))
        if both:
            self.faults.append(f"{where}: {both[0]} is in env and in secret_env; keep one")
        self.instances = self._count("instances", 1)
        self.ports = [int(port) for port in self.raw.get("ports") or []]
        for port in self.ports:
            if not 1 <= port <= 65535:
                self.faults.append(f"{where}.ports: {port} is no port, 1 to 65535 is expected")
        self.wait_ready = bool(self.raw.get("wait_ready"))
        self.start_ms = self._count("listen_timeout", 10_000)
        self.kill_ms = self._count("kill_timeout", 5_000)
        memory = self.raw.get("max_memory_restart")
        if memory is not None and not _MEMORY.fullmatch(str(memory)):
            self._fault("max_memory_restart", "an amount such as 300M is expected")
        self.out_file = self._log("out_file", "out")
        self.error_file = self._log("error_file", "error")
        self.cluster = self.raw.get("exec_mode") == "cluster"
        self.program = self._program()

    def _fault(self, key: str, words: str) -> None:
        self.faults.append(f"{self.where}.{key}: {self.raw.get(key)!r}: {words}")

    def _path(self, key: str) -> str:
        path = str(self.raw.get(key) or "")
        if not path.startswith("/") or re.search(r"[\x00-\x1f\x7f]", path):
            self._fault(key, "an absolute path is expected")
        return path

    def _log(self, key: str, kind: str) -> str:
        path = str(self.raw.get(key) or f"{LOGS}/{self.user}/{self.name}.{kind}.log")
        if not _PATH.fullmatch(path):
            self._fault(key, "an absolute path without blanks, quotes and wildcards is expected")
        return path

    def _count(self, key: str, default: int) -> int:
        value = self.raw.get(key, default)
        if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,8}", str(value)):
            self._fault(key, "a whole number above 0 is expected")
            return default
        return int(value)

    def _variables(self, key: str) -> dict[str, str]:
        found = {}
        for name, value in (self.raw.get(key) or {}).items():
            if not _VARIABLE.fullmatch(str(name)):
                self.faults.append(f"{self.where}.{key}: {name!r} is no name of a variable")
            elif not isinstance(value, (str, int, float)) or "\x00" in str(value):
                self.faults.append(f"{self.where}.{key}.{name}: text or a number is expected")
            else:
                found[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
        return found

    @property
    def secrets_path(self) -> str:
        return f"{REGISTRY}/{self.user}/secrets-{self.name}.json"

    def _program(self) -> dict[str, Any]:
        """Script, interpreter and arguments, with the secrets' reader where there are secrets."""
        script, command = self.raw.get("script"), self.raw.get("command")
        if bool(script) == bool(command):
            self.faults.append(f"{self.where}: either script or command is expected")
            return {}
        args = [str(each) for each in self.raw.get("args") or []]
        node_args = [str(each) for each in self.raw.get("node_args") or []]
        interpreter = str(self.raw.get("interpreter") or ("node" if script else "none"))
        try:
            words = shlex.split(str(command)) if command else [str(script)]
        except ValueError as error:
            self._fault("command", f"cannot be split into words: {error}")
            return {}
        if not words:
            self._fault("command", "a program is expected")
            return {}
        program = posixpath.normpath(posixpath.join(self.cwd, words[0]))
        if command and "/" not in words[0]:
            self._fault("command", "the program needs a path: /usr/bin/…, or ./… below cwd")
        args = words[1:] + args
        if command and self.raw.get("interpreter"):
            self._fault("interpreter", "goes with script; a command names its program itself")
        node = bool(_NODE.fullmatch(interpreter))
        if node_args and not node:
            self._fault("node_args", "only Node.js takes them")
        if self.cluster and not node:
            self._fault("exec_mode", "cluster is for a script that Node.js runs")
        if node:
            # Always there: in cluster mode PM2 would give one without arguments those of another.
            preload = f"--require={PROGRAMS}/secrets.js"
            return {
                "script": program,
                "interpreter": interpreter,
                "node_args": [preload, *node_args],
                "args": args,
            }
        if not self.secrets:
            return {"script": program, "interpreter": interpreter, "args": args}
        whole = [program] if interpreter == "none" else [interpreter, program]
        return {
            "script": "/usr/bin/python3",
            "interpreter": "none",
            "args": ["-I", f"{PROGRAMS}/with_secrets.py", *whole, *args],
        }

    @property
    def digest(self) -> str:
        told = json.dumps([self.entry(), self.secrets], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def entry(self, digest: str = "") -> dict[str, Any]:
        """Its part of the ecosystem file."""
        env = dict(self.env)
        if self.secrets:
            env[SECRETS] = self.secrets_path
        if digest:
            env[HASH] = digest
        entry: dict[str, Any] = {
            "name": self.name,
            "cwd": self.cwd,
            **self.program,
            "exec_mode": "cluster" if self.cluster else "fork",
            "instances": self.instances,
            "env": env,
            "wait_ready": self.wait_ready,
            "listen_timeout": self.start_ms + GRACE_MS,
            "kill_timeout": self.kill_ms,
            "out_file": self.out_file,
            "error_file": self.error_file,
            # One file for all instances, under the name that was given.
            "merge_logs": True,
            "autorestart": bool(self.raw.get("autorestart", True)),
            "max_restarts": int(self.raw.get("max_restarts", 16)),
            "min_uptime": int(self.raw.get("min_uptime", 1000)),
            "exp_backoff_restart_delay": int(self.raw.get("exp_backoff_restart_delay", 100)),
            # Neither metrics nor git are PM2's business here.
            "pmx": False,
            "vizion": False,
        }
        if self.raw.get("max_memory_restart") is not None:
            entry["max_memory_restart"] = str(self.raw["max_memory_restart"])
        return entry

    def told(self) -> dict[str, Any]:
        return {
            "user": self.user,
            "name": self.name,
            "hash": self.digest,
            "instances": self.instances,
            "wait_ready": self.wait_ready,
            "timeout": self.start_ms,
            "ports": self.ports,
            "logs": list(dict.fromkeys((self.error_file, self.out_file))),
        }


class _Daemon:
    """The PM2 of one user."""

    def __init__(self, user: str, settings: Mapping[str, Any], apps: Sequence[_App]) -> None:
        self.user = user
        self.settings = settings
        self.apps = apps
        self.group = str(settings.get("group") or user)
        self.home = f"{HOMES}/{user}"
        logs = [path for app in apps for path in (app.out_file, app.error_file)]
        self.logs = list(dict.fromkeys(logs))

    def files(self) -> list[dict[str, Any]]:
        registry = f"{REGISTRY}/{self.user}"
        mine = {"owner": self.user, "group": self.group}
        ecosystem = {"apps": [app.entry(app.digest) for app in self.apps]}
        directories = dict.fromkeys(posixpath.dirname(path) for path in self.logs)
        directories.pop(f"{LOGS}/{self.user}", None)
        return [
            {
                "path": f"/etc/systemd/system/{unit_of(self.user)}",
                "content": self.unit(),
            },
            # Who may enter is who may read the secrets: root and, by the files' mode, the user.
            {"path": registry, "state": "directory"},
            {
                "path": f"{registry}/ecosystem.json",
                "content": _json(ecosystem),
                "mode": "0400",
                "secret": True,
                **mine,
            },
            *(
                {
                    "path": app.secrets_path,
                    "content": _json(app.secrets),
                    "mode": "0400",
                    "secret": True,
                    **mine,
                }
                for app in self.apps
                if app.secrets
            ),
            {"path": self.home, "state": "directory", "mode": "0700", **mine},
            # PM2 greets who has none, and asks its makers for a newer version.
            {"path": f"{self.home}/touch", "content": "\n", "replace": False, **mine},
            # Nothing is saved yet. Where it is missing later, it was lost.
            {
                "path": f"{self.home}/dump.pm2",
                "content": "[]\n",
                "replace": False,
                "mode": "0600",
                **mine,
            },
            {"path": f"{LOGS}/{self.user}", "state": "directory", "mode": "0750", **mine},
            *(
                {"path": path, "state": "directory", "mode": "0750", "replace": False, **mine}
                for path in directories
            ),
            {"path": f"/etc/logrotate.d/pm2-{self.user}", "content": self.rotation()},
        ]

    def unit(self) -> str:
        directories = dict.fromkeys(posixpath.dirname(path) for path in self.logs)
        writable = [self.home, *(f"-{path}" for path in directories)]
        writable += [f"-{path}" for path in self.settings.get("writable_paths") or []]
        signal = str(self.settings.get("stop_signal") or "SIGINT")
        return systemd_unit.render(
            systemd_unit.ServiceUnit(
                description=f"PM2 of {self.user}",
                command=[f"{PROGRAMS}/start", self.user],
                user=self.user,
                group=self.group,
                working_directory=self.home,
                type="forking",
                after=["network-online.target"],
                wants=["network-online.target"],
                environment={"PM2_KILL_SIGNAL": systemd_unit.signal(signal)},
                restart="always",
                restart_seconds=1,
                # The same for any number of applications: one more must not restart the others.
                # PM2 itself gives each the time that is its own.
                start_seconds=300,
                stop_seconds=300,
                limits=dict(self.settings.get("limits") or {}),
                sandbox=dict(self.settings.get("sandbox") or {}),
                writable_paths=writable,
                directives={
                    "PIDFile": f"{self.home}/pm2.pid",
                    "ExecStop": f"{PROGRAM} {self.user} kill",
                },
            )
        )

    def rotation(self) -> str:
        """The processes hold their files open, so those are copied and cut, not renamed."""
        rotation = self.settings.get("log_rotate") or {}
        lines = [
            "# Written by Berth; changes made here are lost.",
            *self.logs,
            f"{self.home}/pm2.log {{",
            f"    su {self.user} {self.group}",
            f"    {rotation.get('frequency') or 'daily'}",
            f"    rotate {int(rotation.get('rotate') or 14)}",
            *([f"    maxsize {rotation['max_size']}"] if rotation.get("max_size") else []),
            "    missingok",
            "    notifempty",
            "    compress",
            "    delaycompress",
            "    copytruncate",
            "}",
        ]
        return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


# ---------------------------------------------------------------- what PM2's daemon is asked


def question(method: str, *arguments: Any) -> bytes:
    """A call of PM2's daemon: an AMP message (version 1) of the call in JSON and an identity."""
    call = json.dumps({"type": "call", "method": method, "args": list(arguments)})
    parts = [f"j:{call}".encode(), b"s:berth:1"]
    head = bytes([1 << 4 | len(parts)])
    return head + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def answer(data: bytes) -> Any:
    """What the daemon returned, or None if that is not all of it yet."""
    if not data:
        return None
    parts, offset = [], 1
    for _each in range(data[0] & 15):
        size = int.from_bytes(data[offset : offset + 4], "big")
        if len(data) < offset + 4 + size:
            return None
        parts.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    if not parts or not parts[0].startswith(b"j:"):
        raise ValueError("no answer of PM2")
    told = json.loads(parts[0][2:])
    if told.get("error"):
        raise ValueError(str(told["error"]))
    return told["args"][0]


# ---------------------------------------------------------------- what is, and what has to change


@dataclass(frozen=True)
class Process:
    """A process as PM2 knows it."""

    name: str
    hash: str
    status: str = "online"
    restarts: int = 0
    since_ms: int = 0


@dataclass(frozen=True)
class Wanted:
    """An application as it is wanted."""

    user: str
    name: str
    hash: str
    instances: int = 1
    wait_ready: bool = False
    timeout: int = 10_000
    ports: tuple[int, ...] = ()
    logs: tuple[str, ...] = ()


@dataclass
class Changes:
    """What has to be done for one user."""

    delete: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def processes(found: Any) -> list[Process]:
    """What PM2 lists (or saved, where there is nothing around pm2_env)."""
    read = []
    for each in found if isinstance(found, list) else []:
        env = each.get("pm2_env", each)
        read.append(
            Process(
                name=str(env.get("name", "")),
                hash=str(env.get(HASH) or ""),
                status=str(env.get("status", "")),
                restarts=int(env.get("restart_time") or 0),
                since_ms=int(env.get("pm_uptime") or 0),
            )
        )
    return read


def by_name(found: Iterable[Process]) -> dict[str, list[Process]]:
    named: dict[str, list[Process]] = {}
    for process in found:
        named.setdefault(process.name, []).append(process)
    return named


def difference(wanted: Sequence[Wanted], found: Iterable[Process]) -> Changes:
    """Compares what one user shall run with what it runs."""
    changes = Changes()
    named = by_name(found)
    known = {app.name for app in wanted}
    for name in named:
        if name not in known:
            changes.delete.append(name)
            changes.words.append(f"{name}: removed")
    for app in wanted:
        running = named.get(app.name, [])
        if not running:
            changes.words.append(f"{app.name}: started")
        elif any(each.hash != app.hash for each in running):
            changes.words.append(f"{app.name}: restarted, its settings changed")
        elif len(running) != app.instances:
            changes.words.append(f"{app.name}: restarted, {len(running)} processes were there")
        elif any(each.status in ("stopped", "errored", "stopping") for each in running):
            status = next(each.status for each in running if each.status != "online")
            changes.words.append(f"{app.name}: restarted, it was {status}")
        else:
            continue
        if running:
            changes.delete.append(app.name)
        changes.start.append(app.name)
    return changes


def is_saved(wanted: Sequence[Wanted], saved: Iterable[Process]) -> bool:
    """Whether a restart of the daemon brings back exactly what is wanted."""
    expected = sorted((app.name, app.hash) for app in wanted for _each in range(app.instances))
    return expected == sorted((process.name, process.hash) for process in saved)


def fault(
    app: Wanted, running: Sequence[Process], restarts: int, listening: set[int], now_ms: int
) -> str | None:
    """Why an application is not up yet; an exclamation mark begins what waiting will not mend."""
    for process in running:
        if process.status == "errored" or process.restarts > restarts:
            return "!it ends right after its start"
    if len(running) < app.instances:
        return f"{len(running)} of {app.instances} processes are there"
    for process in running:
        if process.status != "online":
            why = ", it has not said that it is ready" if app.wait_ready else ""
            return f"it is {process.status}{why}"
        # One that says when it is ready is known to live. Another has to live for a while.
        if not app.wait_ready and now_ms - process.since_ms < 1500:
            return "it has just been started"
    silent = [port for port in app.ports if port not in listening]
    return f"nothing listens on port {silent[0]}" if silent else None
