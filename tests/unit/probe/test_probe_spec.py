"""What a user may write of a probe, and what is said of what he may not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.probe.model import Probe
from ansible_collections.berth.platform.plugins.module_utils.probe.scheduler import CHECKS
from ansible_collections.berth.platform.plugins.module_utils.probe.spec import (
    KEYS,
    TYPES,
    parse_probes,
)


def read(**keys: Any) -> Probe:
    probes, faults = parse_probes([{"name": "it", **keys}])
    assert not faults, faults.lines()
    return probes[0]


def faults_of(*items: Any) -> list[str]:
    _probes, faults = parse_probes(list(items))
    assert faults
    return faults.lines()


def fault(**keys: Any) -> str:
    lines = faults_of({"name": "it", **keys})
    assert len(lines) == 1, lines
    return lines[0]


def test_every_type_has_a_check_and_every_key_a_field() -> None:
    assert set(CHECKS) == set(TYPES)
    assert set(KEYS) == set(Probe.__dataclass_fields__)


def test_defaults() -> None:
    probe = read(type="http")
    assert (probe.address, probe.port, probe.path, probe.status) == ("127.0.0.1", 80, "/", (200,))
    assert (probe.timeout, probe.retries, probe.interval, probe.successes) == (5, 0, 1, 1)
    assert probe.tls is False and read(type="https").tls is True
    ports = {kind: read(type=kind).port for kind in TYPES[:-2] if kind != "tcp"}
    assert ports == {
        "http": 80, "https": 443, "tls": 443, "postgresql": 5432, "redis": 6379, "amqp": 5672,
        "kafka": 9092,
    }  # fmt: skip


def test_what_ansible_makes_of_values_is_understood() -> None:
    probe = read(type="http", port="8080", timeout="2.5", retries="3", status=204, body=None)
    assert (probe.port, probe.timeout, probe.retries, probe.status) == (8080, 2.5, 3, (204,))
    assert read(type="systemd", unit="nginx").unit == "nginx.service"
    assert read(type="systemd", unit="app@1.timer").unit == "app@1.timer"
    assert read(type="systemd", unit="org.example").unit == "org.example.service"
    assert read(type="command", argv=["sleep", 1]).argv == ("sleep", "1")
    assert read(type="tcp", port=1, address="[::1]").address == "::1"


def test_targets() -> None:
    assert read(type="http", path="/a?b=c", port=81).target == "http://127.0.0.1:81/a"
    assert read(type="https", address="::1").target == "https://[::1]:443/"
    assert read(type="redis").target == "127.0.0.1:6379"
    assert read(type="systemd", unit="a").target == "a.service"
    assert read(type="command", argv=["/bin/x", "--password=y"]).target == "/bin/x"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"type": "htp"}, "probes[0] (it).type is 'htp': did you mean 'http'?"),
        ({}, "probes[0] (it).type: is required"),
        (
            {"type": "http", "pat": "/"},
            "probes[0] (it).pat: is not a known key; did you mean 'path'?",
        ),
        (
            {"type": "redis", "path": "/"},
            "probes[0] (it).path: is not a key of type redis (but of http, https)",
        ),
        (
            {"type": "http", "port": 70000},
            "probes[0] (it).port is 70000: write a port from 1 to 65535",
        ),
        (
            {"type": "http", "port": "http"},
            "probes[0] (it).port is 'http': write a port from 1 to 65535",
        ),
        (
            {"type": "http", "port": True},
            "probes[0] (it).port is True: write a port from 1 to 65535",
        ),
        (
            {"type": "http", "timeout": 0},
            "probes[0] (it).timeout is 0: write seconds, more than 0 and at most 3600",
        ),
        (
            {"type": "http", "timeout": "nan"},
            "probes[0] (it).timeout is 'nan': write seconds, more than 0 and at most 3600",
        ),
        (
            {"type": "http", "interval": -1},
            "probes[0] (it).interval is -1: write seconds, from 0 to 3600",
        ),
        (
            {"type": "http", "retries": 1.5},
            "probes[0] (it).retries is 1.5: write a whole number from 0 to 1000",
        ),
        (
            {"type": "http", "successes": 0},
            "probes[0] (it).successes is 0: write a whole number from 1 to 1000",
        ),
        ({"type": "tcp"}, "probes[0] (it).port: is required by type tcp"),
        ({"type": "systemd"}, "probes[0] (it).unit: is required by type systemd"),
        ({"type": "command"}, "probes[0] (it).argv: is required by type command"),
        (
            {"type": "http", "address": "http://x"},
            "probes[0] (it).address is 'http://x': write an address or a host name, without"
            " scheme, port or path",
        ),
        (
            {"type": "http", "address": "x:80"},
            "probes[0] (it).address is 'x:80': write an address or a host name, without"
            " scheme, port or path",
        ),
        (
            {"type": "http", "path": "health"},
            "probes[0] (it).path: write a path that begins with / and has blanks and"
            " accents %-encoded",
        ),
        (
            {"type": "http", "path": "/a b\r\nX: y"},
            "probes[0] (it).path: write a path that begins with / and has blanks and"
            " accents %-encoded",
        ),
        (
            {"type": "http", "headers": {"X": "a\r\nY: b"}},
            "probes[0] (it).headers: write the value of X as a single line",
        ),
        (
            {"type": "http", "headers": {"X Y": "a"}},
            "probes[0] (it).headers: 'X Y' is no header's name",
        ),
        (
            {"type": "http", "headers": "canary"},
            "probes[0] (it).headers: write a mapping of header names to values",
        ),
        (
            {"type": "http", "status": [99]},
            "probes[0] (it).status is [99]: write a status from 200 to 599",
        ),
        ({"type": "http", "status": []}, "probes[0] (it).status is []: write a list of statuses"),
        (
            {"type": "http", "body": "("},
            "probes[0] (it).body is '(': write a regular expression: missing ), unterminated"
            " subpattern at position 0",
        ),
        (
            {"type": "http", "json": {"a[": 1}},
            "probes[0] (it).json is {'a[': 1}: 'a[' is no path; write one like checks[0].status",
        ),
        (
            {"type": "http", "method": "get"},
            "probes[0] (it).method is 'get': write a method in capitals, such as GET or HEAD",
        ),
        (
            {"type": "http", "host": "a/b"},
            "probes[0] (it).host is 'a/b': write a host name as the Host header has it",
        ),
        (
            {"type": "https", "verify": "maybe"},
            "probes[0] (it).verify is 'maybe': write true or false",
        ),
        ({"type": "http", "verify": False}, "probes[0] (it).verify: is not a key of type http"
         " (but of https, tls, tcp, redis, amqp, kafka)"),
        (
            {"type": "redis", "verify": False},
            "probes[0] (it).verify: has a meaning only with tls: true",
        ),
        (
            {"type": "redis", "user": "u"},
            "probes[0] (it).password: is required beside user",
        ),
        (
            {"type": "amqp", "password": "canary"},
            "probes[0] (it).user: is required beside password",
        ),
        (
            {"type": "amqp", "user": "u", "password": ["canary"]},
            "probes[0] (it).password: write a string",
        ),
        (
            {"type": "postgresql", "query": "SELECT 2"},
            "probes[0] (it).user: is required beside query",
        ),
        (
            {"type": "postgresql", "user": "u", "expect": "2"},
            "probes[0] (it).query: is required beside expect",
        ),
        (
            {"type": "postgresql", "sslmode": "verify"},
            "probes[0] (it).sslmode is 'verify': did you mean 'verify-ca'?",
        ),
        (
            {"type": "systemd", "unit": "a b"},
            "probes[0] (it).unit is 'a b': write a unit's name, such as nginx.service",
        ),
        (
            {"type": "systemd", "unit": "*"},
            "probes[0] (it).unit is '*': write a unit's name, such as nginx.service",
        ),
        (
            {"type": "command", "argv": "redis-cli -a canary"},
            "probes[0] (it).argv: write a list: the program and its arguments",
        ),
        (
            {"type": "command", "argv": ["x"], "rc": [256]},
            "probes[0] (it).rc is [256]: write a return code from -64 to 255",
        ),
    ],
)  # fmt: skip
def test_faults(keys: dict[str, Any], line: str) -> None:
    assert fault(**keys) == line
    assert "canary" not in line


def test_all_faults_are_reported_at_once() -> None:
    lines = faults_of(
        {"name": "a", "type": "http", "port": 0, "timeout": -1},
        {"type": "redis"},
        "redis",
        {"name": "b", "type": "tcp", "prot": 1},
        {"name": "c", "type": "redis"},
        {"name": "c", "type": "kafka"},
    )
    assert [line.partition(":")[0] for line in lines] == [
        "probes[0] (a).port is 0",
        "probes[0] (a).timeout is -1",
        "probes[1].name",
        "probes[2]",
        "probes[3] (b).port",
        "probes[3] (b).prot",
        "probes[5] (c).name",
    ]
    assert faults_of({"name": "c", "type": "redis"}, {"name": "c", "type": "kafka"}) == [
        "probes[1] (c).name: probes[0] has this name, too: write one of its own"
    ]


def test_probes_that_are_no_list() -> None:
    _probes, faults = parse_probes({"name": "x"})
    assert faults.lines() == ["probes is {'name': 'x'}: write a list of probes"]
