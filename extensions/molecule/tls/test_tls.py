"""Certificates that programs on the host accept, and that are only renewed when they must be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, f"{os.environ['MOLECULE_PROJECT_DIRECTORY']}/.work/collections")
from ansible_collections.berth.platform.plugins.module_utils import certificates as core

testinfra_hosts = ["ansible://server"]

# Serves one connection with a certificate, and connects to it as any program of the host would.
TALK = """
import json, socket, ssl, threading
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain("{base}/fullchain.pem", "{base}/privkey.pem")
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    try:
        server.wrap_socket(listener.accept()[0], server_side=True).sendall(b"x")
    except OSError:
        pass
threading.Thread(target=serve).start()
client = ssl.create_default_context({trust})
try:
    plain = socket.create_connection(listener.getsockname())
    with client.wrap_socket(plain, server_hostname="{name}") as connection:
        print(json.dumps(connection.getpeercert()))
except ssl.SSLError as error:
    print(json.dumps({{"error": str(error)}}))
"""
SHOP, DATABASE = "/etc/berth/tls/shop", "/etc/berth/tls/database"


def talk(host: Any, base: str, name: str, trust: str = "") -> dict[str, Any]:
    script = TALK.format(base=base, name=name, trust=trust)
    found: dict[str, Any] = json.loads(host.check_output("python3 -c %s", script))
    return found


def serials(host: Any) -> dict[str, str]:
    return {
        name: talk(
            host, f"/etc/berth/tls/{name}", server, f"cafile='/etc/berth/tls/{name}/ca.pem'"
        )["serialNumber"]
        for name, server in (("shop", "shop.test"), ("database", "127.0.0.1"))
    }


@pytest.fixture
def authority() -> str:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ca.pem").read_text()


@pytest.fixture
def restored(converge: Callable[..., Any]) -> Iterator[None]:
    yield
    done = converge()
    assert done.returncode == 0, done.stdout


class TestCertificates:
    @pytest.mark.parametrize(
        ("base", "name"),
        [(SHOP, "shop.test"), (SHOP, "www.shop.test"), (DATABASE, "127.0.0.1"), (DATABASE, "::1")],
    )
    def test_programs_of_the_host_accept_them(self, host: Any, base: str, name: str) -> None:
        assert "serialNumber" in talk(host, base, name)

    def test_other_names_are_refused(self, host: Any) -> None:
        assert "mismatch" in talk(host, SHOP, "other.test")["error"]
        assert "mismatch" in talk(host, DATABASE, "127.0.0.2")["error"]

    @pytest.mark.parametrize(("base", "days"), [(SHOP, 90), (DATABASE, 45)])
    def test_lifetime(self, host: Any, base: str, days: int) -> None:
        name = "shop.test" if base == SHOP else "::1"
        words = talk(host, base, name)["notAfter"]
        end = datetime.strptime(words, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=timezone.utc)
        left = end - datetime.now(timezone.utc)
        assert timedelta(days=days, hours=-1) < left <= timedelta(days=days)

    @pytest.mark.parametrize(
        ("path", "group", "mode"),
        [
            (f"{SHOP}/privkey.pem", "adm", 0o640),
            (f"{DATABASE}/privkey.pem", "root", 0o600),
            (f"{SHOP}/fullchain.pem", "root", 0o644),
        ],
    )
    def test_who_may_read(self, host: Any, path: str, group: str, mode: int) -> None:
        found = host.file(path)
        assert (found.user, found.group, found.mode) == ("root", group, mode)

    def test_the_authority_s_key_is_not_here(self, host: Any, authority: str) -> None:
        line = authority.splitlines()[2]
        assert host.run("grep -rlF %s /etc /var /usr/local /root /tmp", line).stdout == ""

    def test_who_uses_them_is_to_be_told(self, host: Any) -> None:
        marker = json.loads(host.file("/var/lib/berth/pending/nginx").content_string)
        assert f"{SHOP}/fullchain.pem" in marker["files"]


@pytest.mark.usefixtures("restored")
class TestRenewal:
    def test_what_is_due(self, host: Any, converge: Callable[..., Any]) -> None:
        shop = {"name": "shop", "domains": ["shop.test", "*.shop.test"]}
        short = [{**shop, "days": 6, "renew_before": 2}]
        host.check_output(f"rm {SHOP}/fullchain.pem")
        assert converge(tls_certificates=short).returncode == 0
        before = serials(host)
        assert "changed=0" in converge(tls_certificates=short).stdout

        predicted = converge("--check", "--diff")
        assert "changed=1" in predicted.stdout
        assert "+expires:" in predicted.stdout
        assert serials(host) == before

        assert "changed=1" in converge().stdout
        after = serials(host)
        assert after["shop"] != before["shop"]
        assert after["database"] == before["database"]

    def test_what_names_something_else(self, host: Any, converge: Callable[..., Any]) -> None:
        before = serials(host)
        new = [{"name": "shop", "domains": ["shop.test", "new.test"]}]
        assert "changed=1" in converge(tls_certificates=new).stdout
        assert "serialNumber" in talk(host, SHOP, "new.test")
        assert serials(host)["database"] == before["database"]

    @pytest.mark.parametrize(
        "harm",
        [
            f"rm -r {SHOP}",
            f"rm {SHOP}/privkey.pem",
            f"cp {DATABASE}/privkey.pem {SHOP}/privkey.pem",
            f"chmod 0644 {SHOP}/privkey.pem",
            f"chgrp root {SHOP}/privkey.pem",
            f"echo >{SHOP}/fullchain.pem",
            f"rm {SHOP}/ca.pem",
        ],
    )
    def test_what_was_harmed(self, host: Any, converge: Callable[..., Any], harm: str) -> None:
        before = serials(host)
        host.check_output(harm)
        assert "changed=1" in converge().stdout
        after = serials(host)
        assert after["shop"] != before["shop"]
        assert after["database"] == before["database"]
        assert host.file(f"{SHOP}/privkey.pem").mode == 0o640

    def test_what_a_former_authority_signed(self, host: Any, converge: Callable[..., Any]) -> None:
        before = serials(host)
        bundle = core.new_authority("another")
        done = converge(tls_ca=bundle)
        assert done.returncode == 0, done.stdout
        assert bundle.splitlines()[2] not in done.stdout
        after = serials(host)
        assert not set(after.values()) & set(before.values())
        assert "serialNumber" in talk(host, SHOP, "shop.test")


class TestTrust:
    def test_it_can_be_withdrawn(self, host: Any, converge: Callable[..., Any]) -> None:
        assert "changed=1" in converge(tls_ca_trusted=False).stdout
        assert "verify failed" in talk(host, SHOP, "shop.test")["error"]
        assert "changed=0" in converge(tls_ca_trusted=False).stdout
        assert "changed=1" in converge().stdout
        assert "serialNumber" in talk(host, SHOP, "shop.test")

    def test_a_run_that_died_before_the_store_was_built(
        self, host: Any, converge: Callable[..., Any]
    ) -> None:
        host.check_output("mv /usr/local/share/ca-certificates/berth-molecule.crt /root/")
        host.check_output("update-ca-certificates")
        host.check_output("mv /root/berth-molecule.crt /usr/local/share/ca-certificates/")
        assert "changed=1" in converge().stdout
        assert "serialNumber" in talk(host, SHOP, "shop.test")


@pytest.mark.usefixtures("restored")
class TestGiven:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, str]:
        made = core.issue(
            core.Wanted("x", ("given.test",)),
            core.load_authority(core.new_authority("elsewhere")),
            core.utcnow(),
        )
        (tmp_path / "certificate.pem").write_text(made.fullchain)
        (tmp_path / "key.pem").write_text(made.privkey)
        (tmp_path / "ca.pem").write_text(made.ca)
        return {
            "provider": "files",
            "certificate_file": str(tmp_path / "certificate.pem"),
            "key_file": str(tmp_path / "key.pem"),
            "ca_file": str(tmp_path / "ca.pem"),
        }

    def test_needs_no_authority(
        self, host: Any, converge: Callable[..., Any], files: dict[str, str]
    ) -> None:
        given = [{"name": "given", "domains": ["given.test"], **files}]
        done = converge(tls_certificates=given, tls_ca="")
        assert done.returncode == 0, done.stdout
        trust = "cafile='/etc/berth/tls/given/ca.pem'"
        assert "serialNumber" in talk(host, "/etc/berth/tls/given", "given.test", trust)
        assert "changed=0" in converge(tls_certificates=given, tls_ca="").stdout

    def test_bad_ones_are_refused_before_anything_changes(
        self, host: Any, converge: Callable[..., Any], files: dict[str, str]
    ) -> None:
        host.check_output(f"rm {SHOP}/privkey.pem")
        other = [{"name": "given", "domains": ["other.test"], **files}]
        shop = [{"name": "shop", "domains": ["shop.test"]}]
        done = converge(tls_certificates=shop + other)
        assert done.returncode != 0
        assert "does not cover other.test; it names given.test" in done.stdout
        assert not host.file(f"{SHOP}/privkey.pem").exists
