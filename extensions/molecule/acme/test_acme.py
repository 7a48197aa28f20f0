"""Public certificates on fresh hosts, from an authority that speaks RFC 8555."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

testinfra_hosts = ["ansible://trixie", "ansible://bookworm"]

SHOP = "/etc/berth/tls/shop"
PROGRAM = "/usr/local/lib/berth/berth-acme"
MASTER = "systemctl show --value --property=MainPID nginx.service"


def platform_ca() -> str:
    text = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ca.pem").read_text()
    return text[text.index("-----BEGIN CERT") :]


def address(host: Any) -> str:
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture(scope="module")
def root(hosts: dict[str, Any]) -> str:
    """The certificate that Pebble made for itself at its start."""
    context = ssl.create_default_context(cadata=platform_ca())
    context.check_hostname = False
    connection = http.client.HTTPSConnection(address(hosts["authority"]), 15000, context=context)
    try:
        connection.request("GET", "/roots/0")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


class Visitor:
    """Asks a site as a browser does: by name, over a new connection, trusting the authority."""

    def __init__(self, host: Any, root: str) -> None:
        self.name = f"shop.{host.check_output('hostname')}.test"
        self.address = address(host)
        self.context = ssl.create_default_context(cadata=root)

    def ask(self, name: str = "") -> dict[str, Any]:
        """The certificate that came with the page."""
        name = name or self.name
        connection = http.client.HTTPSConnection(name, context=self.context, timeout=10)
        connection._create_connection = lambda _address, *rest: socket_to(self.address, *rest)
        try:
            connection.request("GET", "/")
            assert isinstance(connection.sock, ssl.SSLSocket)
            certificate: dict[str, Any] = connection.sock.getpeercert() or {}
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"<title>shop</title>\n")
            return certificate
        finally:
            connection.close()

    def serial(self) -> str:
        return str(self.ask()["serialNumber"])

    def wait_for_another(self, serial: str) -> str:
        """After a reload, old workers take connections for a moment more."""
        for _attempt in range(50):
            found = self.serial()
            if found != serial:
                return found
            time.sleep(0.1)
        raise AssertionError("the former certificate goes on serving")


def socket_to(where: str, *rest: Any) -> Any:
    return socket.create_connection((where, 443), *rest[:1])


@pytest.fixture
def visitor(host: Any, root: str) -> Visitor:
    return Visitor(host, root)


@pytest.fixture
def crowd(visitor: Visitor) -> Iterator[list[Any]]:
    """One request after another, as long as the test lasts; every certificate or fault."""
    seen: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                seen.append(visitor.serial())
            except (OSError, http.client.HTTPException, AssertionError) as error:
                seen.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield seen
    done.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 20
    assert [each for each in seen if not isinstance(each, str)] == []


@pytest.fixture(scope="class")
def restored(converge: Callable[..., Any]) -> Iterator[None]:
    yield
    done = converge("--limit", "trixie")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in converge("--limit", "trixie").stdout


class TestFirstOrder:
    def test_visitors_trust_every_name(self, visitor: Visitor) -> None:
        for name in (visitor.name, f"www.{visitor.name}"):
            certificate = visitor.ask(name)
            issuer = dict(pair for part in certificate["issuer"] for pair in part)
            assert "Pebble Intermediate" in issuer["commonName"]

    def test_it_lasts_as_long_as_the_authority_says(self, visitor: Visitor) -> None:
        words = visitor.ask()["notAfter"]
        end = datetime.strptime(words, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=timezone.utc)
        left = end - datetime.now(timezone.utc)
        assert timedelta(days=5) < left <= timedelta(days=6)

    def test_who_may_read(self, host: Any) -> None:
        found = {
            name: (host.file(f"{SHOP}/{name}").user, host.file(f"{SHOP}/{name}").mode)
            for name in ("privkey.pem", "fullchain.pem", "ca.pem")
        }
        assert found == {
            "privkey.pem": ("root", 0o640),
            "fullchain.pem": ("root", 0o644),
            "ca.pem": ("root", 0o644),
        }
        assert host.file("/etc/berth/acme").mode == 0o700

    def test_nothing_is_left_of_the_order(self, host: Any) -> None:
        assert host.check_output("ls /var/lib/berth/acme/.well-known/acme-challenge") == ""
        assert host.check_output("ls -A /var/lib/berth/pending") == ""

    def test_all_is_well(self, host: Any) -> None:
        assert host.check_output(f"{PROGRAM} check") == "1 certificates are well"


class TestWatch:
    def judged_by(self, host: Any, **changes: Any) -> Any:
        values = json.loads(host.check_output("cat /etc/berth/acme.json")) | changes
        host.check_output("echo %s >/run/acme-test.json", json.dumps(values))
        return host.run(f"{PROGRAM} --configuration /run/acme-test.json check")

    def test_one_that_was_not_renewed_in_time(self, host: Any) -> None:
        found = self.judged_by(host, renew_share=0.999999, alert_share=0.99999)
        assert found.rc == 1
        assert "less than 100% of its lifetime is left, so it was not renewed" in found.stdout

    def test_one_that_is_not_served(self, host: Any) -> None:
        assert "nothing is served at" in self.judged_by(host, served_at="127.0.0.1:1").stdout


class TestTimer:
    def test_it_waits(self, host: Any) -> None:
        timer = host.service("berth-acme.timer")
        assert timer.is_enabled and timer.is_running
        show = "systemctl show --value --property=NextElapseUSecRealtime berth-acme.timer"
        assert host.check_output(show)

    def test_nothing_is_due(self, host: Any, visitor: Visitor) -> None:
        before = visitor.serial()
        host.check_output("systemctl start berth-acme.service")
        assert "nothing is due" in host.check_output("journalctl -u berth-acme.service -n 5")
        assert visitor.serial() == before

    def test_what_is_due_is_renewed_without_a_failed_request(
        self, host: Any, visitor: Visitor, crowd: list[Any]
    ) -> None:
        before, master = visitor.serial(), host.check_output(MASTER)
        host.check_output(
            'sed -i.kept \'s/"renew_share": .*/"renew_share": 1,/\' /etc/berth/acme.json'
        )
        try:
            host.check_output("systemctl start berth-acme.service")
        finally:
            host.check_output("mv /etc/berth/acme.json.kept /etc/berth/acme.json")
        after = visitor.wait_for_another(before)
        assert host.check_output(MASTER) == master
        assert {before, after} <= set(crowd)


class TestCertbotWasKilled:
    def test_the_next_order_goes_by_the_same_name(self, host: Any, visitor: Visitor) -> None:
        before = visitor.serial()
        host.check_output("truncate -s 0 /etc/berth/acme/renewal/shop.conf")
        host.check_output(f"{PROGRAM} renew")
        visitor.wait_for_another(before)
        assert host.check_output("ls /etc/berth/acme/renewal") == "shop.conf"


@pytest.mark.usefixtures("restored")
class TestConverge:
    def test_what_will_be_ordered_is_said_before(
        self, hosts: dict[str, Any], root: str, converge: Callable[..., Any]
    ) -> None:
        visitor = Visitor(hosts["trixie"], root)
        before = visitor.serial()
        more = [{"name": "shop", "provider": "acme", "domains": ["{{ shop }}", "api.{{ shop }}"]}]
        done = converge("--limit", "trixie", "--check", "--diff", tls_certificates=more)
        assert done.returncode == 0, done.stdout
        assert "+shop: it lacks api.shop.trixie.test" in done.stdout
        assert visitor.serial() == before

    def test_a_refused_order_leaves_what_serves(
        self, hosts: dict[str, Any], root: str, converge: Callable[..., Any]
    ) -> None:
        visitors = [Visitor(hosts[name], root) for name in ("trixie", "bookworm")]
        before = [visitor.serial() for visitor in visitors]
        wanted = [
            {"name": "shop", "provider": "acme", "domains": ["{{ shop }}", "absent.{{ shop }}"]},
            {"name": "api", "provider": "acme", "domains": ["api.{{ shop }}"]},
            {"name": "new", "provider": "acme", "domains": ["new.{{ shop }}"]},
        ]
        done = converge(tls_certificates=wanted)
        assert done.returncode != 0
        for visitor in visitors:
            assert f"absent.{visitor.name}: " in done.stdout
        assert "shop: the order failed:" in done.stdout
        assert "What was there goes on serving, until" in done.stdout
        assert "Nothing that visitors trust is there yet" in done.stdout
        assert [visitor.serial() for visitor in visitors] == before
        # The other one came all the same, through a site that is closed to everybody else.
        for host in (hosts["trixie"], hosts["bookworm"]):
            issuer = host.check_output(
                "openssl x509 -noout -issuer -in /etc/berth/tls/api/fullchain.pem"
            )
            assert "Pebble" in issuer

    @pytest.mark.parametrize("harm", ["rm -r {}", "chmod 0644 {}/privkey.pem"])
    def test_what_was_harmed_is_put_in_place_without_an_order(
        self, hosts: dict[str, Any], root: str, converge: Callable[..., Any], harm: str
    ) -> None:
        visitor = Visitor(hosts["trixie"], root)
        before = visitor.serial()
        hosts["trixie"].check_output(harm.format(SHOP))
        done = converge("--limit", "trixie")
        assert done.returncode == 0, done.stdout
        assert hosts["trixie"].file(f"{SHOP}/privkey.pem").mode == 0o640
        assert visitor.serial() == before

    def test_a_reload_that_failed_is_made_good(
        self, hosts: dict[str, Any], root: str, converge: Callable[..., Any]
    ) -> None:
        host, visitor = hosts["trixie"], Visitor(hosts["trixie"], root)
        before = visitor.serial()
        host.check_output("echo nonsense >/etc/nginx/conf.d/nonsense.conf")
        forced = host.run(f"{PROGRAM} renew --force shop")
        assert forced.rc == 1
        assert "could not be reloaded and serves the former certificates" in forced.stdout
        assert visitor.serial() == before
        assert "another certificate is served" in host.run(f"{PROGRAM} check").stdout
        host.check_output("rm /etc/nginx/conf.d/nonsense.conf")
        done = converge("--limit", "trixie")
        assert done.returncode == 0, done.stdout
        visitor.wait_for_another(before)

    def test_nothing_is_ordered_any_more(
        self, hosts: dict[str, Any], root: str, converge: Callable[..., Any]
    ) -> None:
        visitor = Visitor(hosts["trixie"], root)
        before = visitor.serial()
        done = converge("--limit", "trixie", tls_certificates=[])
        assert done.returncode == 0, done.stdout
        assert not hosts["trixie"].file("/etc/systemd/system/berth-acme.timer").exists
        assert "changed=0" in converge("--limit", "trixie", tls_certificates=[]).stdout
        assert visitor.serial() == before
