# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services of a host come to: packages, users, files, releases, units and probes.

Pure: the role ``app`` hands every part of the answer to the module that carries it out.

Names: an instance is one process of a service, under a unit of its own with an environment file
of its own. Everything that an instance has on the host is named by its unit, so that what
belongs to a unit that is no longer wanted is known from its name alone, and a second process on
an instance's standby port needs nothing but a unit name of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import (
    ServiceUnit,
    UnitError,
    environment_file,
    from_mapping,
    render,
)

SERVICES_DIRECTORY = "/etc/berth/services"
CREDENTIALS_DIRECTORY = "/etc/berth/credentials"
MIGRATIONS_DIRECTORY = "/var/lib/berth/migrations"
UNITS_DIRECTORY = "/etc/systemd/system"
LOGROTATE_DIRECTORY = "/etc/logrotate.d"

# Directories of the distribution: files may be put there, their owner and mode are not ours.
_COMMON_DIRECTORIES = (
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/local",
    "/var/log",
    "/var/spool",
    "/var/tmp",
    "/var/www",
)
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.-]{0,100}")
_PROBE_INTERVAL = 0.25
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1", "": "127.0.0.1"}


@dataclass(frozen=True)
class Instance:
    """One process of a service."""

    name: str
    unit: str
    bind: str
    port: int | None
    standby_port: int | None
    command: str
    environment: Mapping[str, Any]
    secret_environment: Mapping[str, Any]
    health: Mapping[str, Any]


@dataclass
class Resources:
    """What a host needs for its services."""

    packages: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    users: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    exclusive: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    units: list[dict[str, Any]] = field(default_factory=list)
    watched: list[dict[str, Any]] = field(default_factory=list)
    probes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, dict[str, Any]] = field(default_factory=dict)


def resources(
    services: Sequence[Mapping[str, Any]],
    scope: str = "",
    play_hosts: Iterable[str] = (),
    this_host: str = "",
) -> dict[str, Any]:
    """Everything that follows from O(services). Raises UnitError with all faults at once.

    O(scope) tells the units of one platform from those of another on the same host. Of a
    service's C(migrate_hosts) the first that is among O(play_hosts) migrates; on the others its
    release waits to be activated.
    """
    faults: list[str] = []
    result = Resources()
    hosts = set(play_hosts)
    seen: dict[str, str] = {}
    rotated: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    for number, service in enumerate(services):
        name = str(service.get("name") or f"number {number + 1}")
        try:
            able = [host for host in service.get("migrate_hosts") or [] if host in hosts]
            migrates = bool(service.get("migrate")) and able[:1] in ([], [this_host])
            builder = _Service(name, service, scope, migrates)
            for instance in builder.instances:
                if instance.unit in seen:
                    faults.append(
                        f"{name}: unit {instance.unit} is already that of {seen[instance.unit]}"
                    )
                seen[instance.unit] = name
            builder.add_to(result, paths, rotated)
        except UnitError as error:
            faults.extend(f"{name}: {fault}" for fault in error.faults)
    if faults:
        raise UnitError(faults)
    result.packages = sorted(set(result.packages))
    result.groups = sorted(set(result.groups))
    result.users = list({user["name"]: user for user in result.users}.values())
    return dict(vars(result))


def retired_files(units: Iterable[str]) -> list[dict[str, Any]]:
    """What goes when these units (without C(.service)) go; what names them goes last."""
    return [
        {"path": path, "state": "absent"}
        for unit in units
        for path in (
            unit_path(unit),
            migration_path(unit),
            rotation_path(unit),
            f"{CREDENTIALS_DIRECTORY}/{unit}",
            environment_path(unit),
        )
    ]


