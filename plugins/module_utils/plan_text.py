# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for people: port table, reachability, probes, as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows under a head, columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *cells]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def render(plan: Mapping[str, Any]) -> str:
    """The whole plan as text."""
    lines = [f"Platform {plan['name']}, environment {plan['env']}", ""]
    lines += table(
        ("HOST", "ADDRESS", "COMPONENTS", "SERVICES"),
        (
            (
                name,
                host["address"],
                ", ".join(host["components"]) or "-",
                ", ".join(
                    [each["name"] for each in host["app"]["services"]]
                    + [each["name"] for each in host["static_site"]["sites"]]
                )
                or "-",
            )
            for name, host in plan["hosts"].items()
        ),
    )
    lines += ["", "Ports", ""]
    lines += table(
        ("HOST", "PORT", "OWNER", "KIND"),
        ((each["host"], each["port"], each["owner"], each["kind"]) for each in plan["ports"]),
    )
    lines += ["", "Reachability (everything else is denied)", ""]
    lines += table(
        ("HOST", "PORT", "FROM", "WHY"),
        (
            (rule["host"], rule["port"], ", ".join(rule["sources"]), ", ".join(rule["why"]))
            for rule in plan["reachability"]
        ),
    )
    lines += ["", "Probes", ""]
    lines += table(
        ("HOST", "PROBE", "TYPE", "TARGET"),
        (
            (name, probe["name"], probe["type"], target(probe))
            for name, host in plan["hosts"].items()
            for probe in host["health"]["probes"]
        ),
    )
    return "\n".join(lines) + "\n"


def target(probe: Mapping[str, Any]) -> str:
    """What a probe asks, in one word."""
    if probe["type"] == "systemd":
        return str(probe["unit"])
    if probe["type"] == "command":
        return " ".join(str(word) for word in probe["argv"])
    where = f"{probe.get('host', probe.get('address'))}:{probe.get('port')}"
    return where + str(probe.get("path", ""))
