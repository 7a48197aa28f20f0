# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe results for people: a table, and what to say of those that are unhealthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.plan_text import table

HEAD = ("NAME", "TYPE", "TARGET", "STATE", "LATENCY", "SAYS")
# A table's line stays readable; the whole error stands in the message that ends the run.
SAYS_LIMIT = 100


def duration(seconds: float | None) -> str:
    """Seconds, or milliseconds where that is easier to read."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def age(seconds: float) -> str:
    """A length of time in its greatest unit: 40 s, 12 min, 5 h, 3 days."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def remark(probe: Mapping[str, Any]) -> str:
    """What is worth knowing of a healthy probe, from its detail."""
    detail: Mapping[str, Any] = probe.get("detail") or {}
    parts = []
    if "status" in detail:
        parts.append(str(detail["status"]))
    if "days" in detail:
        parts.append(f"{detail['days']:g} days left")
    if "answer" in detail and detail["answer"] != "PONG":
        parts.append(str(detail["answer"]))
    if detail.get("product") or detail.get("version"):
        parts.append(
            " ".join(str(detail[key]) for key in ("product", "version") if detail.get(key))
        )
    if "role" in detail:
        parts.append(str(detail["role"]))
    if detail.get("standby"):
        parts.append("standby")
    if "value" in detail:
        parts.append(f"gave {detail['value']}")
    if "active" in detail:
        since = f" for {age(detail['active_seconds'])}" if "active_seconds" in detail else ""
        parts.append(f"{detail.get('sub') or detail['active']}{since}")
        if detail.get("restarts"):
            parts.append(f"restarted {detail['restarts']} times")
    if "banner" in detail or "output" in detail:
        parts.append(str(detail.get("banner") or detail.get("output") or ""))
    return ", ".join(part for part in parts if part)


def says(probe: Mapping[str, Any]) -> str:
    """The last error of an unhealthy probe, else the remark, and what it took to get there."""
    if not probe["healthy"]:
        return str(probe.get("last_error") or "")
    parts = [remark(probe)]
    if probe.get("last_error"):
        parts.append(f"before: {probe['last_error']}")
    return "; ".join(part for part in parts if part)


def _cut(text: str) -> str:
    return text if len(text) <= SAYS_LIMIT else text[: SAYS_LIMIT - 1] + "…"


def probe_table(probes: Sequence[Mapping[str, Any]]) -> str:
    """One line per probe, under a head."""
    rows = (
        (
            probe["name"],
            probe["type"],
            probe["target"],
            "healthy" if probe["healthy"] else "UNHEALTHY",
            duration(probe.get("latency")),
            _cut(says(probe)),
        )
        for probe in probes
    )
    return "\n".join(table(HEAD, rows))


def probe_faults(probes: Sequence[Mapping[str, Any]]) -> str:
    """Every unhealthy probe with its last error and where to look; empty if there is none."""
    wrong = [probe for probe in probes if not probe["healthy"]]
    if not wrong:
        return ""
    one = len(wrong) == 1
    lines = [f"{len(wrong)} of {len(probes)} probes {'is' if one else 'are'} unhealthy:"]
    for probe in wrong:
        line = f"- {probe['name']} ({probe['type']} {probe['target']}): {probe['last_error']}"
        if probe["attempts"] > 1:
            line += f" (attempt {probe['attempts']})"
        if probe.get("unit"):
            line += f"; look at: journalctl -u {probe['unit']}"
        lines.append(line)
    return "\n".join(lines)
