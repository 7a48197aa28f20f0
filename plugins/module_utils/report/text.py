# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as text."""

from __future__ import annotations

from ansible_collections.berth.platform.plugins.module_utils.plan_text import table
from ansible_collections.berth.platform.plugins.module_utils.probe_text import duration
from ansible_collections.berth.platform.plugins.module_utils.report.model import Report
from ansible_collections.berth.platform.plugins.module_utils.report.page import naming


def text(report: Report) -> str:
    """What the page shows, in tables."""
    made = report.made_at.strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"{report.name} {report.env}, looked at {made}", ""]
    wrong = list(report.attention())
    if wrong:
        lines += [f"To see to ({len(wrong)})", ""]
        lines += [
            f"- {where}: {what}" + (f"; {hint}" if hint else "") for where, what, hint in wrong
        ]
    elif report.probes:
        lines.append("All is well.")
    lines += ["", "Hosts", ""]
    lines += table(
        ("HOST", "ADDRESS", "COMPONENTS", "SERVICES"),
        (
            (
                host.name,
                host.address,
                ", ".join(host.components) or "-",
                ", ".join(dict.fromkeys(service.name for service in host.services)) or "-",
            )
            for host in report.hosts
        ),
    )
    if report.edges:
        needs: dict[str, list[str]] = {}
        for edge in report.edges:
            needs.setdefault(edge.source, []).append(f"{edge.target}:{edge.port}")
        lines += ["", "Needs", ""]
        lines += table(("WHO", "WHAT"), ((who, ", ".join(what)) for who, what in needs.items()))
    if report.ports:
        lines += ["", "Ports", ""]
        lines += table(
            ("HOST", "PORT", "OWNER", "KIND"),
            ((each.host, each.port, each.owner, each.kind) for each in report.ports),
        )
    if report.rules:
        name = naming(report)
        lines += ["", "Reachability (everything else is denied)", ""]
        lines += table(
            ("HOST", "PORT", "FROM", "WHY"),
            (
                (
                    rule.host,
                    f"{rule.port}/{rule.protocol}",
                    ", ".join(dict.fromkeys(map(name, rule.sources))) or "nobody",
                    ", ".join(rule.why),
                )
                for rule in report.rules
            ),
        )
    if report.probes:
        lines += ["", "Probes", ""]
        lines += table(
            ("HOST", "PROBE", "TARGET", "STATE", "LATENCY", "SAYS"),
            (
                (
                    probe.host,
                    probe.name,
                    probe.target,
                    "healthy" if probe.healthy else "UNHEALTHY",
                    duration(probe.latency),
                    probe.says,
                )
                for probe in sorted(report.probes, key=lambda each: each.healthy)
            ),
        )
    if report.certificates:
        lines += ["", "Certificates", ""]
        lines += table(
            ("DAYS LEFT", "EXPIRES", "NAMES", "ISSUER", "HOST"),
            (
                (f"{each.days:.1f}", each.not_after, ", ".join(each.names), each.issuer, each.host)
                for each in report.certificates
            ),
        )
    if report.backups:
        lines += ["", "Backups", ""]
        lines += table(
            ("HOST", "REPOSITORY", "STATE", "AGE (H)", "LATEST", "KEPT", "SAYS"),
            (
                (
                    each.host,
                    each.repository,
                    "usable" if each.ok else "NOT USABLE",
                    "-" if each.age_hours is None else f"{each.age_hours:.1f}",
                    each.label or "-",
                    each.count,
                    each.note,
                )
                for each in report.backups
            ),
        )
    return "\n".join(lines) + "\n"
