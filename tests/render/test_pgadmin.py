"""The role's files without a host."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

BASE: dict[str, Any] = {
    "pgadmin_admin_email": "admin@example.com",
    "pgadmin_admin_password": "hunter2-hunter2",
}


def file(path: str, **variables: Any) -> dict[str, Any]:
    files = evaluate("pgadmin", "__pgadmin_files", {**BASE, **variables})
    return dict(next(each for each in files if each["path"] == path))


def unit(**variables: Any) -> str:
    return render("pgadmin", "pgadmin.service.j2", {**BASE, **variables})


def service(**variables: Any) -> Any:
    parser = configparser.ConfigParser(strict=False)
    parser.read_string(unit(**variables).replace(" \\\n", " "))
    return parser["Service"]


def test_the_configuration_is_python() -> None:
    text = render("pgadmin", "config_system.py.j2", {**BASE, "pgadmin_settings": {"X": [1, "a'"]}})
    found: dict[str, Any] = {}
    exec(compile(text, "config_system.py", "exec"), found)
    assert found["X"] == [1, "a'"]
    assert found["SERVER_MODE"] is True
    assert found["DATA_DIR"] == "/var/lib/pgadmin"
    assert "hunter2" not in text


def test_the_password_is_for_root_only() -> None:
    made = file("/etc/pgadmin/account.json")
    assert (made["mode"], made["secret"]) == ("0600", True)
    assert "owner" not in made
    assert json.loads(made["content"])["password"] == "hunter2-hunter2"
    assert "hunter2" not in unit()
    assert "hunter2" not in file("/etc/pgadmin/servers.json")["content"]


def test_one_worker_serves_this_host_below_its_path() -> None:
    found = service()
    assert "--workers 1 " in found["ExecStart"] and "--bind 127.0.0.1:5050 " in found["ExecStart"]
    assert "Environment=SCRIPT_NAME=/pgadmin\n" in unit()
    assert "SCRIPT_NAME" not in unit(pgadmin_path="")
    assert "--bind [::1]:99 " in service(pgadmin_address="::1", pgadmin_port=99)["ExecStart"]


def test_the_unit_has_its_limits() -> None:
    found = service(pgadmin_limits={"memory": "1G"})
    assert (found["LimitNOFILE"], found["MemoryMax"]) == ("4096", "1G")


def test_another_python_is_another_release() -> None:
    facts = [{"ansible_facts": host(python=each)} for each in ("3.11.2", "3.13.5")]
    builds = [evaluate("pgadmin", "__pgadmin_build", each) for each in facts]
    assert builds[0][0] == "python3.11 -m venv venv"
    assert builds[1][0] == "python3.13 -m venv venv"


def test_nothing_is_installed_without_its_checksum() -> None:
    installs = [each for each in evaluate("pgadmin", "__pgadmin_build") if " install " in each]
    assert installs and all("--require-hashes" in each for each in installs)
    assert all("--only-binary=:all:" in e or "--no-build-isolation" in e for e in installs)


def test_servers_are_listed_with_their_defaults() -> None:
    servers = [{"name": "main", "host": "10.0.0.5", "user": "sales"}]
    content = file("/etc/pgadmin/servers.json", pgadmin_servers=servers)["content"]
    assert json.loads(content)[0]["port"] == 5432


def test_faults_are_told_before_a_host_is_touched() -> None:
    assert evaluate("pgadmin", "__pgadmin_faults", BASE) == []
    assert len(evaluate("pgadmin", "__pgadmin_faults", {})) == 2


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"pgadmin_servers": [{"name": "a", "host": "h"}]}, "user"),
        ({"pgadmin_servers": [{"name": "a", "host": "h", "user": "u", "password": "p"}]}, "passw"),
        ({"pgadmin_limits": {"files": 1}}, "files"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("pgadmin", variables))
