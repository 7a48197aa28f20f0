"""The role's files without a host."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

USER = {"name": "sales", "password": "hunter2"}
QUEUE = {"name": "queue", "port": 6379, "users": [USER]}


def variables(**more: Any) -> dict[str, Any]:
    return {"redis_admin_password": "hunter1", "redis_instances": [QUEUE], **more}


def test_nothing_is_needed_for_no_instance() -> None:
    assert evaluate("redis", "__redis_layout.instances") == []
    assert [unit["name"] for unit in evaluate("redis", "__redis_layout.units")] == [
        "redis-server.service"
    ]


def test_the_engines_file_is_read_first_and_ours_wins() -> None:
    text = render("redis", "unit.conf.j2", {"redis_limits": {"nofile": 4096}})
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    words = parser["Service"]["ExecStart"].split()
    assert words[1] == "/var/lib/redis/%i/redis.conf"
    assert words[words.index("--include") + 1] == "/etc/redis/berth/%i.conf"
    assert parser["Service"]["LimitNOFILE"] == "4096"
    lines = text.splitlines()
    assert "ReadWritePaths=" in lines and "ExecStart=" in lines


def test_every_path_is_listed_once() -> None:
    paths = [file["path"] for file in evaluate("redis", "__redis_files", variables())]
    assert len(paths) == len(set(paths))
    assert "/etc/redis/berth/queue.conf" in paths


def test_a_host_in_order_is_left_alone() -> None:
    units = {
        "redis-server.service": {"load": "masked", "active": "inactive", "enabled": "masked"},
        "redis-server@queue.service": {"load": "loaded", "active": "active", "enabled": "enabled"},
    }
    given = variables(ansible_facts=host(units=units))
    assert evaluate("redis", "__redis_units_due", given) == []
    assert evaluate("redis", "__redis_running", given) == ["redis-server@queue.service"]


def test_only_what_has_to_is_restarted() -> None:
    other = {"name": "cache", "port": 6380}
    given = variables(
        redis_instances=[QUEUE, other],
        __redis_objects={"restart": ["redis-server@queue.service"]},
    )
    assert evaluate("redis", "__redis_restarts", given) == [
        {"name": "redis-server@queue.service", "enabled": True, "state": "restarted"}
    ]


def test_a_fault_is_told_before_a_host_is_touched() -> None:
    with pytest.raises(Exception, match="redis_admin_password is empty"):
        evaluate("redis", "__redis_layout", {"redis_instances": [QUEUE]})


@pytest.mark.parametrize(
    ("instance", "fault"),
    [
        ({"name": "x"}, "port"),
        ({"port": 1}, "name"),
        ({**QUEUE, "eviction": "lru"}, "lru"),
        ({**QUEUE, "evicton": "x"}, "evicton"),
        ({**QUEUE, "users": [{"name": "x"}]}, "password"),
        ({**QUEUE, "aof_fsync": "sometimes"}, "sometimes"),
    ],
)
def test_the_specification_refuses(instance: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("redis", {"redis_instances": [instance]}))


def test_the_specification_takes_what_is_documented() -> None:
    full = {**QUEUE, "memory": "1G", "primary": {}, "settings": {"hz": 20}, "save": []}
    assert not spec_errors("redis", variables(redis_instances=[full]))
