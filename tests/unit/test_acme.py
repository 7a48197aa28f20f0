"""Public certificates: what is asked for, what is due, and what holds their place."""

from __future__ import annotations

import dataclasses
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import acme
from ansible_collections.berth.platform.plugins.module_utils import certificates as core
from cryptography import x509

NOW = core.utcnow()
WANTED = core.Wanted("shop", ("shop.example.com", "www.shop.example.com"))
SETTINGS: dict[str, Any] = {
    "server": "letsencrypt",
    "ca_file": "",
    "email": "",
    "webroot": "/var/lib/berth/acme",
    "renew_share": 0.33,
    "alert_share": 0.15,
    "reload": ["nginx.service"],
    "served_at": "127.0.0.1:443",
    "tls_directory": "/etc/berth/tls",
    "group": "root",
}
SHOP = {"name": "shop", "provider": "acme", "domains": list(WANTED.domains)}


@pytest.fixture(scope="module")
def authority() -> core.Authority:
    return core.load_authority(core.new_authority("public"))


def issued(authority: core.Authority, days: int, **changes: Any) -> core.Found:
    made = core.issue(dataclasses.replace(WANTED, days=days, **changes), authority, NOW)
    return core.Found(made.fullchain, made.ca, key_matches=True)


class TestDue:
    @pytest.mark.parametrize("days", [1, 6, 45, 90, 398])
    def test_by_the_share_of_its_own_lifetime(self, authority: core.Authority, days: int) -> None:
        found = issued(authority, days)
        early, late = (NOW + timedelta(days=days * share) for share in (0.6, 0.7))
        assert acme.due(WANTED, found, 0.33, early) == ""
        assert "of its lifetime is left" in acme.due(WANTED, found, 0.33, late)
        assert "0% of its" in acme.due(WANTED, found, 0.33, NOW + timedelta(days=days + 9))

    def test_missing_harmed_or_another_s(self, authority: core.Authority) -> None:
        good = issued(authority, 45)
        cases = {
            "it is not there": core.Found(),
            "belongs to another": dataclasses.replace(good, key_matches=False),
            "cannot be read": dataclasses.replace(good, fullchain="x"),
            "has mode 0644": dataclasses.replace(good, problems=("privkey.pem has mode 0644",)),
        }
        for words, found in cases.items():
            assert words in acme.due(WANTED, found, 0.33, NOW)

    def test_names_and_kind_of_key(self, authority: core.Authority) -> None:
        other = dataclasses.replace(WANTED, domains=("shop.example.com", "new.example.com"))
        words = acme.due(other, issued(authority, 45), 0.33, NOW)
        assert words == "it lacks new.example.com, names www.shop.example.com needlessly"
        rsa = dataclasses.replace(WANTED, key_type="rsa2048")
        assert "its key is p256" in acme.due(rsa, issued(authority, 45), 0.33, NOW)


class TestPlaceholder:
    def test_a_server_can_start_with_it_and_nobody_trusts_it_long(self, tmp_path: Path) -> None:
        made = acme.placeholder(WANTED, NOW)
        (tmp_path / "chain.pem").write_text(made.fullchain)
        (tmp_path / "key.pem").write_text(made.privkey)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        leaf = x509.load_pem_x509_certificate(made.fullchain.encode())
        assert leaf.not_valid_after_utc <= NOW + timedelta(days=7)
        assert acme.is_placeholder(leaf)

    def test_it_is_due_at_once_and_not_replaced_by_another(self) -> None:
        made = acme.placeholder(WANTED, NOW)
        found = core.Found(made.fullchain, made.ca, key_matches=True)
        assert acme.due(WANTED, found, 0.33, NOW) == "only a placeholder is there"
        assert not acme.needs_placeholder(found)
        assert acme.needs_placeholder(core.Found())
        assert acme.needs_placeholder(dataclasses.replace(found, key_matches=False))

    def test_a_valid_one_of_another_provider_is_left(self, authority: core.Authority) -> None:
        assert not acme.needs_placeholder(issued(authority, 1))


class TestConfiguration:
    def test_only_what_is_public_with_its_defaults(self) -> None:
        inner = {"name": "inner", "domains": ["db.internal"], "group": "postgres"}
        found = acme.configuration([inner, SHOP], SETTINGS | {"group": "adm"})
        assert found["server"] == "https://acme-v02.api.letsencrypt.org/directory"
        assert found["certificates"] == [
            {
                "name": "shop",
                "domains": ["shop.example.com", "www.shop.example.com"],
                "key_type": "p256",
                "owner": "root",
                "group": "adm",
                "mode": "0640",
            }
        ]

    def test_names_are_written_as_certificates_have_them(self) -> None:
        entry = SHOP | {"domains": ["Bücher.example.com", "shop.example.com", "SHOP.example.com"]}
        (found,) = acme.configuration([entry], SETTINGS)["certificates"]
        assert found["domains"] == ["xn--bcher-kva.example.com", "shop.example.com"]

    def test_staging_and_servers_of_one_s_own(self) -> None:
        staging = acme.configuration([SHOP], SETTINGS | {"server": "letsencrypt-staging"})
        assert "staging" in staging["server"]
        own = "https://ca.example.com:14000/dir"
        assert acme.configuration([SHOP], SETTINGS | {"server": own})["server"] == own

    def test_every_fault_in_one_error(self) -> None:
        entries = [
            SHOP | {"name": "a", "domains": ["*.example.com"]},
            SHOP | {"name": "b", "addresses": ["10.0.0.5"]},
            SHOP | {"name": "c", "domains": ["localhost"]},
            SHOP | {"name": "d", "domains": []},
            SHOP | {"name": "../e"},
        ]
        settings = SETTINGS | {
            "server": "http://ca",
            "email": "nobody",
            "renew_share": 30,
            "served_at": "localhost",
        }
        with pytest.raises(acme.AcmeError) as caught:
            acme.configuration(entries, settings)
        for words in (
            "a: *.example.com cannot be proven over HTTP",
            "b: addresses (10.0.0.5) are not for provider acme",
            "c: localhost is no public name",
            "d: has neither domains nor addresses",
            "'../e' is no safe directory name",
            "tls_acme_server: 'http://ca'",
            "tls_acme_email: 'nobody'",
            "tls_acme_renew_share: 30 is no share",
            "tls_acme_served_at: 'localhost'",
        ):
            assert words in str(caught.value)

    def test_an_alert_comes_after_renewal(self) -> None:
        with pytest.raises(acme.AcmeError, match="must be less than tls_acme_renew_share"):
            acme.configuration([SHOP], SETTINGS | {"alert_share": 0.4})