def unit_orders(
    units: Sequence[Mapping[str, Any]],
    known: Mapping[str, Mapping[str, Any]],
    labels: Iterable[str] = (),
    activated: Iterable[str] = (),
    stale: Iterable[str] = (),
    retired: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """What to tell systemd; nothing for a unit that is as it should be.

    O(labels) are units, without C(.service), of which a file changed, O(activated) services that
    have a new release, O(stale) units that an earlier run left unfinished. O(known) is what the
    facts say of the host's units.
    """
    changed, switched, unfinished = set(labels), set(activated), set(stale)
    orders: list[dict[str, Any]] = [
        {"name": f"{unit}.service", "enabled": False, "state": "stopped"}
        for unit in retired
        if f"{unit}.service" in known
    ]
    for unit in units:
        facts = known.get(unit["name"], {})
        if unit["unit"] in changed or unit["service"] in switched or unit["name"] in unfinished:
            orders.append({"name": unit["name"], "enabled": True, "state": "restarted"})
        elif facts.get("active") != "active" or facts.get("enabled") != "enabled":
            orders.append({"name": unit["name"], "enabled": True, "state": "started"})
    return orders


def unit_path(unit: str) -> str:
    return f"{UNITS_DIRECTORY}/{unit}.service"


def migration_path(unit: str) -> str:
    return f"{UNITS_DIRECTORY}/{unit}-migrate@.service"


def rotation_path(unit: str) -> str:
    return f"{LOGROTATE_DIRECTORY}/berth-service-{unit}"


def environment_path(unit: str) -> str:
    return f"{SERVICES_DIRECTORY}/{unit}.env"


class _Service:
    """One service, with its defaults filled in."""

    def __init__(self, name: str, given: Mapping[str, Any], scope: str, migrates: bool) -> None:
        self.name = name
        self.given = given
        self.scope = scope
        self.migrates = migrates
        faults = [
            f"{key}: is missing" for key in ("name", "home", "artifact") if not given.get(key)
        ]
        self.unit = str(given.get("unit") or name)
        self.home = str(given.get("home") or "/")
        if not self.home.startswith("/") or ".." in self.home.split("/"):
            faults.append(f"home: {self.home!r}: an absolute path is expected")
        if self.home in _COMMON_DIRECTORIES:
            faults.append(f"home: {self.home!r} is a directory of the system, not of a service")
        self.user = str(given.get("user") or self.unit)
        self.group = str(given.get("group") or self.user)
        self.current = posixpath.join(self.home, "current")
        self.instances = self._instances()
        for instance in self.instances:
            if not _UNIT.fullmatch(instance.unit) or instance.unit.endswith(".service"):
                faults.append(
                    f"unit: {instance.unit!r}: letters, digits and : _ . - are expected, "
                    "without .service"
                )
            if not instance.command:
                faults.append("command: is missing")
        if faults:
            raise UnitError(faults)
        self.lead = self.instances[0]
        # PM2 runs it, and keeps its logs; what is left to do here is its release.
        self.own_units = given.get("runtime") != "pm2"
        self.log_paths = (
            {instance.unit: self._log_paths(instance) for instance in self.instances}
            if self.own_units
            else {}
        )

    def _instances(self) -> list[Instance]:
        own = self.given
        given = own.get("instances") or [{}]
        return [
            Instance(
                name=str(each.get("name") or each.get("unit") or self.unit),
                unit=str(each.get("unit") or (self.unit if len(given) == 1 else "")),
                bind=str(each.get("bind") or "127.0.0.1"),
                port=_port(each.get("port")),
                standby_port=_port(each.get("standby_port")),
                command=str(each.get("command") or own.get("command") or ""),
                environment=_merged(own, each, "environment"),
                secret_environment=_merged(own, each, "secret_environment"),
                health=each.get("health") or own.get("health") or {},
            )
            for each in given
        ]

    def expand(self, text: str, instance: Instance, release: str = "") -> str:
        """Fills in C({port}) and its like; other braces are left alone."""
        values = {
            "bind": instance.bind,
            "port": "" if instance.port is None else str(instance.port),
            "standby_port": "" if instance.standby_port is None else str(instance.standby_port),
            "name": self.name,
            "instance": instance.name,
            "unit": instance.unit,
            "home": self.home,
            "current": release or self.current,
        }
        return re.sub(
            r"(?<![$%{])\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], text
        )

    # ------------------------------------------------------------ parts

    def add_to(
        self, result: Resources, paths: dict[str, dict[str, Any]], rotated: set[str]
    ) -> None:
        given = self.given
        result.packages += [str(package) for package in given.get("packages") or []]
        if (given.get("artifact") or {}).get("git"):
            result.packages.append("git")
        result.groups.append(self.group)
        result.users.append({"name": self.user, "group": self.group, "home": self.home})
        result.files += self._directories(paths)
        for instance in self.instances if not self.own_units else ():
            # Its environment is for migrations, and says whose it is when it is gone.
            result.files.append(self._environment_file(instance))
            result.watched.append({"name": f"{instance.unit}.service", "paths": []})
        for instance in self.instances if self.own_units else ():
            result.files += self._instance_files(instance)
            result.exclusive.append(
                {"path": f"{CREDENTIALS_DIRECTORY}/{instance.unit}", "pattern": "*"}
            )
            result.logs[instance.unit] = {
                "name": f"{instance.unit}.service",
                "files": self.log_paths[instance.unit],
            }
            result.probes[instance.unit] = self._probes(instance)
            name = f"{instance.unit}.service"
            result.units.append({"name": name, "unit": instance.unit, "service": self.name})
            result.watched.append({"name": name, "paths": self._watched(instance)})
        if given.get("migrate"):
            result.files.append(self._migration_file())
        rotation = self._rotation(rotated)
        if rotation:
            result.packages.append("logrotate")
            result.files.append(rotation)
        result.releases.append(self._release())

    def _directories(self, paths: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Directories that do not exist yet; one that exists belongs to whoever made it."""
        wanted: list[dict[str, Any]] = []
        for path in (p for log in self.log_paths.values() for p in log):
            # The manager itself opens the files, as root: the service needs no right here, and
            # who reads logs is in adm (the setgid bit gives new files that group).
            wanted.append(_directory(posixpath.dirname(path), "root", "adm", "2750"))
        for path in self.given.get("writable_paths") or []:
            wanted.append(_directory(str(path).lstrip("-+"), self.user, self.group, "0750"))
        if self.given.get("migrate"):
            wanted.append(_directory(f"{MIGRATIONS_DIRECTORY}/{self.unit}", "root", "root", "0755"))
        new = []
        for entry in wanted:
            if entry["path"] in _COMMON_DIRECTORIES or entry["path"] in paths:
                continue
            paths[entry["path"]] = entry
            new.append(entry)
        return new

    def _environment_file(self, instance: Instance) -> dict[str, Any]:
        environment = {
            key: self.expand(value, instance) if isinstance(value, str) else value
            for key, value in instance.environment.items()
        } | dict(instance.secret_environment)
        header = [
            f"Environment of {instance.unit}.service, written by Berth.",
            f"scope: {self.scope}",
        ]
        return {
            "path": environment_path(instance.unit),
            "content": environment_file(environment, header),
            "mode": "0600",
            "secret": True,
            "label": instance.unit,
        }

    def _instance_files(self, instance: Instance) -> list[dict[str, Any]]:
        # The environment file comes first: it is by it that a unit is known to be ours, also
        # when the run ends before the unit is written.
        entries = [self._environment_file(instance)]
        entries += [
            {
                "path": path,
                "content": str(self.given["credentials"][name]),
                "mode": "0600",
                "secret": True,
                "label": instance.unit,
            }
            for name, path in self._credentials(instance).items()
        ]
        entries.append(
            {
                "path": unit_path(instance.unit),
                "content": render(self._unit(instance)),
                "label": instance.unit,
            }
        )
        return entries

    def _credentials(self, instance: Instance) -> dict[str, str]:
        return {
            str(name): f"{CREDENTIALS_DIRECTORY}/{instance.unit}/{name}"
            for name in self.given.get("credentials") or {}
        }

    def _sandbox(self) -> dict[str, Any]:
        sandbox = dict(self.given.get("sandbox") or {})
        homes = ("/home/", "/root/", "/run/user/")
        if f"{self.home}/".startswith(homes) and "protect_home" not in sandbox:
            sandbox["protect_home"] = "read-only"
        return sandbox

    def _shared_options(self, instance: Instance) -> dict[str, Any]:
        given = self.given
        return {
            "user": self.user,
            "group": self.group,
            "environment_files": [environment_path(instance.unit)],
            "credentials": self._credentials(instance),
            "limits": given.get("limits") or {},
            "sandbox": self._sandbox(),
            "writable_paths": [str(path) for path in given.get("writable_paths") or []],
            "read_only_paths": [str(path) for path in given.get("read_only_paths") or []],
        }

    def _unit(self, instance: Instance) -> ServiceUnit:
        given = self.given
        log = self._log(instance)
        return from_mapping(
            self._shared_options(instance)
            | {
                "description": given.get("description") or self.name,
                "command": self.expand(instance.command, instance),
                "working_directory": self.current,
                "type": given.get("type") or "exec",
                "after": ["network.target", *(given.get("after") or [])],
                "requires": given.get("requires") or [],
                "wants": given.get("wants") or [],
                "restart": given.get("restart") or "always",
                "restart_seconds": given.get("restart_seconds"),
                "kill_signal": given.get("kill_signal"),
                "kill_mode": given.get("kill_mode"),
                "start_seconds": given.get("start_seconds"),
                "stop_seconds": given.get("stop_seconds"),
                "syslog_identifier": instance.unit,
                "stdout": log.get("stdout", ""),
                "stderr": log.get("stderr", ""),
            }
        )

    def _migration_file(self) -> dict[str, Any]:
        """A template unit whose instance is the version: `systemctl start …-migrate@VERSION`.

        The condition and the marker make it run once for each version, whoever starts it; the
        marker is set by systemd, so that a migration that outlives its deploy counts, too.
        """
        release = f"{self.home}/releases/%i"
        marker = f"{MIGRATIONS_DIRECTORY}/{self.unit}/%i"
        command = self.expand(str(self.given["migrate"]), self.lead, release=_RELEASE)
        unit = from_mapping(
            self._shared_options(self.lead)
            | {
                "description": f"Migration of {self.given.get('description') or self.name}",
                "type": "oneshot",
                "command": command,
                "working_directory": _RELEASE,
                "after": ["network.target", *(self.given.get("after") or [])],
                "restart": "no",
                "start_seconds": self.given.get("migrate_seconds") or 600,
                "syslog_identifier": f"{self.unit}-migrate",
                "conditions": {"ConditionPathExists": f"!{marker}"},
                "exec_start_post": [f"+/usr/bin/touch {marker}"],
                "wanted_by": [],
            }
        )
        text = render(unit).replace(_RELEASE, release)
        return {"path": migration_path(self.lead.unit), "content": text}

    def _release(self) -> dict[str, Any]:
        given = self.given
        release = {
            "name": self.name,
            "home": self.home,
            "artifact": given["artifact"],
            "version": given.get("version"),
            "owner": "root",
            "group": self.group,
            "keep": given.get("keep"),
            "build": given.get("build") or given["artifact"].get("build"),
            "build_user": self.user,
            "build_timeout": given.get("build_seconds"),
            "build_environment": given.get("build_environment"),
            "activate": self.migrates or not given.get("migrate"),
        }
        if given.get("migrate"):
            release["migrate"] = {
                "unit": f"{self.lead.unit}-migrate@{{version}}.service",
                "marker": f"{MIGRATIONS_DIRECTORY}/{self.unit}/{{version}}",
                "here": self.migrates,
            }
        return {key: value for key, value in release.items() if value is not None}

    def _watched(self, instance: Instance) -> list[str]:
        """What the process of an instance reads once, when it starts."""
        return [
            unit_path(instance.unit),
            environment_path(instance.unit),
            self.current,
            *self._credentials(instance).values(),
        ]

    # ------------------------------------------------------------ logs

    def _log(self, instance: Instance) -> dict[str, str]:
        log = self.given.get("log") or {}
        found = {
            stream: self.expand(str(log[stream]), instance)
            for stream in ("stdout", "stderr")
            if log.get(stream)
        }
        if "stdout" in found and "stderr" not in found:
            found["stderr"] = found["stdout"]
        return found

    def _log_paths(self, instance: Instance) -> list[str]:
        streams = self._log(instance).values()
        return list(dict.fromkeys(path for path in streams if path.startswith("/")))

    def _rotation(self, rotated: set[str]) -> dict[str, Any] | None:
        """A file that two services share is rotated once: logrotate refuses a second entry.

        The process holds the file open as long as it runs, and nothing can tell it to open a
        new one (it is the manager that opened it): so the file is copied and cut, not renamed.
        """
        paths = [
            path
            for path in dict.fromkeys(p for log in self.log_paths.values() for p in log)
            if path not in rotated
        ]
        if not paths:
            return None
        rotated.update(paths)
        options = self.given.get("log_rotate") or {}
        frequency = options.get("frequency") or "daily"
        rotate = options.get("rotate") or 14
        if frequency not in ("hourly", "daily", "weekly", "monthly"):
            raise UnitError([f"log_rotate.frequency: {frequency!r}: daily, weekly … is expected"])
        if any(re.search(r'[\s"\\*?\[\]{}]', path) for path in paths):
            raise UnitError(["log: a path with spaces, quotes or wildcards cannot be rotated"])
        lines = [
            "# Written by Berth; changes made here are lost.",
            *[f"{path}" for path in paths[:-1]],
            f"{paths[-1]} {{",
            f"    {frequency}",
            f"    rotate {int(rotate)}",
            *([f"    maxsize {options['max_size']}"] if options.get("max_size") else []),
            "    missingok",
            "    notifempty",
            "    compress",
            "    delaycompress",
            "    copytruncate",
            "}",
        ]
        return {
            "path": rotation_path(self.lead.unit),
            "content": "\n".join(lines) + "\n",
        }

    # ------------------------------------------------------------ probes

    def _probes(self, instance: Instance) -> list[dict[str, Any]]:
        """How to know that an instance is ready: what it says, else its port, else its process."""
        patience = int(self.given.get("start_timeout") or 60)
        common = {
            "name": instance.unit,
            "unit": f"{instance.unit}.service",
            "timeout": 5,
            "interval": _PROBE_INTERVAL,
            "retries": max(1, int(patience / _PROBE_INTERVAL)),
        }
        health = instance.health
        target = health.get("ready") or health.get("startup") or health.get("live")
        if target:
            return [common | self._http(str(target), instance)]
        if instance.port:
            address = _LOOPBACK.get(instance.bind, instance.bind)
            return [common | {"type": "tcp", "address": address, "port": instance.port}]
        # Active for two seconds on end: long enough to see one that dies of its configuration.
        return [common | {"type": "systemd", "successes": 8}]

    def _http(self, target: str, instance: Instance) -> dict[str, Any]:
        if target.startswith("/"):
            if not instance.port:
                raise UnitError([f"health: {target!r} is a path, but the service has no port"])
            address = _LOOPBACK.get(instance.bind, instance.bind)
            return {"type": "http", "address": address, "port": instance.port, "path": target}
        url = urlsplit(self.expand(target, instance))
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UnitError([f"health: {target!r}: a path or an http URL is expected"])
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        port = url.port or (443 if url.scheme == "https" else 80)
        return {"type": url.scheme, "address": url.hostname, "port": port, "path": path}


# Stands for the release's directory until the specifier %i, which must not be escaped, is put in.
_RELEASE = "/berth-release-of-this-instance"


def _merged(own: Mapping[str, Any], each: Mapping[str, Any], part: str) -> dict[str, Any]:
    """What an instance says of itself wins over what its service says."""
    return {**(own.get(part) or {}), **(each.get(part) or {})}


def _port(value: Any) -> int | None:
    return None if value in (None, "") else int(value)


def _directory(path: str, owner: str, group: str, mode: str) -> dict[str, Any]:
    return {
        "path": path,
        "state": "directory",
        "owner": owner,
        "group": group,
        "mode": mode,
        "replace": False,
    }
