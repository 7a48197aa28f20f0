# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the plan and from what was seen on the hosts to what the report shows."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.probe_text import says
from ansible_collections.berth.platform.plugins.module_utils.report.model import (
    Backup,
    Certificate,
    Edge,
    Host,
    Port,
    Probe,
    Report,
    Rule,
    Service,
)

Seen = Mapping[str, Mapping[str, Any]]


def report_of(
    plan: Mapping[str, Any],
    health: Seen,
    backups: Seen,
    made_at: datetime.datetime,
) -> Report:
    """*health* and *backups* hold, by host, what health_probe and berth-backup status returned."""
    hosts = plan.get("hosts") or {}
    return Report(
        name=str(plan.get("name", "")),
        env=str(plan.get("env", "")),
        made_at=made_at,
        hosts=tuple(_host(plan, name, each, health.get(name)) for name, each in hosts.items()),
        edges=tuple(
            Edge(str(e["source"]), str(e["target"]), int(e["port"]), str(e["why"]))
            for e in plan.get("edges", ())
        ),
        ports=tuple(
            Port(str(p["host"]), int(p["port"]), _owner(plan, str(p["owner"])), str(p["kind"]))
            for p in plan.get("ports", ())
        ),
        rules=tuple(
            Rule(
                str(r["host"]),
                int(r["port"]),
                str(r.get("protocol", "tcp")),
                tuple(map(str, r["sources"])),
                tuple(map(str, r.get("why", ()))),
            )
            for r in plan.get("reachability", ())
        ),
        probes=tuple(
            Probe(
                host=name,
                name=str(seen["name"]),
                type=str(seen["type"]),
                target=str(seen["target"]),
                healthy=bool(seen["healthy"]),
                latency=seen.get("latency"),
                says=says(seen),
                unit=str(seen.get("unit") or ""),
                attempts=int(seen.get("attempts", 1)),
            )
            for name, seen in _probes(hosts, health)
        ),
        certificates=tuple(sorted(_certificates(hosts, health), key=lambda each: each.days)),
        backups=tuple(_backups(backups)),
        problems=tuple(_problems(backups)),
    )


def _owner(plan: Mapping[str, Any], owner: str) -> str:
    """An owner in the ledger for people: sales, not shop-prod/sales/1/a."""
    own = owner.removeprefix(f"{plan.get('name')}-{plan.get('env')}/").removeprefix("host/")
    return own.removesuffix("/a").removesuffix("/b").removesuffix("/1")


def _host(
    plan: Mapping[str, Any], name: str, host: Mapping[str, Any], seen: Mapping[str, Any] | None
) -> Host:
    services = []
    for each in (host.get("app") or {}).get("services", ()):
        instances = each.get("instances") or [{"unit": each.get("unit", "")}]
        for instance in instances:
            services.append(
                Service(
                    name=str(each["name"]),
                    unit=str(instance.get("unit") or each.get("unit") or ""),
                    port=instance.get("port"),
                    standby_port=instance.get("standby_port"),
                )
            )
    for site in (host.get("static_site") or {}).get("sites", ()):
        # The plan names a site by what would be its unit: dhanman-frontend-prod.
        own = str(site["name"]).removeprefix(f"{plan.get('name')}-")
        services.append(Service(name=own.removesuffix(f"-{plan.get('env')}")))
    error = ""
    if seen is not None and "probes" not in seen:
        error = _reason(seen)
    return Host(
        name=name,
        address=str(host.get("address", "")),
        components=tuple(map(str, host.get("components", ()))),
        services=tuple(services),
        error=error,
    )


def _reason(result: Mapping[str, Any]) -> str:
    """Why a task failed, in a line: what matters most stands at the end of Ansible's messages."""
    words = " ".join(str(result.get("msg") or "no answer").split()).removeprefix("Task failed: ")
    return words if len(words) <= 200 else f"{words[:60]} … {words[-135:]}"


def _probes(hosts: Mapping[str, Any], health: Seen) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in hosts:
        for seen in (health.get(name) or {}).get("probes", ()):
            yield name, seen


def _certificates(hosts: Mapping[str, Any], health: Seen) -> Iterator[Certificate]:
    """Every certificate that a tls probe saw, once for each host."""
    told = set()
    for name, seen in _probes(hosts, health):
        detail = seen.get("detail") or {}
        if seen["type"] != "tls" or "not_after" not in detail:
            continue
        names = tuple(map(str, detail.get("names") or [detail.get("subject") or seen["name"]]))
        if (name, names, detail["not_after"]) in told:
            continue
        told.add((name, names, detail["not_after"]))
        yield Certificate(
            host=name,
            names=names,
            days=float(detail["days"]),
            not_after=str(detail["not_after"]),
            issuer=str(detail.get("issuer") or ""),
            trusted=bool(seen["healthy"]),
        )


def _backups(backups: Seen) -> Iterator[Backup]:
    for host, status in backups.items():
        for each in status.get("repositories", ()):
            latest = each.get("latest") or {}
            missing = "" if latest else "no backup yet"
            yield Backup(
                host=host,
                stanza=str(status.get("stanza", "")),
                repository=str(each["name"]),
                ok=bool(each.get("ok")) and bool(latest),
                age_hours=latest.get("age_hours"),
                label=str(latest.get("label", "")),
                count=int(each.get("backups", 0)),
                size=int(latest.get("size", 0)),
                note=_restored(status, str(each["name"]))
                if each.get("ok") and latest
                else str(each.get("message") or missing),
            )


def _restored(status: Mapping[str, Any], repository: str) -> str:
    """What the last trial restore of a repository showed."""
    for each in (status.get("restore_check") or {}).get("repositories", ()):
        if each.get("repository") == repository:
            if not each.get("ok"):
                return "the last trial restore failed"
            return f"restored on trial: {each.get('rows', 0)} rows"
    return "never restored on trial"


def _problems(backups: Seen) -> Iterator[str]:
    for host, status in backups.items():
        if "repositories" not in status:
            yield f"{host}: the state of the backups is unknown: {_reason(status)}"
        for problem in status.get("problems", ()):
            # A repository that is not usable has a line of its own.
            if not problem.startswith("repository "):
                yield f"{host}: {problem}"
