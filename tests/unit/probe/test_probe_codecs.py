"""The protocols' own words, from their documents where those give examples."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import struct
import warnings
from pathlib import Path
from typing import Any

import probe_servers as servers
import pytest
from ansible_collections.berth.platform.plugins.module_utils.probe import (
    amqp,
    http,
    kafka,
    postgresql,
    redis,
    scram,
    systemd,
    x509,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.connection import Connection
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Probe,
    ProbeFailed,
    clean,
    redact,
)
from cryptography import x509 as reference
from hypothesis import given
from hypothesis import strategies as st

# RFC 7677, section 3.
RFC_NONCE = "rOprNGfwEbeRWgbNEkqO"
RFC_FIRST = f"n,,n=user,r={RFC_NONCE}"
RFC_SERVER_FIRST = (
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
RFC_FINAL = (
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def fed(data: bytes) -> Connection:
    """A connection on which *data* came and then the end."""
    connection = Connection()
    connection.data_received(data)
    connection.eof_received()
    return connection


# SCRAM


def test_scram_as_in_rfc_7677() -> None:
    exchange = scram.Exchange("user", "pencil", RFC_NONCE)
    assert exchange.first() == RFC_FIRST
    assert exchange.final(RFC_SERVER_FIRST) == RFC_FINAL
    exchange.verify(RFC_SERVER_FINAL)


@pytest.mark.parametrize(
    "server_first",
    [
        "",
        "e=other-error",
        RFC_SERVER_FIRST.replace(RFC_NONCE, "other"),
        f"r={RFC_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        RFC_SERVER_FIRST.replace("i=4096", "i=0"),
        RFC_SERVER_FIRST.replace("i=4096", "i=99999999999"),
        RFC_SERVER_FIRST.replace("i=4096", "i=x"),
        RFC_SERVER_FIRST.replace("s=W22Z", "s=!!!!"),
        RFC_SERVER_FIRST.replace("s=W22ZaJ0SNY7soEsUEjb6gQ==,", ""),
    ],
)
def test_scram_refuses_a_wrong_server_first(server_first: str) -> None:
    with pytest.raises(scram.ScramError):
        scram.Exchange("user", "pencil", RFC_NONCE).final(server_first)


@pytest.mark.parametrize("final", ["", "v=", "v=AAAA", "v=!", "e=invalid-proof"])
def test_scram_wants_the_servers_proof(final: str) -> None:
    exchange = scram.Exchange("user", "pencil", RFC_NONCE)
    exchange.final(RFC_SERVER_FIRST)
    with pytest.raises(scram.ScramError):
        exchange.verify(final)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3; what it prohibits PostgreSQL takes as it is.
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", "\u0007"),
        ("\u0627\u0031", "\u0627\u0031"),
        ("a\u00a0b", "a b"),
        ("\u0221", "\u0221"),
    ],
)
def test_saslprep_as_in_rfc_4013(text: str, prepared: str) -> None:
    assert scram.saslprep(text) == prepared


def test_scram_escapes_the_user() -> None:
    assert scram.Exchange("a=b,c", "x", "n").first() == "n,,n=a=3Db=2Cc,r=n"


# PostgreSQL


def test_postgresql_startup_and_passwords() -> None:
    packet = postgresql.startup("u", "d")
    assert packet[:8] == struct.pack(">ii", len(packet), 196608)
    assert packet.endswith(b"client_encoding\0UTF8\0\0")
    assert b"user\0u\0database\0d\0" in packet
    # md5sum's answer to md5(md5("secretjoe") + salt).
    expected = "md5850be429f1fe77df3f603ac424abb440"
    assert postgresql.md5_password("joe", "secret", b"\1\2\3\4") == expected


def test_postgresql_errors_and_rows() -> None:
    refused = postgresql.refusal(b"SFATAL\0C57P03\0Mthe database system is starting up\0\0")
    assert (refused.code, refused.message) == (
        "57P03",
        "57P03 the database system is starting up",
    )
    assert postgresql.first_value(struct.pack(">hi", 1, 2) + b"42") == "42"
    assert postgresql.first_value(struct.pack(">hi", 1, -1)) is None
    assert postgresql.first_value(struct.pack(">h", 0)) is None
    with pytest.raises(ProbeFailed):
        postgresql.first_value(b"\0")


# Redis


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"+PONG\r\n", "PONG"),
        (b"-LOADING Redis is loading\r\n", "LOADING Redis is loading"),
        (b"$5\r\nhello\r\n", "hello"),
        (b"$0\r\n\r\n", ""),
    ],
)
def test_redis_replies(wire: bytes, reply: str) -> None:
    found = asyncio.run(redis.reply(fed(wire)))
    assert found == reply
    assert isinstance(found, redis.ErrorReply) == wire.startswith(b"-")


@pytest.mark.parametrize("wire", [b"", b"+PON", b"$99999999\r\n", b"$-1\r\n", b"*1\r\n", b"\xff\n"])
def test_redis_refuses_what_is_no_reply(wire: bytes) -> None:
    with pytest.raises(ProbeFailed):
        asyncio.run(redis.reply(fed(wire)))


def test_redis_commands_are_arrays_of_bulk_strings() -> None:
    assert redis.command("AUTH", "ü") == b"*2\r\n$4\r\nAUTH\r\n$2\r\n\xc3\xbc\r\n"


# AMQP


def test_amqp_tables_of_every_kind() -> None:
    fields = (
        b"\1sS" + amqp.long_string(b"text") + b"\1tt\1" + b"\1bb\xff" + b"\1BB\xff"
        b"\1ss\xff\xfe" + b"\1uu\xff\xff" + b"\1II" + struct.pack(">i", -3)
        + b"\1ll" + struct.pack(">q", -4) + b"\1dd" + struct.pack(">d", 0.5)
        + b"\1TT" + struct.pack(">Q", 9) + b"\1VV" + b"\1xx" + amqp.long_string(b"\0")
        + b"\1DD\0\0\0\0\1" + b"\1AA" + amqp.long_string(b"t\0t\1")
        + b"\1FF" + amqp.table({"in": True})
    )  # fmt: skip
    assert amqp.Reader(amqp.long_string(fields)).table() == {
        "s": -2, "t": True, "b": -1, "B": 255, "u": 65535, "I": -3, "l": -4, "d": 0.5, "T": 9,
        "V": None, "x": b"\0", "D": None, "A": [False, True], "F": {"in": True},
    }  # fmt: skip


def test_amqp_nested_without_end() -> None:
    inner = b""
    for _ in range(60):
        inner = b"\1F" + b"F" + amqp.long_string(inner)
    with pytest.raises(ProbeFailed):
        amqp.Reader(amqp.long_string(inner)).table()


@given(st.binary(max_size=80))
def test_amqp_garbage_is_a_failure_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(ProbeFailed):
        amqp.Reader(data).table()


def test_amqp_method_frames() -> None:
    assert amqp.method(40, amqp.short_string("/") + b"\0\0") == (
        b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x28\x01/\x00\x00\xce"
    )
    assert b"PLAIN" + amqp.long_string(b"\0u\0p") + b"\5en_US" in amqp.start_ok("u", "p")


# Kafka


def test_kafka_request_is_a_header_alone() -> None:
    request = kafka.request()
    size, key, version, _correlation, length = struct.unpack_from(">ihhih", request)
    assert (size, key, version) == (len(request) - 4, 18, 0)
    assert request[14:] == b"berth-probe" and length == 11


def _offers(*keys: int, error: int = 0, count: int | None = None) -> bytes:
    rows = b"".join(struct.pack(">hhh", key, 0, 9) for key in keys)
    return (
        struct.pack(">ihi", kafka.CORRELATION, error, len(keys) if count is None else count) + rows
    )


def test_kafka_answers() -> None:
    assert kafka.parse(_offers(0, 1, 18)) == {0: (0, 9), 1: (0, 9), 18: (0, 9)}
    for wrong in (
        b"",
        b"\0" * 10,
        _offers(0, error=35),
        _offers(0, count=5),
        _offers(0, count=-1),
        _offers(0, count=2**30),
    ):
        with pytest.raises(ProbeFailed):
            kafka.parse(wrong)


# HTTP


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("status", "ok"),
        ("checks[1].name", "disk"),
        ("checks.1.name", "disk"),
        ("$.checks[0].up", True),
        ("a.b", None),
        ("checks[9].name", None),
        ("status.more", None),
    ],
)
def test_json_paths(path: str, found: Any) -> None:
    document = {"status": "ok", "checks": [{"up": True}, {"name": "disk"}]}
    value = http.lookup(document, path)
    assert value == found if found is not None else value is http._MISSING


@pytest.mark.parametrize("path", ["", "$", "a..b", "a[x]", "a[", "]", "."])
def test_what_is_no_json_path(path: str) -> None:
    with pytest.raises(ValueError):
        http.split_path(path)


def test_json_equality() -> None:
    assert http.same(1, 1.0) and http.same([1], [1]) and http.same(None, None)
    assert not http.same(True, 1) and not http.same(1, True) and not http.same("1", 1)


@pytest.mark.parametrize("body", ["", "{", "[" * 100000, "nul", "\ud800"])
def test_what_is_no_json(body: str) -> None:
    with pytest.raises(ProbeFailed, match="not JSON"):
        http.check_json(body, (("a", 1),))


def test_json_numbers_without_end_cost_no_time() -> None:
    with pytest.raises(ProbeFailed, match="a is "):
        http.check_json('{"a": ' + "9" * 1000000 + "}", (("a", 1),))


def test_requests() -> None:
    def lines(**keys: Any) -> list[str]:
        probe = Probe(name="p", **{"type": "http", "port": 80, **keys})
        return http.request(probe).decode().split("\r\n")

    assert lines(path="/a?b=c")[0] == "GET /a?b=c HTTP/1.1"
    assert "Host: 127.0.0.1" in lines()
    assert "Host: 127.0.0.1:8080" in lines(port=8080)
    assert "Host: [::1]:8080" in lines(port=8080, address="::1")
    assert "Host: example.com" in lines(port=8080, host="example.com")
    assert "Host: example.com:81" in lines(port=8080, host="example.com:81")
    assert "Host: 127.0.0.1" in lines(type="https", port=443)
    assert "Authorization: Basic dTpw" in lines(user="u", password="p")
    own = lines(headers=(("user-agent", "mine"),))
    assert "user-agent: mine" in own and not any(line.startswith("User-Agent") for line in own)
    assert "Content-Length: 0" in lines(method="POST")


# systemd


def test_systemd_blocks_are_in_the_order_asked_for() -> None:
    output = "LoadState=loaded\nActiveState=active\n\nActiveState=inactive\nLoadState=not-found\n"
    states = systemd.parse(output, ["a.service", "b.service"])
    assert states["a.service"]["ActiveState"] == "active"
    assert states["b.service"] == {"ActiveState": "inactive", "LoadState": "not-found"}
    with pytest.raises(ProbeFailed):
        systemd.parse(output, ["a.service"])


ACTIVE = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "2"}


def test_systemd_healthy() -> None:
    detail = systemd.judge(ACTIVE, None)
    assert detail == {"active": "active", "sub": "running", "restarts": 2}
    assert systemd.judge(ACTIVE, 2)["restarts"] == 2


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"ActiveState": "inactive", "SubState": "dead"}, "inactive (dead)"),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"},
            "failed (failed), result exit-code",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"},
            "activating (auto-restart), result exit-code",
        ),
        ({"ActiveState": "inactive", "LoadState": "not-found"}, "no such unit"),
        ({"ActiveState": "inactive", "LoadState": "masked"}, "the unit is masked"),
        (
            {"ActiveState": "inactive", "SubState": "dead", "LoadState": "bad-setting"},
            "inactive (dead), unit file bad-setting",
        ),
    ],
)
def test_systemd_unhealthy(state: dict[str, str], error: str) -> None:
    with pytest.raises(ProbeFailed) as caught:
        systemd.judge({**ACTIVE, **state}, None)
    assert caught.value.message == error


def test_systemd_flapping() -> None:
    with pytest.raises(ProbeFailed, match="restarted 1 times between two looks"):
        systemd.judge(ACTIVE, 1)


# X.509


def test_x509_agrees_with_cryptography(tmp_path: Path) -> None:
    for names, days in (
        (("a.example.com", "*.b.example.com", "192.0.2.1", "2001:db8::1"), 30),
        ((), 0.5),
        (("x.example",), 365 * 60),
        (("x.example",), -0.5),
    ):
        issued = servers.issue(tmp_path, *names, days=days, common_name="Prüfling")
        found = x509.parse(issued.der)
        assert found.not_after == issued.certificate.not_valid_after_utc
        assert found.not_before == issued.certificate.not_valid_before_utc
        assert found.names == names
        assert (found.subject, found.issuer, found.self_signed) == ("Prüfling", "Prüfling", True)
        assert x509.days_left(found) == pytest.approx(days, abs=0.01)


def test_x509_of_the_systems_authorities() -> None:
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        pytest.skip("no bundle of authorities here")
    from cryptography.hazmat.primitives.serialization import Encoding

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        authorities = reference.load_pem_x509_certificates(bundle.read_bytes())
    for each in authorities:
        found = x509.parse(each.public_bytes(Encoding.DER))
        assert found.not_after == each.not_valid_after_utc
        assert found.self_signed == (each.subject == each.issuer)


@pytest.fixture(scope="module")
def der(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return servers.issue(tmp_path_factory.mktemp("der"), "a.example.com", "192.0.2.1").der


@given(data=st.data())
def test_x509_garbage_is_unreadable_and_nothing_else(der: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(der) - 1))
    changed = bytearray(der)
    changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(x509.CertificateUnreadable):
        x509.parse(bytes(changed))


@pytest.mark.parametrize("length", [b"\x80", b"\x85\0\0\0\0\1", b"\x84\xff\xff\xff\xff"])
def test_x509_lengths_that_der_does_not_have(length: bytes) -> None:
    with pytest.raises(x509.CertificateUnreadable):
        x509.parse(b"\x30" + length + b"\0" * 20)


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("a.example.com", True),
        ("A.EXAMPLE.com.", True),
        ("x.b.example.com", True),
        ("b.example.com", False),
        ("x.y.b.example.com", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("2001:DB8:0::1", True),
        ("host.com", False),
    ],
)
def test_x509_names(name: str, matches: bool) -> None:
    moment = datetime.datetime.now(datetime.timezone.utc)
    names = ("a.example.com", "*.b.example.com", "192.0.2.1", "2001:db8::1", "*.com")
    certificate = x509.Certificate("", "", moment, moment, names, False)
    assert x509.matches(certificate, name) is matches


# What may be said


def test_foreign_text_is_made_fit_for_a_line() -> None:
    assert clean("a\r\n\x1b[31mb\u2028c") == "a [31mb c"
    assert clean(b"\xff\xfeok") == "\ufffd\ufffdok"
    assert clean("x" * 500, 10) == "x" * 9 + "…"
    assert clean("see http://user:pw@host/x") == "see http://host/x"
    assert clean("\0\1") == "(unprintable)"
    assert clean("  ") == ""


def test_secrets_of_a_probe() -> None:
    probe = Probe(
        name="p",
        type="http",
        user="u",
        password="pw-canary",
        path="/x?api_key=key-canary&page=2",
        headers=(("Authorization", "Bearer bearer-canary"), ("Accept", "text/html")),
    )
    text = "pw-canary key-canary bearer-canary dTpwdy1jYW5hcnk= 2 text/html"
    assert redact({"a": [text]}, probe.secrets()) == {
        "a": ["(hidden) (hidden) (hidden) (hidden) 2 text/html"]
    }
    assert "canary" not in probe.target
