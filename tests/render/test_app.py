"""The role app with the variables that a play gives it, up to what its modules are called with."""

from __future__ import annotations

from typing import Any

import pytest
from render import evaluate, host, spec_errors

DHANMAN: dict[str, Any] = {
    "name": "sales",
    "unit": "dhanman-sales-prod",
    "description": "Dhanman Sales - Production",
    "user": "www-data",
    "group": "www-data",
    "home": "/var/www/prod/dhanman-sales",
    "artifact": {"path": "/build/sales"},
    "packages": ["dotnet-runtime-9.0"],
    "after": ["postgresql.service", "rabbitmq-server.service"],
    "wants": ["postgresql.service"],
    "restart": "always",
    "restart_seconds": 10,
    "kill_signal": "SIGINT",
    "stop_seconds": 30,
    "start_timeout": 60,
    "limits": {"memory": "2G", "cpu": "200%", "files": 65536},
    "log": {
        "stdout": "/var/log/dhanman/prod/sales.log",
        "stderr": "/var/log/dhanman/prod/sales.error.log",
    },
    "log_rotate": {"frequency": "daily", "rotate": 14},
    "migrate": "./migrate up",
    "sandbox": {"protect_system": "full"},
    "instances": [
        {
            "name": "1",
            "unit": "dhanman-sales-prod",
            "bind": "127.0.0.1",
            "port": 5006,
            "standby_port": 5056,
            "command": "/usr/bin/dotnet Dhanman.Sales.dll --urls http://127.0.0.1:5006",
            "environment": {"ASPNETCORE_ENVIRONMENT": "Production", "PORT": "5006"},
            "secret_environment": {"DATABASE_URL": "postgresql://sales:canary@127.0.0.1/x"},
            "health": {"ready": "http://127.0.0.1:5006/health/ready"},
        }
    ],
}
VARIABLES: dict[str, Any] = {
    "app_services": [DHANMAN],
    "ansible_play_hosts": ["h1"],
    "app_scope": "dhanman-prod",
}
RESOURCES = evaluate("app", "app_services | berth.platform.app_resources", VARIABLES)
RELEASE = {"activated": [], "stale_units": [], "retired_units": [], "waiting": []}


def after(**release: Any) -> dict[str, Any]:
    """The variables once the releases are in place on a host where the service runs."""
    running = {"dhanman-sales-prod.service": {"active": "active", "enabled": "enabled"}}
    return VARIABLES | {
        "__app_resources": RESOURCES,
        "ansible_facts": host(units=running),
        "__app_files": {"changed_labels": release.pop("labels", [])},
        "__app_release": RELEASE | release,
        "__app_release_others": {"skipped": True},
    }


def names(variables: dict[str, Any]) -> list[tuple[str, str]]:
    return [(o["name"], o["state"]) for o in evaluate("app", "__app_orders", variables)]


def test_specification_takes_what_the_plan_gives() -> None:
    assert spec_errors("app", {"app_services": [DHANMAN]}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, "name"),
        ({"restart": "sometimes"}, "restart"),
        ({"memory": "2G"}, "memory"),
        ({"log_rotate": {"frequency": "never"}}, "frequency"),
    ],
)
def test_specification_refuses(change: dict[str, Any], words: str) -> None:
    service = {key: value for key, value in (DHANMAN | change).items() if value is not None}
    assert words in "\n".join(spec_errors("app", {"app_services": [service]}))


def test_facts_hold_no_secret() -> None:
    assert RESOURCES["packages"] == ["dotnet-runtime-9.0", "logrotate"]
    assert "canary" not in str(RESOURCES)


def test_contents() -> None:
    found = evaluate("app", "__app_contents", VARIABLES)
    (release,) = found["releases"]
    assert release["migrate"]["unit"] == "dhanman-sales-prod-migrate@{version}.service"
    unit = next(f for f in found["files"] if f["path"].endswith("/dhanman-sales-prod.service"))
    for line in (
        "Description=Dhanman Sales - Production",
        "After=network.target postgresql.service rabbitmq-server.service",
        "ExecStart=/usr/bin/dotnet Dhanman.Sales.dll --urls http://127.0.0.1:5006",
        "RestartSec=10",
        "KillSignal=SIGINT",
        "LimitNOFILE=65536",
        "MemoryMax=2G",
        "CPUQuota=200%",
        "ProtectSystem=full",
        "SyslogIdentifier=dhanman-sales-prod",
        "StandardOutput=append:/var/log/dhanman/prod/sales.log",
    ):
        assert f"\n{line}\n" in unit["content"]
    assert "canary" not in unit["content"]


def test_nothing_to_do() -> None:
    assert names(after()) == []
    assert evaluate("app", "__app_started", after()) == []


@pytest.mark.parametrize(
    "release",
    [
        {"activated": ["sales"]},
        {"stale_units": ["dhanman-sales-prod.service"]},
        {"labels": ["dhanman-sales-prod"]},
    ],
)
def test_restarted(release: dict[str, Any]) -> None:
    assert names(after(**release)) == [("dhanman-sales-prod.service", "restarted")]
    assert evaluate("app", "__app_started", after(**release)) == ["dhanman-sales-prod"]


def test_release_that_waited_for_another_host() -> None:
    others = {"activated": ["sales"], "stale_units": []}
    assert names(after() | {"__app_release_others": others}) == [
        ("dhanman-sales-prod.service", "restarted")
    ]


def test_fresh_host() -> None:
    assert names(after() | {"ansible_facts": host()}) == [("dhanman-sales-prod.service", "started")]


def test_marker_is_of_the_scope() -> None:
    assert evaluate("app", "__app_pending", VARIABLES) == "app-dhanman-prod"
    assert evaluate("app", "__app_pending", VARIABLES | {"app_scope": ""}) == "app"


def test_message() -> None:
    ready = {
        "probes": [
            {"name": "a", "healthy": True, "last_error": None},
            {"name": "b", "healthy": False, "last_error": "status 503, not 200"},
        ]
    }
    assert evaluate("app", "__app_unready_lines", {"__app_ready": ready}) == [
        "b is not ready: status 503, not 200"
    ]
    assert evaluate("app", "__app_unready", {"__app_ready": {"skipped": True}}) == []
