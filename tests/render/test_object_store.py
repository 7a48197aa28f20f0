"""The role's files without a host."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from render import evaluate, render, spec_errors

USERS = [
    {"access_key": "shop", "secret_key": 'a"b\\c', "buckets": ["images"]},
    {"access_key": "billing", "secret_key": "x", "buckets": []},
]


def unit(**variables: Any) -> str:
    text = render("object_store", "object-store.service.j2", variables)
    return re.sub(r" \\\n\s*", " ", text)


def command(**variables: Any) -> list[str]:
    line = next(line for line in unit(**variables).splitlines() if line.startswith("ExecStart="))
    return line.removeprefix("ExecStart=").split()


def option(name: str, **variables: Any) -> str:
    words = command(**variables)
    return words[words.index(name) + 1]


def test_plain_on_loopback_by_default() -> None:
    assert option("--port") == "127.0.0.1:9000"
    assert "--cert" not in command() and "LoadCredential" not in unit()


def test_a_certificate_reaches_the_server_as_a_credential() -> None:
    text = unit(object_store_certificate="/etc/berth/tls/store")
    assert "LoadCredential=privkey.pem:/etc/berth/tls/store/privkey.pem" in text
    key = option("--key", object_store_certificate="/etc/berth/tls/store")
    assert key == "${CREDENTIALS_DIRECTORY}/privkey.pem"


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert option("--port", object_store_address="::1", object_store_port=9443) == "[::1]:9443"


def test_no_secret_is_in_the_unit() -> None:
    text = unit(object_store_secret_key="hunter2", object_store_users=USERS)
    assert "hunter2" not in text and "a\\" not in text


def test_memory_is_limited_where_it_is_asked_for() -> None:
    assert "MemoryMax" not in unit()
    assert "MemoryMax=2G" in unit(object_store_limits={"files": 10, "memory": "2G"})


def test_the_root_secret_is_quoted_for_systemd() -> None:
    text = render(
        "object_store", "environment.j2", {"object_store_secret_key": 'a"b\\c #$d e'}
    ).splitlines()
    assert text[-1] == 'ROOT_SECRET_KEY="a\\"b\\\\c #$d e"'


def test_accounts_are_what_the_server_reads() -> None:
    text = render("object_store", "users.json.j2", {"object_store_users": USERS})
    accounts = json.loads(text)["accessAccounts"]
    assert sorted(accounts) == ["billing", "shop"]
    assert accounts["shop"]["secret"] == 'a"b\\c' and accounts["shop"]["role"] == "user"
    empty = render("object_store", "users.json.j2", {"object_store_users": []})
    assert json.loads(empty) == {"accessAccounts": {}}


def test_secret_files_are_for_the_server_only() -> None:
    files = {
        each["path"]: each
        for each in evaluate("object_store", "__object_store_files", {"object_store_users": []})
    }
    for path in ("/etc/object-store/environment", "/var/lib/object-store/iam/users.json"):
        assert files[path]["mode"] == "0600" and files[path]["secret"] is True


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"object_store_users": [{"access_key": "x"}]}, "secret_key"),
        ({"object_store_buckets": [{"bucket": "x"}]}, "bucket"),
        ({"object_store_port": "http"}, "http"),
        ({"object_store_limits": {"cpu": "10%"}}, "cpu"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("object_store", variables))
