"""Which units need a call, by the facts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.filter.units_due import units_due

FACTS: dict[str, dict[str, Any]] = {
    "up.service": {"active": "active", "enabled": "enabled"},
    "down.service": {"active": "inactive", "enabled": "disabled"},
    "masked.service": {"active": "inactive", "enabled": "masked"},
    "static.service": {"active": "active", "enabled": "static"},
    "failed.service": {"active": "failed", "enabled": "enabled"},
}


@pytest.mark.parametrize(
    ("name", "wanted", "due"),
    [
        ("up", {"enabled": True, "state": "started"}, False),
        ("up", {"enabled": False}, True),
        ("up", {"state": "stopped"}, True),
        ("up", {"state": "restarted"}, True),
        ("up", {"state": "reloaded"}, True),
        ("up", {"masked": True}, True),
        ("up", {"masked": False}, False),
        ("up", {}, False),
        ("down", {"enabled": True}, True),
        ("down", {"state": "started"}, True),
        ("down", {"enabled": False, "state": "stopped"}, False),
        ("masked", {"masked": True, "state": "stopped"}, False),
        ("masked", {"masked": False}, True),
        ("static", {"enabled": True, "state": "started"}, False),
        ("failed", {"enabled": True, "state": "started"}, True),
        ("failed", {"enabled": True}, False),
        ("unknown", {"enabled": True}, True),
        ("up", {"enabled": True, "state": object()}, False),
    ],
)
def test_due(name: str, wanted: dict[str, Any], due: bool) -> None:
    omitted = [object(), {"name": object(), "enabled": True}]
    found = units_due([{"name": f"{name}.service", **wanted}, *omitted], FACTS)
    assert bool(found) == due
    assert all(set(unit) <= {"name", *wanted} for unit in found)
