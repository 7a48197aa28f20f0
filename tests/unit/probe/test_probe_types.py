"""Each type against servers that speak its protocol, well and badly."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import probe_servers as servers
import pytest
from ansible_collections.berth.platform.plugins.module_utils.probe import amqp, kafka
from probe_servers import Talk, http, look, look_at, serving

# HTTP


def ask(answer: bytes, **keys: Any) -> dict[str, Any]:
    with serving(servers.answering(answer)) as port:
        return look_at("http", port, **keys)


def test_http_healthy() -> None:
    found = ask(http('{"status": "ok"}'), json={"status": "ok"}, body="ok", path="/health")
    assert found["healthy"] and found["attempts"] == 1
    assert found["detail"] == {"status": 200, "bytes": 16}
    assert found["first_error"] is None and found["last_error"] is None
    assert 0 < found["latency"] < 2
    assert found["target"].endswith("/health")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.0 200\r\n\r\nold", "old"),
        (b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbare", "bare"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
            "hello world",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ],
)
def test_http_bodies(answer: bytes, body: str) -> None:
    found = ask(answer, body=f"^{body}$")
    assert found["healthy"], found["last_error"]
    assert found["detail"]["bytes"] == len(body)


@pytest.mark.parametrize(
    ("answer", "keys", "error"),
    [
        (http(status="503 no"), {}, "status 503, not 200"),
        (http("db is down", "503 no"), {}, "status 503, not 200: db is down"),
        (http("<html>x", "500 no"), {"status": [200, 204]}, "status 500, not 200 or 204"),
        (http("", "301 x", "Location: http://u:p@h/?t=1"), {}, "status 301, not 200"),
        (http("no"), {"body": "yes"}, "the body does not match 'yes': no"),
        (http("no"), {"json": {"a": 1}}, "the body is not JSON: 'no'"),
        (http("{}"), {"json": {"a": 1}}, "the JSON body has no a"),
        (http('{"a": true}'), {"json": {"a": 1}}, "a is true, not 1"),
        (http('{"a": {"b": "x"}}'), {"json": {"a.b": "y"}}, 'a.b is "x", not "y"'),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            {},
            "the body was cut short: connection closed after 4 bytes of 10",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            {},
            "connection closed after 3 bytes of 5",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            {},
            "not a chunk's size: 'xyz'",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            {},
            "a malformed chunk",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            {},
            "not a Content-Length: '-1'",
        ),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", {}, "not an HTTP header: 'nonsense'"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9999,
            {},
            "a status line and headers longer than 32768 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * 99999,
            {},
            "a status line and headers longer than 32768 bytes",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 99, {}, "interim responses without end"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", {}, "connection closed without an answer"),
        (b"HTTP/2 200\r\n\r\n", {}, "not an HTTP answer: 'HTTP/2 200'"),
        (b"220 mail.example.com ESMTP\r\n", {}, "not an HTTP answer: '220 mail.example.com ESMTP'"),
        (b"", {}, "connection closed without an answer"),
    ],
)
def test_http_unhealthy(answer: bytes, keys: dict[str, Any], error: str) -> None:
    found = ask(answer, **keys)
    assert not found["healthy"]
    assert found["last_error"] == error


def test_http_location_is_shown_without_secrets() -> None:
    found = ask(http("", "302 x", "Location: http://u:canary@h/login?t=canary"))
    assert found["detail"]["location"] == "http://h/login"


def test_http_a_body_longer_than_we_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
    with serving(servers.answering(head, servers.flood)) as port:
        assert look_at("http", port)["healthy"]
        found = look_at("http", port, body="x")
    assert found["last_error"] == "the body is longer than 1048576 bytes"


def test_http_a_body_that_drips_is_cut_off_in_time() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"
    with serving(servers.answering(head, servers.drip(b"x"))) as port:
        found = look_at("http", port, timeout=0.4)
    assert found["last_error"] == "timed out after 0.4 s reading the body"
    assert found["elapsed"] < 0.9


def test_http_no_body_where_there_is_none() -> None:
    with serving(servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as port:
        assert look_at("http", port, method="HEAD")["healthy"]
    assert ask(b"HTTP/1.1 204 No Content\r\n\r\n", status=[204])["healthy"]


def test_http_sends_what_was_asked_for() -> None:
    seen: list[bytes] = []

    def handler(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(http())

    with serving(handler) as port:
        look_at("http", port, path="/x?y=z", host="www.example.com", headers={"X-A": "ü"})
    head = seen[0].decode()
    assert head.startswith("GET /x?y=z HTTP/1.1\r\nHost: www.example.com\r\n")
    assert "\r\nX-A: ü\r\n" in head and head.endswith("\r\n\r\n")


def test_http_echoed_secrets_are_hidden() -> None:
    def handler(connection: socket.socket) -> None:
        request = connection.recv(65536).decode()
        connection.sendall(http(request.replace("\r\n", " ")[:100] + " canary-a", "500 no"))

    with serving(handler) as port:
        found = look_at(
            "http", port, path="/?token=canary-t", headers={"Authorization": "Bearer canary-a"}
        )
    assert "status 500" in found["last_error"] and "(hidden)" in found["last_error"]
    assert "canary" not in str(found)


# TLS


def https(issued: servers.Issued) -> Any:
    return serving(servers.answering(http("ok")), issued.context())


def test_tls_trusted_by_name_and_address(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "www.example.com", "127.0.0.1", days=30)
    ca = str(issued.pem)
    with https(issued) as port:
        by_name = look_at("tls", port, server_name="www.example.com", ca_file=ca, days=14)
        by_address = look_at("tls", port, ca_file=ca)
        web = look_at("https", port, host="www.example.com", ca_file=ca, body="ok")
    assert by_name["healthy"] and by_address["healthy"] and web["healthy"]
    detail = by_name["detail"]
    assert detail["days"] == pytest.approx(30, abs=0.1) and detail["self_signed"] is True
    assert detail["names"] == ["www.example.com", "127.0.0.1"]
    assert detail["protocol"] in ("TLSv1.2", "TLSv1.3")
    assert web["detail"]["days"] == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("kind", ["tls", "https"])
def test_tls_what_is_not_trusted(tmp_path: Path, kind: str) -> None:
    issued = servers.issue(tmp_path, "www.example.com")
    old = servers.issue(tmp_path, "www.example.com", days=-1, begins=-9)
    with https(issued) as port, https(old) as expired:
        unknown = look_at(kind, port, server_name="www.example.com")
        wrong = look_at(kind, port, server_name="other.example.com", ca_file=str(issued.pem))
        late = look_at(kind, expired, server_name="www.example.com", ca_file=str(old.pem))
    assert "self" in unknown["last_error"] and "signed" in unknown["last_error"]
    assert wrong["last_error"].startswith("certificate not accepted: Hostname mismatch")
    assert late["last_error"] == "certificate not accepted: certificate has expired"


def test_tls_without_verify_still_judges_what_it_can(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "www.example.com", days=5)
    old = servers.issue(tmp_path, "www.example.com", days=-2, begins=-9)
    early = servers.issue(tmp_path, "www.example.com", begins=1)
    with https(issued) as port, https(old) as expired, https(early) as future:
        found = look(
            {"name": "ok", "type": "tls", "port": port, "verify": False},
            {"name": "named", "type": "tls", "port": port, "verify": False,
             "server_name": "www.example.com"},
            {"name": "wrong", "type": "tls", "port": port, "verify": False,
             "server_name": "other.example.com"},
            {"name": "soon", "type": "tls", "port": port, "verify": False, "days": 14},
            {"name": "expired", "type": "tls", "port": expired, "verify": False},
            {"name": "early", "type": "tls", "port": future, "verify": False},
            {"name": "web", "type": "https", "port": expired, "verify": False},
        )  # fmt: skip
    assert {probe["name"]: probe["last_error"] for probe in found["probes"]} == {
        "ok": None,
        "named": None,
        "wrong": "the certificate is not for other.example.com",
        "soon": "the certificate expires in 5.0 days, fewer than 14",
        "expired": "the certificate expired 2.0 days ago",
        "early": "the certificate is not valid yet",
        "web": None,
    }


def test_tls_a_missing_or_empty_ca_file(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "127.0.0.1")
    (tmp_path / "empty.pem").write_text("")
    with https(issued) as port:
        missing = look_at("tls", port, ca_file="/nowhere/ca.pem")
        empty = look_at("tls", port, ca_file=str(tmp_path / "empty.pem"))
    assert missing["last_error"] == "ca_file /nowhere/ca.pem: no such file or directory"
    assert empty["last_error"].endswith("empty.pem holds no certificate")


def test_tls_to_a_server_without_it() -> None:
    with serving(servers.answering(http())) as port:
        found = look_at("https", port)
    assert found["last_error"].startswith("TLS failed: ")


# TCP


def test_tcp() -> None:
    with serving(lambda c: c.sendall(b"220 mail.example.com ESMTP\r\n")) as port:
        assert look_at("tcp", port)["healthy"]
        found = look_at("tcp", port, banner="^220 .*ESMTP")
        wrong = look_at("tcp", port, banner="^SSH-")
    assert found["detail"] == {"banner": "220 mail.example.com ESMTP"}
    assert wrong["last_error"] == "said '220 mail.example.com ESMTP', which does not match '^SSH-'"


# Redis


def redis_server(password: str | None = None, ping: bytes = b"+PONG\r\n") -> servers.Handler:
    def handler(connection: socket.socket) -> None:
        allowed = password is None
        while words := _redis_words(connection):
            if words[0] == "AUTH":
                allowed = words[-1] == password
                connection.sendall(b"+OK\r\n" if allowed else b"-WRONGPASS invalid\r\n")
            elif not allowed:
                connection.sendall(b"-NOAUTH Authentication required.\r\n")
            elif words[0] == "PING":
                connection.sendall(ping)
            elif words == ["INFO", "server"]:
                connection.sendall(b"$24\r\n# x\r\nredis_version:7.2\r\n\r\n")
            else:
                connection.sendall(b"-NOPERM no\r\n")

    return handler


def _redis_words(connection: socket.socket) -> list[str]:
    return connection.recv(4096).decode().split("\r\n")[2::2]


def test_redis() -> None:
    with serving(redis_server()) as port:
        found = look_at("redis", port)
    assert found["healthy"], found["last_error"]
    assert found["detail"] == {"answer": "PONG", "version": "7.2"}


def test_redis_with_credentials() -> None:
    with serving(redis_server("canary")) as port:
        assert look_at("redis", port, password="canary")["healthy"]
        assert look_at("redis", port, user="u", password="canary")["healthy"]
        wrong = look_at("redis", port, password="wrong-canary")
        without = look_at("redis", port)
    assert wrong["last_error"] == "AUTH refused: WRONGPASS invalid"
    assert without["healthy"] and without["detail"] == {"answer": "asks for credentials"}


@pytest.mark.parametrize(
    "reply",
    ["LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down"],
)
def test_redis_that_serves_nobody(reply: str) -> None:
    with serving(redis_server(ping=f"-{reply}\r\n".encode())) as port:
        assert look_at("redis", port)["last_error"] == reply


# PostgreSQL


def pg(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def pg_error(code: str, text: str) -> bytes:
    return pg(b"E", f"SFATAL\0C{code}\0M{text}\0\0".encode())


PG_READY = pg(b"Z", b"I")


class Postgres:
    """The server's side of a login and a few queries."""

    def __init__(
        self,
        method: str = "scram",
        password: str = "canary",
        value: str | None = "1",
        context: ssl.SSLContext | None = None,
        startup: bytes = b"",
        lies: bool = False,
    ) -> None:
        self.method, self.password, self.value = method, password, value
        self.context, self.startup, self.lies = context, startup, lies
        self.queries: list[str] = []
        self.ended: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        talk = Talk(connection)
        (size, code) = struct.unpack(">ii", talk.exactly(8))
        if code == 80877103:
            talk.send(b"S" if self.context else b"N")
            if self.context:
                with self.context.wrap_socket(connection, server_side=True) as secured:
                    self._talk(Talk(secured), *struct.unpack(">ii", secured.recv(8)))
                return
            (size, code) = struct.unpack(">ii", talk.exactly(8))
        self._talk(talk, size, code)

    def _talk(self, talk: Talk, size: int, code: int) -> None:
        assert code == 196608
        pairs = talk.exactly(size - 8).split(b"\0")
        user = pairs[pairs.index(b"user") + 1].decode()
        if self.startup:
            talk.send(self.startup)
            return
        if not getattr(self, self.method)(talk, user):
            talk.send(pg_error("28P01", f'password authentication failed for user "{user}"'))
            return
        talk.send(pg(b"R", b"\0\0\0\0") + pg(b"S", b"server_version\x0017.2 (Debian)\0"))
        talk.send(pg(b"S", b"in_hot_standby\0off\0") + pg(b"K", b"\0" * 8) + PG_READY)
        while True:
            kind = talk.exactly(1)
            body = talk.exactly(struct.unpack(">i", talk.exactly(4))[0] - 4)
            if kind != b"Q":
                self.ended.append(kind)
                return
            query = body[:-1].decode()
            self.queries.append(query)
            if query.startswith("BEGIN"):
                talk.send(pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") + PG_READY)
            elif query == "broken":
                talk.send(pg_error("42601", "syntax error") + PG_READY)
            else:
                value = self.value
                cell = struct.pack(">i", -1) if value is None else (
                    struct.pack(">i", len(value)) + value.encode()
                )  # fmt: skip
                talk.send(pg(b"N", b"\0") + pg(b"T", b"\0\1"))
                talk.send(pg(b"D", b"\0\1" + cell) + pg(b"C", b"SELECT 1\0") + PG_READY)

    def trust(self, talk: Talk, user: str) -> bool:
        return True

    def _password(self, talk: Talk) -> bytes:
        assert talk.exactly(1) == b"p"
        return talk.exactly(struct.unpack(">i", talk.exactly(4))[0] - 4)

    def cleartext(self, talk: Talk, user: str) -> bool:
        talk.send(pg(b"R", struct.pack(">i", 3)))
        return self._password(talk) == self.password.encode() + b"\0"

    def md5(self, talk: Talk, user: str) -> bool:
        talk.send(pg(b"R", struct.pack(">i", 5) + b"salt"))
        inner = hashlib.md5((self.password + user).encode()).hexdigest().encode()
        return (
            self._password(talk)
            == b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode() + b"\0"
        )

    def kerberos(self, talk: Talk, user: str) -> bool:
        talk.send(pg(b"R", struct.pack(">i", 7)))
        return not talk.exactly(1)

    def scram(self, talk: Talk, user: str) -> bool:
        talk.send(pg(b"R", struct.pack(">i", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
        mechanism, _zero, rest = self._password(talk).partition(b"\0")
        assert mechanism == b"SCRAM-SHA-256"
        bare = rest[4:].decode().removeprefix("n,,")
        salt, rounds = os.urandom(16), 4096
        nonce = bare.rpartition("r=")[2] + "server"
        first = f"r={nonce},s={base64.b64encode(salt).decode()},i={rounds}"
        talk.send(pg(b"R", struct.pack(">i", 11) + first.encode()))
        final = self._password(talk).decode()
        without, _comma, proof = final.rpartition(",p=")
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt, rounds)

        def mac(key: bytes, text: bytes) -> bytes:
            return hmac.new(key, text, hashlib.sha256).digest()

        message = f"{bare},{first},{without}".encode()
        stored = hashlib.sha256(mac(salted, b"Client Key")).digest()
        signature = mac(stored, message)
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        if hashlib.sha256(key).digest() != stored:
            return False
        if self.lies:
            talk.send(pg(b"R", b"\0\0\0\0"))
            return True
        proof = base64.b64encode(mac(mac(salted, b"Server Key"), message)).decode()
        talk.send(pg(b"R", struct.pack(">i", 12) + f"v={proof}".encode()))
        return True


@pytest.mark.parametrize("method", ["trust", "cleartext", "md5", "scram"])
def test_postgresql_logs_in(method: str) -> None:
    server = Postgres(method)
    with serving(server) as port:
        found = look_at("postgresql", port, user="joe", password="canary", database="d")
        time.sleep(0.1)
    assert found["healthy"], found["last_error"]
    assert found["detail"] == {"tls": False, "version": "17.2", "standby": False}
    assert server.queries == ["SELECT 1"] and server.ended == [b"X"]


@pytest.mark.parametrize("method", ["cleartext", "md5", "scram"])
def test_postgresql_a_wrong_password(method: str) -> None:
    with serving(Postgres(method)) as port:
        found = look_at("postgresql", port, user="joe", password="wrong-canary")
    assert found["last_error"] == '28P01 password authentication failed for user "joe"'


def test_postgresql_a_server_that_does_not_know_the_password() -> None:
    with serving(Postgres("scram", lies=True)) as port:
        found = look_at("postgresql", port, user="joe", password="canary")
    assert found["last_error"] == "the server ended SCRAM without its proof"


def test_postgresql_a_method_we_do_not_speak() -> None:
    with serving(Postgres("kerberos")) as port:
        found = look_at("postgresql", port, user="joe", password="canary")
    assert found["last_error"] == "authentication method 7 is not supported"


def test_postgresql_queries() -> None:
    server = Postgres(value="7")
    common = {"user": "joe", "password": "canary", "timeout": 1.5}
    with serving(server) as port:
        anything = look_at("postgresql", port, query="SELECT n FROM t", **common)
        right = look_at("postgresql", port, query="SELECT n FROM t", expect="7", **common)
        wrong = look_at("postgresql", port, query="SELECT n FROM t", expect=8, **common)
        broken = look_at("postgresql", port, query="broken", **common)
        time.sleep(0.1)
    assert anything["healthy"] and anything["detail"]["value"] == "7" and right["healthy"]
    assert wrong["last_error"] == "the query gave '7', not '8'"
    assert broken["last_error"] == "42601 syntax error"
    assert server.queries[0] == "BEGIN READ ONLY; SET LOCAL statement_timeout = 1500"
    # In order even after an error, or the server would log that the client vanished.
    assert server.ended == [b"X"] * 4


def test_postgresql_select_1_must_give_1() -> None:
    with serving(Postgres(value=None)) as port:
        found = look_at("postgresql", port, user="joe", password="canary")
    assert found["last_error"] == "the query gave nothing, not '1'"


@pytest.mark.parametrize(
    ("code", "text", "alive"),
    [
        ("57P03", "the database system is starting up", False),
        ("57P03", "the database system is shutting down", False),
        ("53300", "sorry, too many clients already", False),
        ("28000", "no pg_hba.conf entry for host", True),
        ("3D000", 'database "postgres" does not exist', True),
    ],
)
def test_postgresql_without_a_user(code: str, text: str, alive: bool) -> None:
    with serving(Postgres(startup=pg_error(code, text))) as port:
        found = look_at("postgresql", port)
        with_user = look_at("postgresql", port, user="joe", password="canary")
    assert found["healthy"] is alive
    assert (found["detail"]["answer"] if alive else found["last_error"]) == f"{code} {text}"
    assert with_user["last_error"] == f"{code} {text}"


def test_postgresql_without_a_user_asks_for_credentials_or_lets_in() -> None:
    with serving(Postgres("scram")) as asks, serving(Postgres("trust")) as trusts:
        assert look_at("postgresql", asks)["detail"]["answer"] == "asks for credentials"
        found = look_at("postgresql", trusts)
    assert found["detail"]["answer"] == "accepts connections"
    assert found["detail"]["version"] == "17.2"


def test_postgresql_sslmodes(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "db.example.com")
    keys = {"user": "joe", "password": "canary", "ca_file": str(issued.pem)}
    with serving(Postgres(context=issued.context())) as port:
        found = {
            mode: look_at("postgresql", port, sslmode=mode, **keys)
            for mode in ("prefer", "require", "verify-ca", "verify-full")
        }
        named = look_at(
            "postgresql", port, sslmode="verify-full", server_name="db.example.com", **keys
        )
        del keys["ca_file"]
        unknown = look_at("postgresql", port, sslmode="verify-ca", **keys)
    assert [mode for mode in found if found[mode]["healthy"]] == ["prefer", "require", "verify-ca"]
    assert found["prefer"]["detail"]["tls"] is True
    assert "mismatch" in found["verify-full"]["last_error"]
    assert named["healthy"]
    assert "self" in unknown["last_error"]


def test_postgresql_tls_that_is_not_offered() -> None:
    with serving(Postgres()) as port:
        found = look_at("postgresql", port, user="joe", password="canary", sslmode="require")
    assert found["last_error"] == "the server does not offer TLS, and sslmode is require"


def test_postgresql_does_not_believe_what_came_before_tls() -> None:
    with serving(servers.answering(b"S" + pg(b"R", b"\0\0\0\0") + PG_READY)) as port:
        found = look_at("postgresql", port, user="joe", password="canary")
    assert found["last_error"] == "data in the clear after the change to TLS"


# AMQP


def amqp_server(
    vhosts: tuple[str, ...] = ("/",),
    mechanisms: bytes = b"PLAIN AMQPLAIN",
    before: bytes = b"",
) -> servers.Handler:
    def frame(number: int, arguments: bytes) -> bytes:
        return amqp.method(number, arguments)

    def close(code: int, text: str) -> bytes:
        return frame(amqp.CLOSE, struct.pack(">H", code) + amqp.short_string(text) + b"\0\0\0\0")

    def read(talk: Talk) -> tuple[int, bytes]:
        _kind, _channel, size = struct.unpack(">BHI", talk.exactly(7))
        payload = talk.exactly(size + 1)[:-1]
        return struct.unpack_from(">HH", payload)[1], payload[4:]

    def handler(connection: socket.socket) -> None:
        talk = Talk(connection)
        if talk.exactly(8) != amqp.HEADER:
            return
        talk.send(before)
        properties = amqp.table(
            {"product": "RabbitMQ", "version": "4.0.5", "capabilities": {"x": True}}
        )
        talk.send(
            frame(amqp.START, b"\0\x09" + properties + amqp.long_string(mechanisms)
                  + amqp.long_string(b"en_US"))
        )  # fmt: skip
        number, arguments = read(talk)
        assert number == amqp.START_OK
        if b"\0joe\0canary" not in arguments:
            talk.send(close(403, "ACCESS_REFUSED - Login was refused"))
            return
        talk.send(frame(amqp.TUNE, struct.pack(">HIH", 2047, 131072, 60)))
        # A heartbeat may come at any time.
        talk.send(struct.pack(">BHI", amqp.HEARTBEAT, 0, 0) + bytes([amqp.END]))
        assert read(talk) == (amqp.TUNE_OK, struct.pack(">HIH", 2047, 131072, 0))
        number, arguments = read(talk)
        assert number == amqp.OPEN
        vhost = arguments[1 : 1 + arguments[0]].decode()
        if vhost not in vhosts:
            talk.send(close(530, f"NOT_ALLOWED - vhost {vhost} not found"))
            return
        talk.send(frame(amqp.OPEN_OK, b"\0"))
        assert read(talk)[0] == amqp.CLOSE
        talk.send(frame(amqp.CLOSE_OK, b""))

    return handler


def test_amqp() -> None:
    with serving(amqp_server()) as port:
        found = look_at("amqp", port, user="joe", password="canary")
        without = look_at("amqp", port)
        wrong = look_at("amqp", port, user="joe", password="wrong")
        lost = look_at("amqp", port, user="joe", password="canary", vhost="shop")
    assert found["healthy"], found["last_error"]
    assert found["detail"] == without["detail"] == {"product": "RabbitMQ", "version": "4.0.5"}
    assert without["healthy"]
    assert wrong["last_error"] == "refused: 403 ACCESS_REFUSED - Login was refused"
    assert lost["last_error"] == "refused: 530 NOT_ALLOWED - vhost shop not found"


def test_amqp_that_is_not_quite_amqp() -> None:
    beats = (struct.pack(">BHI", amqp.HEARTBEAT, 0, 0) + bytes([amqp.END])) * 99
    cases = {
        amqp_server(mechanisms=b"EXTERNAL"): "the server does not offer PLAIN authentication",
        amqp_server(before=amqp.method(99, b"")): "an unexpected method 10.99",
        amqp_server(before=beats): "too many frames",
        servers.answering(b"AMQP\0\1\0\0"): "the server does not speak AMQP 0-9-1",
        servers.answering(amqp.method(amqp.START, b"\0\x09\xff\xff\xff\xff")): "a malformed frame",
    }
    for server, error in cases.items():
        with serving(server) as port:
            found = look_at("amqp", port, user="joe", password="canary")
        assert found["last_error"] == error


# Kafka: a server that speaks the documented frames.


def kafka_server(answer: Callable[[int], bytes]) -> servers.Handler:
    def handler(connection: socket.socket) -> None:
        talk = Talk(connection)
        request = talk.exactly(struct.unpack(">i", talk.exactly(4))[0])
        key, version, correlation, length = struct.unpack_from(">hhih", request)
        assert (key, version, length) == (kafka.API_VERSIONS, 0, len(request) - 10)
        body = struct.pack(">i", correlation) + answer(version)
        talk.send(struct.pack(">i", len(body)) + body)

    return handler


def kafka_offers(*keys: int) -> bytes:
    rows = b"".join(struct.pack(">hhh", key, 0, 9) for key in keys)
    return struct.pack(">hi", 0, len(keys)) + rows


def test_kafka(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "127.0.0.1")
    broker = kafka_server(lambda _version: kafka_offers(0, 1, 3, 18))
    with serving(broker) as port, serving(broker, issued.context()) as secure:
        found = look_at("kafka", port)
        over_tls = look_at("kafka", secure, tls=True, ca_file=str(issued.pem))
    assert found["healthy"] and found["detail"] == {"apis": 4}
    assert over_tls["healthy"], over_tls["last_error"]


def test_kafka_unhealthy() -> None:
    controller = kafka_server(lambda _version: kafka_offers(18, 52))
    refusing = kafka_server(lambda _version: struct.pack(">hi", 35, 0))
    short = kafka_server(lambda _version: struct.pack(">hi", 0, 9))
    with serving(controller) as one, serving(refusing) as two, serving(short) as three:
        errors = [look_at("kafka", port)["last_error"] for port in (one, two, three)]
    assert errors == [
        "serves no producers or consumers (a controller's listener?)",
        "error code 35",
        "the answer is cut short",
    ]


# Commands


def test_command() -> None:
    found = look_at("command", argv=["/bin/sh", "-c", "echo fine"])
    assert found["healthy"] and found["detail"] == {"rc": 0, "output": "fine"}
    assert found["target"] == "/bin/sh"
    assert look_at("command", argv=["/bin/sh", "-c", "exit 3"], rc=[0, 3])["healthy"]
    failed = look_at("command", argv=["/bin/sh", "-c", "echo oh no >&2; exit 3"])
    assert failed["last_error"] == "ended with 3, not 0: oh no"
    killed = look_at("command", argv=["/bin/sh", "-c", "kill -9 $$"])
    assert killed["last_error"] == "was killed by signal 9, not 0"


def test_command_that_cannot_be_run(tmp_path: Path) -> None:
    assert look_at("command", argv=["/nowhere/x"])["last_error"] == "/nowhere/x: no such program"
    (tmp_path / "x").write_text("")
    found = look_at("command", argv=[str(tmp_path / "x")])
    assert found["last_error"].endswith("x: permission denied")


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_command_that_never_ends_dies_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; echo $$ >> {pids}; wait"
    started = time.monotonic()
    found = look_at("command", argv=["/bin/sh", "-c", script], timeout=0.4)
    assert found["last_error"] == "timed out after 0.4 s waiting for the command to end"
    assert time.monotonic() - started < 1.5
    assert all(_gone(int(pid)) for pid in pids.read_text().split())


def test_command_that_leaves_a_child_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    started = time.monotonic()
    found = look_at("command", argv=["/bin/sh", "-c", f"sleep 300 & echo $! > {pid}; echo ok"])
    assert found["healthy"] and found["detail"]["output"] == "ok"
    assert time.monotonic() - started < 1.5
    assert _gone(int(pid.read_text()))


def test_command_that_floods_is_drained_and_cut() -> None:
    found = look_at("command", argv=["/bin/sh", "-c", "yes | head -c 5000000"])
    assert found["healthy"] and len(found["detail"]["output"]) <= 200


def test_command_gets_no_input() -> None:
    assert look_at("command", argv=["/bin/cat"])["healthy"]


# systemd, by a systemctl of our own


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers with the file named like the unit, counts its calls."""
    tool = tmp_path / "systemctl"
    tool.write_text(
        "#!/bin/sh\n"
        f"cd {tmp_path}; echo call >> calls\n"
        'shift 3; for unit; do cat "$unit"; echo; done\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "calls").write_text("")
    return tmp_path


def unit(directory: Path, name: str, **properties: str) -> None:
    values = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", **properties}
    (directory / name).write_text("".join(f"{k}={v}\n" for k, v in values.items()))


def test_systemd_all_units_in_one_call(systemctl: Path) -> None:
    for number in range(150):
        unit(systemctl, f"u{number}.service", NRestarts=str(number))
    unit(systemctl, "down.service", ActiveState="failed", SubState="failed", Result="exit-code")
    names = [f"u{number}" for number in range(150)] + ["down"]
    found = look(*[{"name": name, "type": "systemd", "unit": name} for name in names])
    assert found["summary"]["healthy"] == 150
    assert found["probes"][7]["detail"]["restarts"] == 7
    assert found["probes"][-1]["last_error"] == "failed (failed), result exit-code"
    assert (systemctl / "calls").read_text().count("call") == 1


def test_systemd_flapping_between_looks(systemctl: Path) -> None:
    tool = systemctl / "systemctl"
    tool.write_text(
        "#!/bin/sh\n"
        f"cd {systemctl}; echo call >> calls; n=$(wc -l < calls)\n"
        "printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\nNRestarts=%s\\n' $n\n"
    )
    found = look_at("systemd", unit="x", successes=2, interval=0.05)
    assert found["last_error"] == "flapping: restarted 1 times between two looks"


def test_systemd_that_is_not_there(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (systemctl / "systemctl").write_text("#!/bin/sh\necho 'not booted with systemd' >&2; exit 1\n")
    assert look_at("systemd", unit="x")["last_error"] == "systemctl: not booted with systemd"
    monkeypatch.setenv("PATH", "/nowhere")
    assert look_at("systemd", unit="x")["last_error"] == "systemctl: no such program"


def test_https_of_a_server_that_closes_first(tmp_path: Path) -> None:
    issued = servers.issue(tmp_path, "127.0.0.1")
    body = http("x" * 100_000)

    def handler(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(body)
        assert isinstance(connection, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            connection.unwrap()

    with serving(handler, issued.context()) as port:
        found = look(
            *[
                {"name": f"p{n}", "type": "https", "port": port, "ca_file": str(issued.pem)}
                for n in range(20)
            ]
        )
    assert found["healthy"], found["probes"]
