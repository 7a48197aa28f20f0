"""The role's files for public certificates without a host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nginx_syntax import parse
from render import evaluate, render, spec_errors

SHOP = {"name": "shop", "provider": "acme", "domains": ["shop.example.com"]}


def files(**variables: Any) -> dict[str, dict[str, Any]]:
    found = evaluate("tls", "__tls_acme_files", {"tls_certificates": [SHOP], **variables})
    return {each["path"]: each for each in found}


def test_the_program_s_configuration() -> None:
    given = {"tls_acme_server": "letsencrypt-staging", "tls_group": "adm"}
    found = json.loads(files(**given)["/etc/berth/acme.json"]["content"])
    assert found["server"] == "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert found["certificates"][0]["group"] == "adm"
    assert (found["renew_share"], found["reload"]) == (0.33, ["nginx.service"])


def test_certbot_s_own_files_are_for_root_only() -> None:
    found = files()
    assert {found[path]["mode"] for path in ("/etc/berth/acme", "/var/lib/berth/certbot")} == {
        "0700"
    }


def test_the_timer_and_who_is_told() -> None:
    timer = render("tls", "acme.timer.j2", {"tls_acme_calendar": "*-*-* 03:00:00"})
    assert "OnCalendar=*-*-* 03:00:00\n" in timer and "RandomizedDelaySec=6h" in timer
    service = render("tls", "acme.service.j2", {"tls_acme_on_failure": ["tell@%n.service"]})
    assert "OnFailure=tell@%n.service\n" in service
    assert "ExecStart=/usr/local/lib/berth/berth-acme renew\n" in service


def test_what_protects_a_site_does_not_keep_the_authority_away() -> None:
    (location,) = parse(render("nginx", "acme.conf.j2")).all("location")
    assert location.values("auth_basic") == ["off"] and location.values("allow") == ["all"]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"tls_certificates": [{"name": "x", "provider": "lets"}]}, "acme"),
        ({"tls_acme_renew_share": "a third"}, "tls_acme_renew_share"),
        ({"tls_acme_reload": {"unit": "nginx"}}, "tls_acme_reload"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("tls", variables))
