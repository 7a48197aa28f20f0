# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report shows, as plain values: no plan, no Ansible, no I/O."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PORT = re.compile(r":(\d+)(?:/|$)")


@dataclass(frozen=True)
class Service:
    """A service on a host, one of its instances."""

    name: str
    unit: str = ""
    port: int | None = None
    standby_port: int | None = None


@dataclass(frozen=True)
class Host:
    name: str
    address: str = ""
    components: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    # Why nothing is known of it, if so.
    error: str = ""


@dataclass(frozen=True)
class Edge:
    """*source* needs *target*, or passes requests to it; both by the name of what they are."""

    source: str
    target: str
    port: int
    why: str


@dataclass(frozen=True)
class Port:
    """A port that is given out. *kind* is component, active, standby or another environment."""

    host: str
    port: int
    owner: str
    kind: str


@dataclass(frozen=True)
class Rule:
    """Who may open a port of a host."""

    host: str
    port: int
    protocol: str
    sources: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """What a probe saw."""

    host: str
    name: str
    type: str
    target: str
    healthy: bool
    latency: float | None = None
    says: str = ""
    unit: str = ""
    attempts: int = 1

    @property
    def port(self) -> int | None:
        """The port that it opened."""
        match = _PORT.search(self.target)
        return int(match.group(1)) if match else None


@dataclass(frozen=True)
class Certificate:
    host: str
    names: tuple[str, ...]
    days: float
    not_after: str
    issuer: str = ""
    trusted: bool = True


@dataclass(frozen=True)
class Backup:
    """The latest backup in one repository; *age_hours* is None where there is none."""

    host: str
    stanza: str
    repository: str
    ok: bool
    age_hours: float | None
    label: str = ""
    count: int = 0
    size: int = 0
    note: str = ""


@dataclass(frozen=True)
class Report:
    name: str
    env: str
    made_at: datetime.datetime
    hosts: tuple[Host, ...] = ()
    edges: tuple[Edge, ...] = ()
    ports: tuple[Port, ...] = ()
    rules: tuple[Rule, ...] = ()
    probes: tuple[Probe, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    backups: tuple[Backup, ...] = ()
    # What else is wrong, in lines.
    problems: tuple[str, ...] = ()

    @property
    def unhealthy(self) -> list[Probe]:
        return [probe for probe in self.probes if not probe.healthy]

    @property
    def well(self) -> bool:
        """Everything that was looked at is as it should be."""
        return not any(self.attention())

    def attention(self) -> Iterator[tuple[str, str, str]]:
        """What somebody should see to: where, what, and what to do or to know."""
        for host in self.hosts:
            if host.error:
                yield host.name, "not reached", host.error
        for probe in self.unhealthy:
            hint = f"journalctl -u {probe.unit}" if probe.unit else probe.target
            if not probe.unit and "://" not in probe.target:
                hint = f"{probe.type} {hint}"
            yield probe.host, f"{probe.name}: {probe.says or 'unhealthy'}", hint
        for backup in self.backups:
            if not backup.ok:
                where = f"{backup.stanza} in {backup.repository}"
                yield backup.host, f"backup of {where}: {backup.note or 'not usable'}", ""
        for problem in self.problems:
            host_name, _colon, text = problem.partition(": ")
            yield host_name, text, ""


def everyone(source: str) -> bool:
    """Whether a rule's source is the whole world."""
    return source in ("any", "0.0.0.0/0", "::/0")
