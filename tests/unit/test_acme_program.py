"""The program that orders public certificates: what it decides, runs, and leaves as it was."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import acme
from ansible_collections.berth.platform.plugins.module_utils import certificates as core

SOURCE = Path(__file__).parents[2] / "roles/tls/files/berth_acme.py"
_spec = importlib.util.spec_from_file_location("berth_acme", SOURCE)
assert _spec and _spec.loader
program: Any = importlib.util.module_from_spec(_spec)
sys.modules["berth_acme"] = program
_spec.loader.exec_module(program)

SERVER = "https://ca.test/dir"
AUTHORITY = core.load_authority(core.new_authority("public"))
REFUSED = """\
Saving debug log to /var/lib/berth/certbot/logs/letsencrypt.log
Requesting a certificate for shop.test and absent.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority \
reported these problems:
  Domain: absent.test
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for absent.test - check
that a DNS record exists

  Domain: shop.test
  Type:   unauthorized
  Detail: 192.0.2.1: Invalid response from http://shop.test/.well-known/acme-challenge/x: 404

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile.
"""
UNEXPECTED = """\
Saving debug log to /var/lib/berth/certbot/logs/letsencrypt.log
An unexpected error occurred:
There were too many requests of a given type :: Error creating new order :: too many certificates
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile.
"""


class Host:
    """A host's directories, and a certbot that issues or refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.answers: dict[str, tuple[int, str]] = {}
        self.days = 45
        self.raw: dict[str, Any] = {
            "server": SERVER,
            "email": "admin@shop.test",
            "webroot": str(root / "webroot"),
            "tls_directory": str(root / "tls"),
            "reload": ["nginx.service"],
            "certificates": [self.wanted("shop", "shop.test", "www.shop.test")],
        }

    @staticmethod
    def wanted(name: str, *domains: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "domains": list(domains), "owner": str(USER), "group": GROUP, **more}

    def execute(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        self.commands.append(list(command))
        self.environments.append(environment)
        if "certonly" in command:
            name = command[command.index("--cert-name") + 1]
            if name in self.answers:
                return self.answers[name]
            self.issue(name, [c for b, c in pairwise(command) if b == "--domain"])
            (self.root / "data/accounts/ca.test/dir/1").mkdir(parents=True, exist_ok=True)
            (self.root / "data/accounts/ca.test/dir/1/regr.json").write_text("{}")
            return 0, "Successfully received certificate."
        return self.answers.get(command[1], (0, ""))

    def issue(self, name: str, domains: Sequence[str], *, begins: datetime | None = None) -> None:
        now = begins or core.utcnow()
        made = core.issue(core.Wanted(name, tuple(domains), days=self.days), AUTHORITY, now)
        live = self.root / "data/live" / name
        live.mkdir(parents=True, exist_ok=True)
        (live / "fullchain.pem").write_text(made.fullchain)
        (live / "privkey.pem").write_text(made.privkey)
        (live / "chain.pem").write_text(made.ca)
        (self.root / "data/renewal").mkdir(exist_ok=True)
        renewal = f"version = 2.1.0\n[renewalparams]\naccount = 1\nserver = {SERVER}\n"
        (self.root / f"data/renewal/{name}.conf").write_text(renewal)

    def renew(self, *forced: str) -> Any:
        self.commands.clear()
        return program.renew(program.parse_configuration(self.raw), forced, self.execute)

    def placed(self, part: str, name: str = "shop") -> str:
        return (self.root / "tls" / name / part).read_text()

    @property
    def orders(self) -> list[str]:
        return [c[c.index("--cert-name") + 1] for c in self.commands if "certonly" in c]

    @property
    def reloads(self) -> list[str]:
        return [command[2] for command in self.commands if command[:2] == ["systemctl", "reload"]]


USER, GROUP = "owner", "group"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name, path in (("DATA", "data"), ("STATE", "state"), ("MARKER", "pending/tls-reload")):
        monkeypatch.setattr(program, name, tmp_path / path)
    own = (os.getuid(), os.getgid())
    monkeypatch.setattr(
        program,
        "owner_of",
        lambda part, wanted: (*own, int(wanted.mode, 8) if part == "privkey.pem" else 0o644),
    )
    return Host(tmp_path)


class TestOrder:
    def test_the_first(self, host: Host) -> None:
        outcome = host.renew()
        assert outcome.ordered == {"shop": "it was never ordered"}
        assert host.placed("fullchain.pem").startswith("-----BEGIN CERT")
        assert "PRIVATE KEY" in host.placed("privkey.pem")
        assert (host.root / "tls/shop/privkey.pem").stat().st_mode & 0o777 == 0o640
        assert host.reloads == ["nginx.service"]
        assert not program.MARKER.exists()

    def test_what_certbot_is_told(self, host: Host) -> None:
        host.raw["ca_file"] = "/etc/ca.pem"
        host.renew()
        command = host.commands[0]
        assert command[:2] == ["/usr/bin/certbot", "certonly"]
        for one in ("--force-renewal", "--non-interactive", "--webroot", "--agree-tos"):
            assert one in command
        assert command[command.index("--server") + 1] == SERVER
        assert command[command.index("--email") + 1] == "admin@shop.test"
        assert host.environments[0]["REQUESTS_CA_BUNDLE"] == "/etc/ca.pem"

    def test_nothing_when_nothing_is_due(self, host: Host) -> None:
        host.renew()
        outcome = host.renew()
        assert (outcome.ordered, outcome.placed, host.commands) == ({}, [], [])
        assert outcome.text == "nothing is due"
        assert list(outcome.expires) == ["shop"]

    @pytest.mark.parametrize("days", [1, 6, 45, 90])
    def test_by_the_share_of_its_own_lifetime(self, host: Host, days: int) -> None:
        host.days = days
        lifetime = timedelta(days=days)
        for passed, orders in ((0.6, []), (0.7, ["shop"])):
            begins = core.utcnow() - lifetime * passed
            host.issue("shop", ["shop.test", "www.shop.test"], begins=begins)
            host.renew()
            assert host.orders == orders

    def test_others_names_server_or_kind_of_key(self, host: Host) -> None:
        host.renew()
        host.raw["certificates"] = [host.wanted("shop", "shop.test")]
        assert host.renew().ordered == {"shop": "it names www.shop.test needlessly"}
        host.raw["certificates"][0]["key_type"] = "rsa2048"
        assert host.renew().ordered == {"shop": "its key is p256, not rsa2048"}
        host.raw["server"] = "https://other.test/dir"
        assert host.renew().ordered == {"shop": f"it came from {SERVER}"}

    def test_one_that_is_asked_for(self, host: Host) -> None:
        host.renew()
        before = host.placed("fullchain.pem")
        assert host.renew("shop").ordered == {"shop": "it was asked for"}
        assert host.placed("fullchain.pem") != before


class TestRefusal:
    def test_the_former_one_stays_and_the_others_are_ordered(self, host: Host) -> None:
        host.renew()
        before = host.placed("fullchain.pem"), host.placed("privkey.pem")
        host.raw["certificates"] = [
            host.wanted("shop", "shop.test", "absent.test"),
            host.wanted("api", "api.test"),
        ]
        host.answers["shop"] = (1, REFUSED)
        outcome = host.renew()
        assert outcome.refused == {
            "shop": [
                "absent.test: DNS problem: NXDOMAIN looking up A for absent.test - check that a DNS"
                " record exists (dns)",
                "shop.test: 192.0.2.1: Invalid response from"
                " http://shop.test/.well-known/acme-challenge/x: 404 (unauthorized)",
            ]
        }
        assert outcome.ordered == {"api": "it was never ordered"}
        assert (host.placed("fullchain.pem"), host.placed("privkey.pem")) == before
        assert "shop" in outcome.expires

    def test_a_placeholder_does_not_count_as_a_certificate(self, host: Host) -> None:
        made = acme.placeholder(core.Wanted("shop", ("shop.test",)), core.utcnow())
        (host.root / "tls/shop").mkdir(parents=True)
        (host.root / "tls/shop/fullchain.pem").write_text(made.fullchain)
        host.answers["shop"] = (1, UNEXPECTED)
        assert host.renew().expires == {}

    def test_nothing_is_reloaded_when_nothing_came(self, host: Host) -> None:
        host.answers["shop"] = (1, UNEXPECTED)
        outcome = host.renew()
        (words,) = outcome.refused["shop"]
        assert words.startswith("There were too many requests")
        assert host.reloads == []
        assert "shop: was refused: There were too many" in outcome.text


class TestInterruption:
    def test_issued_but_not_in_place(self, host: Host) -> None:
        host.renew()
        (host.root / "tls/shop/privkey.pem").unlink()
        outcome = host.renew()
        assert (outcome.ordered, outcome.placed) == ({}, ["shop"])
        assert host.reloads == ["nginx.service"]

    def test_in_place_but_not_loaded(self, host: Host) -> None:
        host.answers["reload"] = (1, "nginx: bad configuration")
        outcome = host.renew()
        assert "serves the former certificates: nginx: bad configuration" in outcome.faults[0]
        del host.answers["reload"]
        assert host.renew().reloaded == ["nginx.service"]
        assert host.renew().reloaded == []

    @pytest.mark.parametrize("path", ["renewal/shop.conf", "live/shop/privkey.pem"])
    def test_half_a_record_of_certbot_is_forgotten(self, host: Host, path: str) -> None:
        host.renew()
        (host.root / "data" / path).write_text("")
        left = host.root / "data/archive/shop/left"
        left.parent.mkdir(parents=True)
        left.touch()
        assert host.renew("shop").placed == ["shop"]
        assert not left.exists()

    def test_what_does_not_run_is_not_started(self, host: Host) -> None:
        host.answers["is-active"] = (3, "")
        assert host.renew().faults == []
        assert host.reloads == []

    def test_no_temporary_file_is_left(self, host: Host) -> None:
        host.renew()
        assert sorted(p.name for p in (host.root / "tls/shop").iterdir()) == [
            "ca.pem",
            "fullchain.pem",
            "privkey.pem",
        ]


class TestAccount:
    def test_a_new_address_is_told_once(self, host: Host) -> None:
        host.renew()
        host.raw["email"] = "ops@shop.test"
        assert host.renew().account
        assert host.commands[0][1] == "update_account"
        assert not host.renew().account
        assert host.commands == []


class TestCheck:
    def faults(self, host: Host, now: datetime | None = None) -> list[str]:
        configuration = program.parse_configuration(host.raw)
        found: list[str] = program.check(configuration, now or core.utcnow())
        return found

    def test_all_is_well(self, host: Host) -> None:
        host.renew()
        assert self.faults(host) == []

    @pytest.mark.parametrize("days", [6, 45, 90])
    def test_not_renewed_in_time(self, host: Host, days: int) -> None:
        host.days = days
        host.renew()
        (fault,) = self.faults(host, core.utcnow() + timedelta(days=days * 0.9))
        assert "was not renewed in time" in fault
        (fault,) = self.faults(host, core.utcnow() + timedelta(days=days + 1))
        assert "shop: expired on" in fault

    def test_a_placeholder(self, host: Host) -> None:
        host.renew()
        for path in sorted((host.root / "data/live/shop").iterdir()):
            path.unlink()
        (fault,) = self.faults(host)
        assert "no order has succeeded yet" in fault

    def test_nothing_there_or_for_other_names(self, host: Host) -> None:
        assert self.faults(host) == ["shop: no certificate can be read"]
        host.renew()
        host.raw["certificates"] = [host.wanted("shop", "new.test")]
        assert self.faults(host) == ["shop: is not for new.test"]


class TestMain:
    def test_a_file_that_is_none(self, tmp_path: Path, capsys: Any) -> None:
        path = tmp_path / "acme.json"
        path.write_text('{"server": "x"}')
        assert program.main(["--configuration", str(path), "check"]) == 2
        assert f"{path} cannot be read" in capsys.readouterr().err

    def test_a_name_that_is_none(self, host: Host, capsys: Any) -> None:
        path = host.root / "acme.json"
        path.write_text(json.dumps(host.raw))
        arguments = ["--configuration", str(path), "renew", "--force", "other"]
        assert program.main(arguments) == 2
        assert "no certificate other" in capsys.readouterr().err
