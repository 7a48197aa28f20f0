"""Probe results for people."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.probe_text import (
    age,
    duration,
    probe_faults,
    probe_table,
    remark,
    says,
)


def probe(name: str = "api", **keys: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "http",
        "target": "http://127.0.0.1:80/",
        "unit": None,
        "healthy": True,
        "attempts": 1,
        "elapsed": 0.1,
        "latency": 0.0123,
        "first_error": None,
        "last_error": None,
        "detail": {"status": 200, "bytes": 2},
        **keys,
    }


BAD = {"healthy": False, "latency": None, "last_error": "connection refused", "attempts": 3}


def test_table() -> None:
    found = probe_table([probe(), probe("a longer name", **BAD)])
    assert found.splitlines() == [
        "NAME           TYPE  TARGET                STATE      LATENCY  SAYS",
        "-------------  ----  --------------------  ---------  -------  ------------------",
        "api            http  http://127.0.0.1:80/  healthy    12.3 ms  200",
        "a longer name  http  http://127.0.0.1:80/  UNHEALTHY  -        connection refused",
    ]


def test_table_cuts_what_is_long() -> None:
    line = probe_table([probe(**{**BAD, "last_error": "x" * 300})]).splitlines()[-1]
    assert line.endswith("x…") and len(line) < 170


def test_faults() -> None:
    assert probe_faults([]) == "" and probe_faults([probe()]) == ""
    one = probe("sales", **{**BAD, "unit": "sales.service"})
    assert probe_faults([one, probe()]) == (
        "1 of 2 probes is unhealthy:\n"
        "- sales (http http://127.0.0.1:80/): connection refused (attempt 3);"
        " look at: journalctl -u sales.service"
    )
    assert probe_faults([one, one]).startswith("2 of 2 probes are unhealthy:")


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"status": 200, "bytes": 2}, "200"),
        ({"status": 200, "days": 89.9}, "200, 89.9 days left"),
        ({"tls": True, "version": "17.2", "standby": True, "value": "7"}, "17.2, standby, gave 7"),
        ({"answer": "PONG", "version": "8.0.2", "role": "master"}, "8.0.2, master"),
        ({"answer": "asks for credentials"}, "asks for credentials"),
        ({"product": "RabbitMQ", "version": "4.0.5"}, "RabbitMQ 4.0.5"),
        (
            {"active": "active", "sub": "running", "restarts": 2, "active_seconds": 200},
            "running for 3 min, restarted 2 times",
        ),
        ({"rc": 0, "output": "fine"}, "fine"),
        ({"apis": 4}, ""),
        ({}, ""),
    ],
)
def test_remarks(detail: dict[str, Any], text: str) -> None:
    assert remark(probe(detail=detail)) == text


def test_a_recovery_is_told() -> None:
    assert says(probe(last_error="connection refused")) == "200; before: connection refused"


def test_quantities() -> None:
    assert [duration(each) for each in (None, 0.0042, 0.9999, 2.5)] == [
        "-",
        "4.2 ms",
        "999.9 ms",
        "2.50 s",
    ]
    assert [age(each) for each in (5, 119, 600, 86400, 86400 * 9)] == [
        "5 s",
        "119 s",
        "10 min",
        "24 h",
        "9 days",
    ]
