"""Services under PM2 in the plan: what PM2 is told, and what stands for a service's unit."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.filter.pm2_placed import pm2_placed
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.plan_result import result_of
from catalogs import changed, inventory, plan_of

API = "platform_services.api"
PM2: dict[str, Any] = {
    f"{API}.runtime": "pm2",
    f"{API}.command": "dist/main.js --name '{service} of {env}'",
    f"{API}.user": "node",
    f"{API}.pm2": {"cluster": True, "processes": 2, "wait_ready": True},
    f"{API}.limits": {"memory": "300M"},
    f"{API}.stop_seconds": 8,
    f"{API}.log": {"stdout": "/var/log/shop/api.log", "rotate": 7},
    f"{API}.secrets": ["token"],
    "platform_secrets": {"token": {"kind": "hex"}},
}


def hosts(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    found, faults = plan_of(changed({**PM2, **(changes or {})}))
    assert not faults
    assert found is not None
    result: dict[str, Any] = result_of(found, Faults())["hosts"]
    return result


def test_what_pm2_is_told() -> None:
    web = hosts()["web1"]
    (app,) = web["pm2"]["apps"]
    secret = app.pop("secret_env")
    assert secret["TOKEN"] == "{secret:token}"
    env = app.pop("env")
    assert env["PORT"] == "5001"
    assert app == {
        "service": "api",
        "name": "shop-api-prod",
        "user": "node",
        "cwd": "/srv/shop/prod/api/current",
        "script": "dist/main.js",
        "args": ["--name", "api of prod"],
        "exec_mode": "cluster",
        "instances": 2,
        "wait_ready": True,
        "ports": [5001],
        "kill_timeout": 8000,
        "listen_timeout": 60000,
        "max_memory_restart": "300M",
        "out_file": "/var/log/shop/api.log",
        "error_file": "/var/log/shop/api.log",
    }
    assert web["pm2"]["users"] == [
        {"name": "node", "group": "node", "log_rotate": {"frequency": "daily", "rotate": 7}}
    ]
    assert {"nodejs", "npm"} <= set(web["base"]["packages"])


def test_its_release_is_the_role_app_s() -> None:
    services = {each["name"]: each for each in hosts()["web1"]["app"]["services"]}
    assert services["api"]["runtime"] == "pm2"
    # The role's default, which need not be said.
    assert "runtime" not in services["mail"]


def test_the_daemon_is_the_unit_of_its_services() -> None:
    web = hosts(
        {
            "platform_services.mail.runtime": "pm2",
            "platform_services.mail.command": "mail.js",
            "platform_services.mail.user": "node",
        }
    )["web1"]
    units = [each for each in web["health"]["probes"] if each["type"] == "systemd"]
    assert [each["unit"] for each in units] == ["pm2-node.service"]
    held = {each["owner"]: each.get("units") for each in web["listeners"]["planned"]}
    assert held["shop-prod/api/1/a"] == ["pm2-node.service"]
    assert web["database_units"] == ["pm2-node.service"]
    (user,) = web["pm2"]["users"]
    assert user["name"] == "node"
    assert len(web["pm2"]["apps"]) == 2


def test_hosts_without_it_are_told_nothing() -> None:
    assert hosts()["db1"]["pm2"] == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {f"{API}.command": "/usr/bin/node main.js"},
            f"{API}.command is '/usr/bin/node main.js': write the script's path in the release",
        ),
        ({f"{API}.instances": 2, f"{API}.port": None}, f"{API}.instances is 2: PM2 runs several"),
        (
            {f"{API}.pm2": {"processes": 2}},
            f"{API}.pm2.processes is 2: processes that share a port need pm2.cluster: true",
        ),
        (
            {f"{API}.pm2": {"cluster": True, "interpreter": "python3"}},
            f"{API}.pm2.interpreter is 'python3': a cluster is of Node.js",
        ),
        ({f"{API}.pm2": {"instances": 2}}, f"{API}.pm2.instances: is not a known key; did you"),
        ({f"{API}.limits": {"cpu": "50%"}}, f"{API}.limits.cpu is '50%': PM2 limits memory only"),
        ({f"{API}.credentials": {"a": "b"}}, f"{API}.credentials: has no meaning for runtime pm2"),
        (
            {"platform_services.mail.pm2": {"processes": 1}},
            "platform_services.mail.pm2: has a meaning for runtime pm2 only",
        ),
    ],
)
def test_faults(changes: dict[str, Any], words: str) -> None:
    found, faults = plan_of(changed({**PM2, **changes}), inventory())
    assert found is None
    assert any(line.startswith(words) for line in faults), faults


def test_an_application_is_where_its_release_is() -> None:
    apps = [{"service": "api", "name": "a", "cwd": "/srv/api/current"}]
    assert pm2_placed(apps, {"api": "/srv/api/releases/2", "mail": "/m"}) == [
        {"name": "a", "cwd": "/srv/api/releases/2"}
    ]
    with pytest.raises(AnsibleFilterError, match="no release is known of api"):
        pm2_placed(apps, {})
