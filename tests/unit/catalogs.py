"""A small right catalog, and how to plan one: what the tests of the core start from."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.catalog import read_catalog
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.inventory import Host, Inventory
from ansible_collections.berth.platform.plugins.module_utils.plan import Plan, build
from ansible_collections.berth.platform.plugins.module_utils.plan_result import result_of
from ansible_collections.berth.platform.plugins.module_utils.ports import Ledger, read_lock

RIGHT: dict[str, Any] = {
    "platform_name": "shop",
    "platform_env": "prod",
    "platform_domain": "shop.example.com",
    "platform_ports": {"range": "5001-5020", "reserved": [5010]},
    "platform_services": {
        "api": {
            "hosts": "apps",
            "command": "/usr/bin/api --port {port}",
            "artifact": {"path": "build/api"},
            "port": 5001,
            "needs": ["postgresql", "rabbitmq", "mail"],
            "routes": [{"domain": "api.shop.example.com"}],
        },
        "mail": {"hosts": "apps", "command": "/usr/bin/mail", "artifact": {"path": "build/mail"}},
    },
}


def inventory(**groups: list[str]) -> Inventory:
    """Hosts web1 and db1 with addresses; groups as given, or one host per function."""
    members = groups or {
        "edge": ["web1"],
        "apps": ["web1"],
        "postgresql": ["db1"],
        "rabbitmq": ["db1"],
    }
    names = sorted({"web1", "db1", *(host for hosts in members.values() for host in hosts)})
    hosts = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(reversed(names), 1)}
    return Inventory(hosts, {**members, "empty": []})


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The right catalog with values set at dotted keys; None removes the key."""
    variables = copy.deepcopy(RIGHT)
    for dotted, value in changes.items():
        parts = dotted.split(".")
        place: Any = variables
        for part in parts[:-1]:
            place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
        last: Any = int(parts[-1]) if parts[-1].isdigit() else parts[-1]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return variables


def plan_of(
    variables: dict[str, Any],
    hosts: Inventory | None = None,
    ledger: Ledger | None = None,
) -> tuple[Plan | None, list[str]]:
    """The plan, and the faults as a user reads them."""
    faults = Faults()
    catalog = read_catalog(variables, faults)
    if catalog is None:
        return None, faults.lines()
    plan = build(catalog, hosts or inventory(), ledger or {}, faults)
    if plan is not None:
        result_of(plan, faults)
    return plan, faults.lines()


def lock(text: str) -> Ledger:
    """A ledger from a lock's text, which must be right."""
    faults = Faults()
    ledger = read_lock(text, "ports.lock.yml", faults)
    assert not faults, faults.lines()
    return ledger
