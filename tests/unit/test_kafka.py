"""Kafka's settings and objects, and its protocol as bytes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from ansible_collections.berth.platform.plugins.module_utils import kafka
from ansible_collections.berth.platform.plugins.module_utils import kafka_protocol as protocol
from ansible_collections.berth.platform.plugins.module_utils.kafka_protocol import (
    ALL_BROKERS,
    TOPIC,
    Acl,
    AuthenticationFailed,
    Connection,
    KafkaError,
    NotReachable,
    Reader,
    Scram,
    Topic,
)

READ = Acl(2, "orders", 3, "User:sales", "*", 3, 3)
WRITE = Acl(2, "orders", 3, "User:sales", "*", 4, 3)


class TestHeap:
    @pytest.mark.parametrize(
        ("memory", "expected"),
        [(512, "256m"), (4096, "1024m"), (16384, "4096m"), (262144, "6144m")],
    )
    def test_a_quarter_within_bounds(self, memory: int, expected: str) -> None:
        assert kafka.heap(memory) == expected

    def test_what_is_given_wins(self) -> None:
        assert kafka.heap(4096, "2G") == "2g"

    @pytest.mark.parametrize("given", ["2", "0m", "2gb", "-Xmx2g"])
    def test_what_java_does_not_take_is_refused(self, given: str) -> None:
        with pytest.raises(kafka.KafkaFault, match="512m or 4g"):
            kafka.heap(4096, given)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("C:\\x", "C:\\\\x"),
        (" a b", "\\ a b"),
        ("a\nb", "a\\nb"),
        ("ü", "\\u00fc"),
        ("😀", "\\ud83d\\ude00"),
    ],
)
def test_a_value_is_escaped_as_java_reads_it(value: str, expected: str) -> None:
    assert kafka.property_value(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("MkU3OEVBNTcwNTJENDM2Qk", True),
        ("AAAAAAAAAAAAAAAAAAAAAQ", True),
        ("", False),
        ("MkU3OEVBNTcwNTJENDM2Qk==", False),
        ("MkU3OEVBNTcwNTJENDM2Q!", False),
        ("-kU3OEVBNTcwNTJENDM2Qk", False),
    ],
)
def test_a_cluster_id_is_a_uuid(value: str, expected: bool) -> None:
    assert kafka.is_cluster_id(value) is expected


def test_the_password_is_only_formatted_salted() -> None:
    arguments = kafka.format_arguments("ID", "/conf", "admin", 'se,cr]"et')
    assert 'se,cr]"et' not in " ".join(arguments)
    found = dict(
        part.split("=", 1)
        for part in arguments[-1].removeprefix("SCRAM-SHA-512=[").removesuffix("]").split(",")
    )
    salt = base64.b64decode(found["salt"].strip('"'))
    salted = hashlib.pbkdf2_hmac("sha512", b'se,cr]"et', salt, int(found["iterations"]))
    assert base64.b64decode(found["saltedpassword"].strip('"')) == salted
    assert arguments == kafka.format_arguments("ID", "/conf", "admin", 'se,cr]"et')


def test_the_controllers_password_is_derived() -> None:
    first = kafka.controller_password("secret")
    assert first == kafka.controller_password("secret") != kafka.controller_password("Secret")
    assert "secret" not in first


class TestRetention:
    def test_all_partitions_fit_in_their_share(self) -> None:
        topics = {"a": Topic(3, 3, {}), "b": Topic(1, 3, {})}
        assert kafka.retention_bytes(100 << 30, topics, 3) == 15 << 30

    def test_a_small_disk_keeps_something(self) -> None:
        assert kafka.retention_bytes(1 << 20, {}, 1) == 64 << 20


class TestWanted:
    def test_rules_of_a_user(self) -> None:
        rule = {"resource": "topic", "name": "orders", "operations": ["read", "write"]}
        assert kafka.wanted_acls([{"name": "sales", "acls": [rule]}]) == {READ, WRITE}

    def test_the_cluster_has_its_own_name(self) -> None:
        rule = {"resource": "cluster", "operations": ["idempotent_write"]}
        (acl,) = kafka.wanted_acls([{"name": "x", "acls": [rule]}])
        assert (acl.resource_type, acl.resource_name) == (4, "kafka-cluster")

    def test_a_rule_without_a_name_is_refused(self) -> None:
        rule = {"resource": "topic", "operations": ["read"]}
        with pytest.raises(kafka.KafkaFault, match="user x: an ACL on a topic needs its name"):
            kafka.wanted_acls([{"name": "x", "acls": [rule]}])

    def test_a_topic_has_as_many_replicas_as_it_can(self) -> None:
        found = kafka.wanted_topics([{"name": "a", "config": {"x": True, "y": None}}], 2)
        assert found == {"a": Topic(1, 2, {"x": "true"})}
        assert kafka.wanted_topics([{"name": "a"}], 5)["a"].replication == 3


def compare(
    actual: kafka.State,
    users: tuple[str, ...] = (),
    acls: tuple[Acl, ...] = (),
    topics: dict[str, Topic] | None = None,
    broker: dict[str, str] | None = None,
    remove: tuple[str, ...] = ("users", "acls"),
) -> kafka.Changes:
    return kafka.difference(
        users, acls, topics or {}, broker or {}, actual, keep_users=["admin"], remove=remove
    )


class TestDifference:
    def test_nothing_due(self) -> None:
        topics = {"orders": Topic(3, 1, {"a": "1"})}
        state = kafka.State(
            {"admin": False, "sales": True}, frozenset([READ]), topics, {"r": "1", "other": "2"}
        )
        assert not compare(state, ("sales",), (READ,), topics, {"r": "1"}).changed

    def test_users(self) -> None:
        state = kafka.State({"admin": False, "old": False, "sales": False})
        change = compare(state, ("new", "sales"))
        assert change.words == [
            "user new: added",
            "user sales: password changed",
            "user old: removed",
        ]
        assert (change.passwords, change.gone_users) == (["new", "sales"], ["old"])

    def test_what_is_not_to_be_removed_stays(self) -> None:
        state = kafka.State({"old": False}, frozenset([READ]))
        assert not compare(state, remove=()).changed

    def test_acls(self) -> None:
        change = compare(kafka.State(acls=frozenset([READ])), acls=(WRITE,))
        assert change.words == [
            "ACL User:sales may write topic orders: added",
            "ACL User:sales may read topic orders: removed",
        ]

    def test_topics(self) -> None:
        state = kafka.State(topics={"a": Topic(2, 1, {"x": "1", "y": "1"})})
        change = compare(state, topics={"a": Topic(4, 1, {"x": "2"}), "b": Topic(1, 1, {})})
        assert change.partitions == {"a": 4}
        assert change.configs == {(TOPIC, "a"): {"x": "2", "y": None}}
        assert list(change.new_topics) == ["b"]
        assert "topic a: y 1 -> default" in change.words

    def test_what_kafka_cannot_do_is_a_warning(self) -> None:
        state = kafka.State(topics={"a": Topic(4, 3, {})})
        change = compare(state, topics={"a": Topic(2, 1, {})})
        assert not change.changed
        assert [words.split(",")[0] for words in change.warnings] == [
            "topic a has 4 partitions",
            "topic a has 3 replicas",
        ]

    def test_the_brokers_other_settings_stay(self) -> None:
        change = compare(kafka.State(broker={"other": "1"}), broker={"r": "2"})
        assert change.configs == {ALL_BROKERS: {"r": "2"}}
        assert change.words == ["brokers: r default -> 2"]


class TestBytes:
    @pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 1 << 20])
    def test_a_varint_is_read_as_written(self, number: int) -> None:
        assert Reader(protocol.varint(number)).varint() == number

    def test_strings_are_read_as_written(self) -> None:
        assert Reader(protocol.string("ü")).string() == "ü"
        assert Reader(protocol.string(None)).string() is None
        assert Reader(protocol.compact("ü".encode())).compact() == "ü"

    @pytest.mark.parametrize("data", [b"", b"\0", b"\0\5ab", b"\0\1a", b"\0\2\xff\xff"])
    def test_what_is_cut_short_is_an_error(self, data: bytes) -> None:
        with pytest.raises(KafkaError, match="malformed"):
            reader = Reader(data)
            reader.text()
            reader.int32()

    def test_a_varint_without_end_is_an_error(self) -> None:
        with pytest.raises(KafkaError, match="malformed"):
            Reader(b"\xff" * 9).varint()

    def test_an_error_code_is_told_in_words(self) -> None:
        with pytest.raises(KafkaError, match=r"topic a: the topic exists already \(why\)"):
            protocol.refuse(36, "why", "topic a")
        protocol.refuse(0, None, "topic a")


class Broker:
    """The other side of SCRAM, written from RFC 5802 and not from the client."""

    def __init__(self, password: str, *, honest: bool = True, nonce: str = "server") -> None:
        self.password, self.honest, self.nonce = password.encode(), honest, nonce
        self.salt = b"0123456789abcdef"

    def first(self, client_first: bytes) -> bytes:
        self.bare = client_first.removeprefix(b"n,,")
        given = self.bare.split(b"r=", 1)[1].decode()
        salt = base64.b64encode(self.salt).decode()
        self.message = f"r={given}{self.nonce},s={salt},i=4096".encode()
        return self.message

    def final(self, client_final: bytes) -> bytes | None:
        without, proof = client_final.rsplit(b",p=", 1)
        auth = b",".join([self.bare, self.message, without])
        salted = hashlib.pbkdf2_hmac("sha512", self.password, self.salt, 4096)
        stored = hashlib.sha512(hmac.digest(salted, b"Client Key", "sha512")).digest()
        pad = hmac.digest(stored, auth, "sha512")
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), pad, strict=True))
        if hashlib.sha512(key).digest() != stored:
            return None
        own = hmac.digest(salted, b"Server Key" if self.honest else b"forged", "sha512")
        return b"v=" + base64.b64encode(hmac.digest(own, auth, "sha512"))


class TestScram:
    def test_both_sides_agree(self) -> None:
        broker, client = Broker("secret"), Scram("sa,les", "secret", "nonce")
        answer = broker.final(client.final(broker.first(client.first())))
        assert answer is not None and broker.bare.startswith(b"n=sa=2Cles,")
        client.verify(answer)

    def test_a_broker_that_does_not_know_the_password_is_not_believed(self) -> None:
        broker, client = Broker("secret", honest=False), Scram("sales", "secret", "nonce")
        answer = broker.final(client.final(broker.first(client.first())))
        with pytest.raises(KafkaError, match="did not prove"):
            client.verify(answer or b"")

    @pytest.mark.parametrize(
        "message", [b"", b"r=nonceX,s=?,i=1", b"r=nonceX,s=AAAA,i=99999999", b"r=nonceX,s=AAAA,i=0"]
    )
    def test_a_malformed_challenge_is_an_error(self, message: bytes) -> None:
        with pytest.raises(KafkaError, match="malformed"):
            Scram("sales", "secret", "nonce").final(message)

    @pytest.mark.parametrize("nonce", [b"nonce", b"other"])
    def test_a_nonce_that_is_not_extended_is_an_error(self, nonce: bytes) -> None:
        with pytest.raises(KafkaError, match="nonce"):
            Scram("sales", "secret", "nonce").final(b"r=" + nonce + b",s=AAAA,i=4096")


@contextmanager
def served(answer: Callable[[int, bytes], bytes | None]) -> Iterator[int]:
    """A port where each request of a connection gets the answer to its key and body."""
    listener = socket.create_server(("127.0.0.1", 0))

    def exactly(stream: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = stream.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def serve() -> None:
        try:
            stream, _ = listener.accept()
            with stream:
                while True:
                    frame = exactly(stream, int.from_bytes(exactly(stream, 4), "big"))
                    body = answer(int.from_bytes(frame[:2], "big"), frame)
                    if body is None:
                        return
                    stream.sendall(protocol.blob(frame[4:8] + body))
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
        thread.join(5)


class TestConnection:
    def test_signing_in(self) -> None:
        broker = Broker("secret")

        def answer(key: int, frame: bytes) -> bytes | None:
            if key == protocol.SASL_HANDSHAKE:
                return protocol.int16(0) + protocol.array([protocol.string(protocol.MECHANISM)])
            token = frame[frame.index(b"berth") + 5 + 4 :]
            said = broker.first(token) if token.startswith(b"n,,") else broker.final(token)
            code = 0 if said else 58
            parts = [protocol.int16(code), protocol.string(None), protocol.blob(said or b"")]
            return b"".join(parts) + b"\0" * 8

        with served(answer) as port:
            assert protocol.signs_in("127.0.0.1", port, "sales", "secret", 5)
        with served(answer) as port, pytest.raises(AuthenticationFailed) as refused:
            Connection("127.0.0.1", port, "sales", "wr0ng", 5)
        assert "wr0ng" not in str(refused.value)

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(NotReachable):
            Connection("127.0.0.1", port, timeout=2)

    def test_a_connection_that_is_closed_is_not_reachable(self) -> None:
        with (
            served(lambda _key, _frame: None) as port,
            Connection("127.0.0.1", port, timeout=5) as connection,
            pytest.raises(NotReachable, match="closed"),
        ):
            connection.cluster()
