"""The role's files without a host: access list, repository and its key, and what depends on it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from render import ROOT, host, render, spec_errors

FINGERPRINT = "B97B0AFCAA1A47F044F244A07FCC7D46ACCC4CF8"
USERS = [{"name": "sales", "password": "x", "databases": [{"name": "prod-sales"}]}]


def conf(variables: dict[str, Any] | None = None, **facts: Any) -> dict[str, str]:
    text = render(
        "postgresql", "berth.conf.j2", {"ansible_facts": host(**facts), **(variables or {})}
    )
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition(" = ") for line in lines)}


def test_settings_follow_the_host() -> None:
    settings = conf(cores=8, memory_mb=15990)
    assert settings["shared_buffers"] == "'4GB'"
    assert settings["work_mem"] == "'16MB'"
    assert settings["autovacuum_max_workers"] == "4"


def test_given_memory_wins_over_the_hosts() -> None:
    assert conf({"postgresql_memory_mb": 2048}, memory_mb=65536)["shared_buffers"] == "'512MB'"


def test_archiving() -> None:
    archive = {"enabled": True, "command": "pgbackrest --stanza=main archive-push %p"}
    settings = conf({"postgresql_archive": archive})
    assert settings["archive_mode"] == "on"
    assert settings["archive_command"] == "'pgbackrest --stanza=main archive-push %p'"
    assert settings["archive_timeout"] == "'60s'"
    assert "archive_mode" not in conf({"postgresql_archive": {**archive, "enabled": False}})


def test_settings_of_the_user_win() -> None:
    settings = conf({"postgresql_settings": {"shared_buffers": "1GB", "log_lock_waits": None}})
    assert settings["shared_buffers"] == "'1GB'"
    assert "log_lock_waits" not in settings


def test_the_administrator_comes_first_and_only_by_the_socket() -> None:
    entries = [{"database": "prod-sales", "user": "sales", "address": "10.0.0.7"}]
    text = render(
        "postgresql",
        "pg_hba.conf.j2",
        {"ansible_facts": host(), "postgresql_users": USERS, "postgresql_hba": entries},
    )
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    assert lines[0] == ["local", "all", "postgres", "peer"]
    assert lines[-1] == ["host", '"prod-sales"', '"sales"', "10.0.0.7/32", "scram-sha-256"]
    assert all(line[-1] in ("peer", "scram-sha-256") for line in lines)


def test_nobody_listed_is_nobody_let_in() -> None:
    text = render("postgresql", "pg_hba.conf.j2")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "local  all  postgres  peer"
    ]
    assert text.endswith("\n")


def test_a_wrong_rule_is_an_error() -> None:
    variables = {"ansible_facts": host(), "postgresql_hba": [{"address": "10.0.0.1/8"}]}
    with pytest.raises(Exception, match=r"did you mean 10\.0\.0\.0/8"):
        render("postgresql", "pg_hba.conf.j2", variables)


def test_the_projects_repository() -> None:
    facts = host(codename="bookworm", version="12")
    text = render("postgresql", "pgdg.sources.j2", {"ansible_facts": facts})
    assert "Suites: bookworm-pgdg\n" in text
    assert "URIs: https://apt.postgresql.org/pub/repos/apt\n" in text
    assert "Signed-By: /etc/apt/keyrings/berth-pgdg.asc\n" in text


def test_the_key_is_the_projects_own() -> None:
    """Its fingerprint (RFC 4880, 12.2): SHA-1 over the first packet, which is the primary key."""
    armour = (ROOT / "roles/postgresql/files/pgdg.asc").read_text(encoding="ascii")
    body = armour.split("\n\n", 1)[1].split("\n=", 1)[0]
    data = base64.b64decode(body)
    assert data[0] & 0xFC == 0x98, "an old-format public-key packet"
    octets = {0: 1, 1: 2, 2: 4}[data[0] & 3]
    length = int.from_bytes(data[1 : 1 + octets], "big")
    packet = data[1 + octets : 1 + octets + length]
    digest = hashlib.sha1(b"\x99" + length.to_bytes(2, "big") + packet).hexdigest()
    assert digest.upper() == FINGERPRINT
    readme = (ROOT / "roles/postgresql/README.md").read_text(encoding="utf-8")
    assert FINGERPRINT in readme.replace(" ", "")


def test_logs_are_kept_as_long_as_said() -> None:
    text = render(
        "postgresql", "tmpfiles.conf.j2", {"ansible_facts": host(), "postgresql_log_days": 7}
    )
    assert text.splitlines()[-1] == "e /var/log/postgresql - - - 7d"


def test_specification() -> None:
    good = {
        "postgresql_users": USERS,
        "postgresql_databases": [{"name": "prod-sales", "extensions": ["a", {"name": "b"}]}],
        "postgresql_hba": [{"database": ["a"], "user": "b", "address": "10.0.0.0/8"}],
        "postgresql_archive": {"enabled": True, "command": "x", "timeout": 60},
    }
    assert spec_errors("postgresql", good) == []
    assert spec_errors("postgresql", {"postgresql_databases": [{"owner": "x"}]})
    assert spec_errors("postgresql", {"postgresql_users": [{"name": "x", "right": "all"}]})
    assert spec_errors("postgresql", {"postgresql_repository": "ppa"})
