"""The files and the orders of the roles nodejs and pm2 without a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from render import ROOT, evaluate, host, render, spec_errors

API = {"name": "api", "user": "shop", "cwd": "/srv/api", "script": "server.js"}
WRITTEN: dict[str, Any] = {"changed_files": []}
RELEASE: dict[str, Any] = {"stale_units": []}
RUNNING = {"pm2-shop.service": {"active": "active", "enabled": "enabled"}}


def orders(**variables: Any) -> list[dict[str, Any]]:
    given = {"pm2_apps": [API], "__pm2_written": WRITTEN, "__pm2_release": RELEASE, **variables}
    return list(evaluate("pm2", "__pm2_orders", given))


def test_the_version_is_that_of_the_lock_file() -> None:
    files = ROOT / "roles/pm2/files/npm"
    lock = json.loads((files / "package-lock.json").read_text())
    version = evaluate("pm2", "__pm2_version")
    assert json.loads((files / "package.json").read_text())["dependencies"] == {"pm2": version}
    assert lock["packages"]["node_modules/pm2"]["version"] == version


def test_every_package_has_its_digest_and_no_place() -> None:
    lock = json.loads((ROOT / "roles/pm2/files/npm/package-lock.json").read_text())
    packages = {path: each for path, each in lock["packages"].items() if path}
    assert packages
    for path, package in packages.items():
        assert package["integrity"].startswith("sha512-"), path
        assert "resolved" not in package, path


def test_a_daemon_that_runs_is_left_alone() -> None:
    assert orders(ansible_facts=host(units=RUNNING)) == []


def test_a_daemon_that_is_not_there_is_started() -> None:
    assert orders() == [{"name": "pm2-shop.service", "enabled": True, "state": "started"}]


@pytest.mark.parametrize(
    "variables",
    [
        {"__pm2_release": {"stale_units": ["pm2-shop.service"]}},
        {"__pm2_written": {"changed_files": ["/etc/systemd/system/pm2-shop.service"]}},
    ],
    ids=["another PM2", "another unit"],
)
def test_a_daemon_that_is_stale_is_restarted_once(variables: dict[str, Any]) -> None:
    made = orders(ansible_facts=host(units=RUNNING), **variables)
    assert [(unit["name"], unit["state"]) for unit in made] == [("pm2-shop.service", "restarted")]


def test_no_applications_are_no_daemons() -> None:
    assert orders(pm2_apps=[]) == []


def test_a_fault_is_told_before_a_host_is_touched() -> None:
    apps = [{**API, "secret_env": {"A-B": "canary"}}]
    with pytest.raises(Exception, match="'A-B' is no name") as error:
        evaluate("pm2", "__pm2_layout", {"pm2_apps": apps})
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"pm2_apps": [{"name": "x", "user": "y"}]}, "cwd"),
        ({"pm2_apps": [{**API, "exec_mode": "threads"}]}, "threads"),
        ({"pm2_apps": [{**API, "watch": True}]}, "watch"),
        ({"pm2_users": [{"name": "shop", "limits": {"ram": "1G"}}]}, "ram"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("pm2", variables))


def test_node_is_the_distributions_unless_there_is_an_archive() -> None:
    assert evaluate("nodejs", "__nodejs_packages") == ["nodejs", "npm"]
    assert evaluate("nodejs", "__nodejs_files") == []
    pinned = {"nodejs_url": "https://example.com/node.tar.xz"}
    assert evaluate("nodejs", "__nodejs_packages", pinned) == []
    links = evaluate("nodejs", "__nodejs_files", pinned)
    assert {Path(each["path"]).name for each in links if each.get("state") == "link"} == {
        "node",
        "npm",
        "npx",
    }


def test_npm_trusts_the_given_certificates() -> None:
    settings = {"nodejs_ca_file": "/etc/ca.pem", "nodejs_npm_settings": {"registry": "https://r/"}}
    text = render("nodejs", "npmrc.j2", settings)
    assert text.splitlines()[1:] == ["cafile=/etc/ca.pem", "registry=https://r/"]
    paths = [each["path"] for each in evaluate("nodejs", "__nodejs_files", settings)]
    assert paths == ["/etc/npmrc"]
