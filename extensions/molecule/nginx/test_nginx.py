"""What a browser, an upstream and an operator see of nginx."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
}
CONFIGURATION = "find /etc/nginx -type f -exec sha256sum {} + | sort"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return self.headers.get_all(name) or []


class Edge:
    """nginx on one host, asked from outside."""

    def __init__(self, host: Any, name: str) -> None:
        self.host = host
        self.name = name
        self.address = str(host.check_output("hostname -I").split()[0])
        authority = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ca.pem").read_text()
        self.trust = authority[authority.index("-----BEGIN CERT") :]

    def connect(self, domain: str, alpn: str = "", tls: bool = True) -> socket.socket:
        plain = socket.create_connection((self.address, 443 if tls else 80), timeout=10)
        if not tls:
            return plain
        context = ssl.create_default_context(cadata=self.trust)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context.wrap_socket(plain, server_hostname=domain)

    def ask(
        self,
        url: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        scheme, _, rest = url.partition("://")
        domain, slash, path = rest.partition("/")
        connection = http.client.HTTPConnection(domain)
        connection.sock = self.connect(domain, tls=scheme == "https")
        try:
            connection.request(method, slash + path or "/", body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def serial(self, domain: str) -> str:
        with self.connect(domain) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            return str((connection.getpeercert() or {})["serialNumber"])

    def workers(self) -> set[str]:
        found = self.host.run("pgrep -x nginx -P $(cat /run/nginx.pid)").stdout
        return set(found.split())


class WebSocket:
    """Just enough of RFC 6455 to say something and hear it again."""

    def __init__(self, edge: Edge, path: str) -> None:
        self.socket = edge.connect("shop.test")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.head = b""
        while b"\r\n\r\n" not in self.head:
            block = self.socket.recv(1)
            if not block:
                break
            self.head += block

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def echo(self, text: str) -> str:
        mask = os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(text.encode()))
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        head = self.socket.recv(2)
        return self.socket.recv(head[1]).decode()

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def edge(request: pytest.FixtureRequest, hosts: dict[str, Any]) -> Edge:
    return Edge(hosts[request.param], request.param)


@pytest.fixture(scope="module")
def stranger(edge: Edge, hosts: dict[str, Any]) -> Any:
    """The other host."""
    (other,) = [host for host in hosts.values() if host is not edge.host]
    return other


class TestNames:
    def test_plain_http_leads_to_https(self, edge: Edge) -> None:
        for domain in ("shop.test", "www.shop.test", "app.shop.test"):
            answer = edge.ask(f"http://{domain}/a?b=c")
            assert answer.status == 301
            assert answer.headers["Location"] == f"https://{domain}/a?b=c"

    def test_a_plain_site_stays_plain(self, edge: Edge) -> None:
        answer = edge.ask("http://inner.test/")
        assert answer.status == 200
        assert answer.all("Strict-Transport-Security") == []
        assert answer.all("X-Frame-Options") == ["SAMEORIGIN"]

    def test_unknown_names_are_refused(self, edge: Edge) -> None:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            edge.ask("http://other.test/")
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            edge.connect("other.test")
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            edge.connect(edge.address)

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
    def test_protocols(self, edge: Edge) -> None:
        with edge.connect("shop.test", "h2") as connection:
            assert isinstance(connection, ssl.SSLSocket)
            assert connection.selected_alpn_protocol() == "h2"
            assert connection.version() == "TLSv1.3"
        context = ssl.create_default_context(cadata=edge.trust)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection((edge.address, 443), timeout=10) as plain,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(plain, server_hostname="shop.test")

    def test_certificates_to_come_are_answered_for(self, edge: Edge) -> None:
        folder = "/var/lib/berth/acme/.well-known/acme-challenge"
        edge.host.check_output(f"echo proof >{folder}/token")
        for domain in ("shop.test", "inner.test", "to-come.test"):
            answer = edge.ask(f"http://{domain}/.well-known/acme-challenge/token")
            assert (answer.status, answer.body) == (200, b"proof\n")
            assert edge.ask(f"http://{domain}/.well-known/acme-challenge/none").status == 404


class TestHeaders:
    @pytest.mark.parametrize(
        ("url", "status", "own"),
        [
            ("https://shop.test/", 200, {}),
            ("https://shop.test/health", 200, {}),
            (
                "https://shop.test/admin",
                200,
                {"X-Frame-Options": "DENY", "X-Admin": 'yes; "it" is'},
            ),
            ("https://shop.test/v12/x", 200, {"X-Version": "1"}),
            ("https://shop.test/big-header", 502, {}),
            ("https://shop.test/old", 308, {}),
            ("https://app.shop.test/", 200, {"Cache-Control": "no-cache"}),
            ("https://app.shop.test/a/route", 200, {"Cache-Control": "no-cache"}),
            ("https://app.shop.test/assets/app.js", 200, {}),
            ("https://app.shop.test/assets/none.js", 404, {}),
            ("https://app.shop.test/.env", 404, {}),
            ("https://app.shop.test/docs/", 200, {}),
            ("https://app.shop.test/docs/none", 404, {}),
        ],
    )
    def test_every_answer_bears_the_set(
        self, edge: Edge, url: str, status: int, own: dict[str, str]
    ) -> None:
        answer = edge.ask(url)
        assert answer.status == status
        for name, value in {**HEADERS, **own}.items():
            assert answer.all(name) == [value], name
        assert answer.headers["Server"] == "nginx"


class TestFiles:
    def test_routes_of_the_application(self, edge: Edge) -> None:
        for path in ("", "some/route", "index.html"):
            assert edge.ask(f"https://app.shop.test/{path}").body == b"<title>app</title>\n"

    def test_assets_are_kept(self, edge: Edge) -> None:
        answer = edge.ask("https://app.shop.test/assets/app.js")
        assert answer.all("Cache-Control") == ["max-age=31536000", "public, immutable"]
        missing = edge.ask("https://app.shop.test/assets/none.js")
        assert (missing.status, missing.all("Cache-Control")) == (404, [])

    def test_an_upstream_below_the_application(self, edge: Edge) -> None:
        answer = edge.ask("https://app.shop.test/api/file.js")
        assert answer.json()["path"] == "/api/file.js"

    def test_another_directory_below(self, edge: Edge) -> None:
        assert edge.ask("https://app.shop.test/docs/").body == b"<title>docs</title>\n"
        answer = edge.ask("https://app.shop.test/docs/manual.css")
        assert answer.all("Cache-Control") == ["max-age=3600", "public, immutable"]

    def test_hidden_files_stay_hidden(self, edge: Edge) -> None:
        assert edge.ask("https://app.shop.test/.env").status == 404
        assert edge.ask("http://inner.test/.env").status == 404

    def test_compression(self, edge: Edge) -> None:
        asked = {"Accept-Encoding": "gzip"}
        answer = edge.ask("https://app.shop.test/assets/app.js", headers=asked)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.body) == b"let a = 1;\n" * 500
        assert answer.headers["Vary"] == "Accept-Encoding"
        small = edge.ask("https://app.shop.test/", headers=asked)
        assert small.headers["Content-Encoding"] is None
        off = edge.ask("http://inner.test/assets/app.js", headers=asked)
        assert off.headers["Content-Encoding"] is None


class TestUpstreams:
    def test_what_the_upstream_is_told(self, edge: Edge) -> None:
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Upgrade": "h2c"}
        headers = edge.ask("https://shop.test/", headers=forged).json()["headers"]
        assert headers["host"] == "shop.test"
        assert headers["x-forwarded-proto"] == "https"
        assert headers["x-real-ip"] == headers["x-forwarded-for"].split(", ")[-1]
        assert headers["x-real-ip"].startswith("10.")
        assert "upgrade" not in headers
        assert "connection" not in headers

    def test_connections_are_kept(self, edge: Edge) -> None:
        before = edge.ask("https://shop.test/counts").json()
        for _ in range(40):
            assert edge.ask("https://shop.test/").status == 200
        after = edge.ask("https://shop.test/counts").json()
        assert after["requests"] - before["requests"] == 41
        # Each worker keeps its own.
        assert after["connections"] - before["connections"] <= len(edge.workers())

    def test_websocket(self, edge: Edge) -> None:
        connection = WebSocket(edge, "/live")
        assert connection.status == 101
        assert connection.echo("hello") == "hello"
        assert edge.ask("https://shop.test/").status == 200
        assert connection.echo("again") == "again"
        connection.close()

    def test_no_websocket(self, edge: Edge) -> None:
        connection = WebSocket(edge, "/plain")
        assert connection.status == 200
        connection.close()

    def test_a_dead_server_is_passed_over(self, edge: Edge) -> None:
        ports = [edge.ask("https://shop.test/cluster").json()["port"] for _ in range(30)]
        assert set(ports) == {5002, 5003}

    def test_paths(self, edge: Edge) -> None:
        assert edge.ask("https://shop.test/stripped/a?b").json()["path"] == "/a?b"
        assert edge.ask("https://shop.test/v2/a").json()["path"] == "/v2/a"
        assert edge.ask("https://shop.test/old").headers["Location"] == "https://shop.test/new"

    def test_buffers(self, edge: Edge) -> None:
        assert edge.ask("https://shop.test/big-header").status == 502
        assert edge.ask("https://shop.test/roomy/big-header").status == 200

    def test_body_size(self, edge: Edge) -> None:
        assert edge.ask("https://shop.test/", "POST", body=b"x" * 1000).status == 200
        assert edge.ask("https://shop.test/", "POST", body=b"x" * 2000).status == 413

    def test_cache(self, edge: Edge) -> None:
        first = edge.ask("https://shop.test/cached?once").json()["requests"]
        assert edge.ask("https://shop.test/cached?once").json()["requests"] == first
        authorized = {"Authorization": "Bearer x"}
        asked = edge.ask("https://shop.test/cached?once", headers=authorized)
        assert asked.json()["requests"] > first


class TestLimits:
    def test_rate(self, edge: Edge) -> None:
        statuses = [edge.ask("https://shop.test/limited").status for _ in range(8)]
        assert statuses[:3] == [200, 200, 200]
        assert 429 in statuses[3:]
        assert set(statuses) == {200, 429}
        assert edge.ask("https://shop.test/").status == 200

    def test_strangers_are_kept_out(self, edge: Edge, stranger: Any) -> None:
        assert edge.ask("https://shop.test/admin").status == 200
        script = (
            "import socket, ssl; c = ssl._create_unverified_context();"
            f"s = c.wrap_socket(socket.create_connection(('{edge.address}', 443)),"
            "server_hostname='shop.test');"
            "s.sendall(b'GET {} HTTP/1.0\\r\\nHost: shop.test\\r\\n\\r\\n');"
            "print(s.recv(15).decode())"
        )
        for path, status in (("/", "200"), ("/admin", "403"), ("/admin/deeper", "403")):
            assert status in stranger.check_output(
                "python3 -c %s", script.replace("GET {}", f"GET {path}")
            )


class TestLogs:
    def test_each_site_has_its_own(self, edge: Edge) -> None:
        edge.ask("https://shop.test/health?quiet")
        edge.ask("https://shop.test/logged?loud")
        edge.ask("https://app.shop.test/logged?app")
        time.sleep(0.2)
        shop = edge.host.file("/var/log/nginx/shop-test-access.log").content_string
        assert "/logged?loud" in shop
        assert "quiet" not in shop
        assert "?app" not in shop
        assert "?app" in edge.host.file("/var/log/nginx/app-access.log").content_string

    def test_they_are_rotated(self, edge: Edge) -> None:
        edge.host.check_output("logrotate --force /etc/logrotate.d/nginx")
        edge.ask("https://shop.test/rotated")
        time.sleep(0.5)
        assert "/rotated" in edge.host.file("/var/log/nginx/shop-test-access.log").content_string


class TestStatus:
    def ask(self, edge: Edge, uri: str) -> str:
        script = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/nginx-status.sock');"
            f"s.sendall(b'GET {uri} HTTP/1.0\\r\\n\\r\\n'); print(s.makefile().read())"
        )
        return str(edge.host.check_output("python3 -c %s", script))

    def test_tells_what_is_loaded(self, edge: Edge) -> None:
        checksum = self.ask(edge, "/checksum").split()[-1]
        assert f"return 200 {checksum};" in edge.host.file("/etc/nginx/nginx.conf").content_string

    def test_tells_how_busy_it_is(self, edge: Edge) -> None:
        assert "Active connections" in self.ask(edge, "/")


SITES = [
    {
        "name": "shop",
        "domains": ["shop.test"],
        "certificate": "shop.test",
        "log_name": "shop-test",
        "locations": [{"path": "/", "upstream": "shop", "headers": {"X-New": "1"}}],
    }
]


class TestOperation:
    """Changes, and what becomes of bad ones. Each test leaves the scenario's own configuration."""

    @pytest.fixture
    def apply(self, edge: Edge, converge: Callable[..., Any]) -> Callable[..., Any]:
        return partial(converge, "--limit", edge.name)

    @pytest.fixture(autouse=True)
    def restored(self, edge: Edge, apply: Callable[..., Any]) -> Iterator[None]:
        yield
        done = apply()
        assert done.returncode == 0, done.stdout
        assert edge.ask("https://app.shop.test/").status == 200

    def test_change_and_back(self, edge: Edge, apply: Callable[..., Any]) -> None:
        connection = WebSocket(edge, "/live")
        before = edge.workers()
        predicted = apply("--check", "--diff", nginx_sites=SITES)
        assert predicted.returncode == 0, predicted.stdout
        assert "X-New" in predicted.stdout
        assert edge.workers() == before
        assert edge.ask("https://shop.test/").all("X-New") == []

        done = apply(nginx_sites=SITES)
        assert done.returncode == 0, done.stdout
        assert edge.ask("https://shop.test/").all("X-New") == ["1"]
        assert not edge.host.file("/etc/nginx/sites-enabled/app.conf").exists
        with pytest.raises(ssl.SSLError):
            edge.connect("app.shop.test")
        assert connection.echo("still here") == "still here"
        connection.close()
        assert "changed=0" in apply(nginx_sites=SITES).stdout

    def test_a_bad_directive_replaces_nothing(self, edge: Edge, apply: Callable[..., Any]) -> None:
        before = edge.host.check_output(CONFIGURATION)
        done = apply(nginx_settings={"gzip": "perhaps"})
        assert done.returncode != 0
        assert 'invalid value "perhaps"' in done.stdout
        assert edge.host.check_output(CONFIGURATION) == before
        assert edge.ask("https://shop.test/").status == 200

    def test_faults_come_before_anything_else(self, apply: Callable[..., Any]) -> None:
        sites = [{"name": "a", "domains": ["x y"], "locations": [{"upstream": "shap"}]}]
        done = apply(nginx_sites=sites)
        assert done.returncode != 0
        assert "is no domain name" in done.stdout
        assert "did you mean 'shop'?" in done.stdout

    def test_a_reload_that_nginx_cannot_follow_is_noticed(
        self, edge: Edge, apply: Callable[..., Any]
    ) -> None:
        """`nginx -t` does not mind a port that is taken; the reload does, silently."""
        edge.host.check_output(
            "systemd-run --unit=taken python3 -m http.server --bind 0.0.0.0 8080"
        )
        time.sleep(1)
        try:
            done = apply(nginx_http_port=8080)
            assert done.returncode != 0
            assert "keeps its old workers" in done.stdout
            assert "Address already in use" in done.stdout
            assert edge.ask("http://inner.test/").status == 200
            assert edge.host.file("/var/lib/berth/pending/nginx").exists
        finally:
            edge.host.check_output("systemctl stop taken")
        done = apply(nginx_http_port=8080)
        assert done.returncode == 0, done.stdout
        assert not edge.host.file("/var/lib/berth/pending/nginx").exists

    def test_a_run_that_died_before_its_handler_is_made_good(
        self, edge: Edge, apply: Callable[..., Any]
    ) -> None:
        before = edge.workers()
        edge.host.check_output(
            "mkdir -p /var/lib/berth/pending;"
            'echo \'{"files": [], "labels": []}\' >/var/lib/berth/pending/nginx'
        )
        assert apply().returncode == 0
        assert not edge.workers() & before
        assert not edge.host.file("/var/lib/berth/pending/nginx").exists

    def test_a_new_certificate_is_served(self, edge: Edge, apply: Callable[..., Any]) -> None:
        before = edge.serial("shop.test")
        edge.host.check_output("rm /etc/berth/tls/shop.test/privkey.pem")
        assert apply().returncode == 0
        assert edge.serial("shop.test") != before

    def test_it_comes_back_after_a_kill(self, edge: Edge) -> None:
        before = edge.workers()
        edge.host.check_output("systemctl kill --signal=KILL nginx.service")
        for _ in range(50):
            if edge.workers() - before:
                break
            time.sleep(0.2)
        assert edge.ask("https://shop.test/").status == 200
