"""pgAdmin's settings and servers, and what is wrong with them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import pgadmin

NODE: dict[str, Any] = {
    "path": "/pgadmin",
    "data_directory": "/var/lib/pgadmin",
    "email": "admin@example.com",
    "password": "hunter2-hunter2",
}
RELEASE = Path(__file__).parents[2] / "roles" / "pgadmin" / "files" / "release"


class AnsibleText(str):
    """What Ansible's own types of text do: be called something else."""

    def __repr__(self) -> str:
        return f"AnsibleText({super().__repr__()})"


def settings(given: dict[str, Any] | None = None, **changed: Any) -> dict[str, str]:
    return pgadmin.settings({**NODE, **changed}, given or {})


def faults(
    given: dict[str, Any] | None = None, servers: list[dict[str, Any]] | None = None, **changed: Any
) -> str:
    return "\n".join(pgadmin.faults({**NODE, **changed}, given or {}, servers or []))


def test_no_password_is_kept_and_nothing_speaks_with_others() -> None:
    found = settings()
    for name in ("ALLOW_SAVE_PASSWORD", "UPGRADE_CHECK_ENABLED", "SHOW_GRAVATAR_IMAGE"):
        assert found[name] == "False"
    assert found["SESSION_COOKIE_SECURE"] == "True"
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(("path", "cookies"), [("/pgadmin", "'/pgadmin'"), ("", "'/'")])
def test_cookies_are_for_its_path(path: str, cookies: str) -> None:
    assert settings(path=path)["COOKIE_DEFAULT_PATH"] == cookies


def test_given_settings_win_and_null_leaves_out() -> None:
    found = settings({"SESSION_COOKIE_SECURE": False, "LLM_ENABLED": None, "PROXY_X_FOR_COUNT": 2})
    assert found["SESSION_COOKIE_SECURE"] == "False"
    assert found["PROXY_X_FOR_COUNT"] == "2"
    assert "LLM_ENABLED" not in found


@pytest.mark.parametrize(
    "value",
    [True, 3, 0.5, None, "it's \\ \n", [1, "a"], {"pg-17": "/usr/lib"}, {"a": [True, None]}],
)
def test_a_value_is_python(value: Any) -> None:
    assert ast.literal_eval(pgadmin.python(value)) == value


def test_ansibles_own_types_are_written_plainly() -> None:
    assert pgadmin.python({AnsibleText("a"): [AnsibleText("b")]}) == "{'a': ['b']}"


def test_servers_are_complete_and_in_order() -> None:
    given = [{"name": "b", "host": "h", "user": "u"}, {"name": "a", "host": "h", "user": "u"}]
    found = pgadmin.servers(given)
    assert [server["name"] for server in found] == ["a", "b"]
    assert found[0] == {
        "name": "a",
        "group": "Servers",
        "host": "h",
        "port": 5432,
        "database": "postgres",
        "user": "u",
        "sslmode": "prefer",
    }


def test_what_is_right_has_no_fault() -> None:
    assert faults() == ""
    assert faults({"MAX_LOGIN_ATTEMPTS": 5}, path="") == ""
    server = {"name": "a", "host": "h", "user": "u"}
    assert faults(servers=[server, {**server, "group": "other"}]) == ""


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"email": ""}, "pgadmin_admin_email ''"),
        ({"email": "admin"}, "pgadmin_admin_email 'admin'"),
        ({"password": "hunter2"}, "pgadmin_admin_password has less than 8"),
        ({"path": "pgadmin"}, "pgadmin_path 'pgadmin'"),
        ({"path": "/pgadmin/"}, "pgadmin_path '/pgadmin/'"),
        ({"given": {"import os": 1}}, "'import os' is no key"),
        (
            {"servers": [{"name": "a", "host": host, "user": "u"} for host in "xy"]},
            "a is listed twice in the group Servers",
        ),
    ],
)
def test_a_fault_names_key_value_and_remedy(changed: dict[str, Any], fault: str) -> None:
    told = faults(**changed)
    assert fault in told
    assert "hunter2" not in told


def test_every_package_is_pinned_and_has_a_checksum() -> None:
    for name in ("wheels.txt", "sources.txt"):
        text = (RELEASE / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        assert all(re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", li) for li in lines)
