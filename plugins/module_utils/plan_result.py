# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as plain data: what the plan action returns and the playbooks read."""

from __future__ import annotations

from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.plan import Plan
from ansible_collections.berth.platform.plugins.module_utils.plan_text import render
from ansible_collections.berth.platform.plugins.module_utils.wiring import domains, wire


def result_of(plan: Plan, faults: Faults) -> dict[str, Any]:
    """Everything that follows from the catalog, without a secret's value."""
    result: dict[str, Any] = {
        "name": plan.catalog.name,
        "env": plan.catalog.env,
        "domains": domains(plan),
        "hosts": wire(plan, faults),
        "ports": _ports(plan),
        "reachability": [
            {
                "host": rule.host,
                "port": rule.port,
                "protocol": rule.protocol,
                "sources": list(rule.sources),
                "why": list(rule.why),
            }
            for rule in plan.rules
        ],
        "edges": [
            {"source": e.source, "target": e.target, "port": e.port, "why": e.why}
            for e in plan.edges
        ],
        "secrets": [
            {key: value for key, value in spec.items() if key != "value"}
            for spec in plan.secrets.values()
        ],
        "moved": list(plan.allocation.moved),
    }
    result["text"] = render(result)
    return result


def _ports(plan: Plan) -> list[dict[str, Any]]:
    """Every port that is given out on the platform's hosts, with what holds it."""
    rows = []
    for host in plan.inventory.hosts:
        ledger = plan.allocation.ledger.get(host)
        for port, owner in sorted(ledger.ports.items()) if ledger else ():
            estate, _slash, what = owner.partition("/")
            if estate not in (plan.catalog.estate, "host"):
                kind = "another environment"
            elif "/" not in what:
                kind = "component"
            else:
                kind = "active" if what.endswith("/a") else "standby"
            rows.append({"host": host, "port": port, "owner": owner, "kind": kind})
    return rows
