# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of Kafka's protocol as its users, ACLs and topics need (https://kafka.apache.org/protocol).

Of every request the newest version without tagged fields (KIP-482), which brokers from 3.0 to 4.x
answer; only the two for SCRAM users know no other. A call costs milliseconds where Kafka's own
tools start a JVM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ansible_collections.berth.platform.plugins.module_utils.probe.scram import saslprep

T = TypeVar("T")

METADATA, SASL_HANDSHAKE, CREATE_TOPICS = 3, 17, 19
DESCRIBE_ACLS, CREATE_ACLS, DELETE_ACLS, DESCRIBE_CONFIGS = 29, 30, 31, 32
SASL_AUTHENTICATE, CREATE_PARTITIONS, INCREMENTAL_ALTER_CONFIGS = 36, 37, 44
DESCRIBE_SCRAM, ALTER_SCRAM = 50, 51

MECHANISM = "SCRAM-SHA-512"
# Its number in the two requests for SCRAM users (KIP-554).
MECHANISM_NUMBER = 2
ITERATIONS = 8192
ITERATIONS_LIMIT = 1_000_000
RESPONSE_LIMIT = 64 * 1024 * 1024
CLIENT = "berth"
TOPIC, BROKER = 2, 4
# Where a value comes from (DescribeConfigs): set for the topic, set for all brokers at run time.
DYNAMIC_TOPIC_CONFIG, DYNAMIC_DEFAULT_BROKER_CONFIG = 1, 3
Resource = tuple[int, str]
# The brokers' common settings have the empty name.
ALL_BROKERS: Resource = (BROKER, "")
OPERATION_TIMEOUT_MS = 20_000

ERRORS = {
    3: "unknown topic or partition",
    7: "the request timed out",
    29: "topic authorization failed",
    30: "group authorization failed",
    31: "cluster authorization failed",
    36: "the topic exists already",
    37: "invalid number of partitions",
    38: "invalid replication factor",
    40: "invalid config",
    41: "not the controller",
    54: "security is disabled (no authorizer)",
    58: "authentication failed",
    91: "no such user",
}


class KafkaError(Exception):
    """Kafka refused, or did not answer as Kafka does. Never holds a password."""


class NotReachable(KafkaError):
    """Nobody listens there, or the connection broke."""


class AuthenticationFailed(KafkaError):
    """User or password is wrong."""


@dataclass(frozen=True, order=True)
class Acl:
    """One rule in the protocol's numbers (AclOperation, ResourceType and so on of Kafka)."""

    resource_type: int
    resource_name: str
    pattern: int
    principal: str
    host: str
    operation: int
    permission: int


@dataclass(frozen=True)
class Topic:
    """A topic as the cluster has it; config holds what was set for the topic itself."""

    partitions: int
    replication: int
    config: dict[str, str]


# --- bytes ----------------------------------------------------------------------------------------


def int8(value: int) -> bytes:
    return struct.pack(">b", value)


def int16(value: int) -> bytes:
    return struct.pack(">h", value)


def int32(value: int) -> bytes:
    return struct.pack(">i", value)


def string(value: str | None) -> bytes:
    """STRING, or NULLABLE_STRING."""
    if value is None:
        return int16(-1)
    data = value.encode()
    return int16(len(data)) + data


def blob(value: bytes) -> bytes:
    return int32(len(value)) + value


def array(items: list[bytes] | None) -> bytes:
    return int32(-1) if items is None else int32(len(items)) + b"".join(items)


def varint(value: int) -> bytes:
    """UNSIGNED_VARINT."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def compact(value: bytes) -> bytes:
    """COMPACT_STRING and COMPACT_BYTES."""
    return varint(len(value) + 1) + value


def compact_array(items: list[bytes]) -> bytes:
    return varint(len(items) + 1) + b"".join(items)


class Reader:
    """Takes values off a response; anything cut short is an error in words."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def raw(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._data):
            raise KafkaError("the answer is malformed")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, form: str, size: int) -> int:
        return int(struct.unpack(form, self.raw(size))[0])

    def int8(self) -> int:
        return self._number(">b", 1)

    def int16(self) -> int:
        return self._number(">h", 2)

    def int32(self) -> int:
        return self._number(">i", 4)

    def int64(self) -> int:
        return self._number(">q", 8)

    def bool(self) -> bool:
        return self.int8() != 0

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise KafkaError("the answer is malformed") from None

    def string(self) -> str | None:
        size = self.int16()
        return None if size < 0 else self._text(self.raw(size))

    def text(self) -> str:
        return self.string() or ""

    def blob(self) -> bytes:
        size = self.int32()
        return b"" if size < 0 else self.raw(size)

    def array(self, item: Callable[[], T]) -> list[T]:
        return [item() for _each in range(self.int32())]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise KafkaError("the answer is malformed")

    def compact(self) -> str | None:
        size = self.varint()
        return None if size == 0 else self._text(self.raw(size - 1))

    def compact_array(self, item: Callable[[], T]) -> list[T]:
        return [item() for _each in range(self.varint() - 1)]

    def tags(self) -> None:
        for _each in range(self.varint()):
            self.varint()
            self.raw(self.varint())


def refuse(code: int, message: str | None, what: str) -> None:
    """Raise for an error code that is not 0."""
    if code:
        words = ERRORS.get(code, f"error code {code}")
        raise KafkaError(f"{what}: {words}{f' ({message})' if message else ''}")


# --- SCRAM-SHA-512 --------------------------------------------------------------------------------


def salted_password(password: str, salt: bytes, iterations: int = ITERATIONS) -> bytes:
    """RFC 5802's SaltedPassword."""
    return hashlib.pbkdf2_hmac("sha512", saslprep(password).encode(), salt, iterations)


class Scram:
    """The client's side of RFC 5802 with SHA-512, without channel binding."""

    def __init__(self, user: str, password: str, nonce: str) -> None:
        self._password = password
        self._nonce = nonce
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        given = _attributes(server_first)
        try:
            salt = base64.b64decode(given["s"], validate=True)
            iterations = int(given["i"])
        except (KeyError, ValueError, binascii.Error):
            raise KafkaError("a malformed SCRAM message") from None
        nonce = given.get("r", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise KafkaError("the broker did not extend the nonce")
        if not salt or not 1 <= iterations <= ITERATIONS_LIMIT:
            raise KafkaError("a malformed SCRAM message")
        salted = salted_password(self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha512")
        bare = f"c=biws,r={nonce}"
        message = b",".join([self._bare.encode(), server_first, bare.encode()])
        stored = hashlib.sha512(client_key).digest()
        pad = hmac.digest(stored, message, "sha512")
        proof = bytes(a ^ b for a, b in zip(client_key, pad, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha512")
        self._signature = hmac.digest(server_key, message, "sha512")
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Raise unless the broker knows the password, too."""
        expected = base64.b64encode(self._signature).decode()
        if not hmac.compare_digest(_attributes(server_final).get("v", ""), expected):
            raise KafkaError("the broker did not prove that it knows the password")


def _attributes(message: bytes) -> dict[str, str]:
    parts = message.decode("utf-8", "replace").split(",")
    return dict(part.partition("=")[::2] for part in parts)


# --- the connection -------------------------------------------------------------------------------


class Connection:
    """A connection to one broker, authenticated if a user is given."""

    def __init__(
        self,
        address: str,
        port: int,
        user: str | None = None,
        password: str = "",
        timeout: float = 30,
    ) -> None:
        self._correlation = 0
        try:
            self._socket = socket.create_connection((address, port), timeout)
        except OSError as error:
            raise NotReachable(f"{address}:{port}: {error}") from None
        try:
            if user is not None:
                self._authenticate(user, password)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, key: int, version: int, body: bytes, *, tagged: bool = False) -> Reader:
        """Send one request and read its answer, both with the headers of that kind."""
        self._correlation += 1
        header = int16(key) + int16(version) + int32(self._correlation) + string(CLIENT)
        frame = header + (b"\0" if tagged else b"") + body
        try:
            self._socket.sendall(blob(frame))
            (size,) = struct.unpack(">i", self._exactly(4))
            if not 4 <= size <= RESPONSE_LIMIT:
                raise KafkaError("not a Kafka answer")
            reader = Reader(self._exactly(size))
        except OSError as error:
            raise NotReachable(str(error)) from None
        if reader.int32() != self._correlation:
            raise KafkaError("the answer is to another request")
        if tagged:
            reader.tags()
        return reader

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 1 << 16))
            if not part:
                raise NotReachable("the broker closed the connection")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _authenticate(self, user: str, password: str) -> None:
        reader = self.call(SASL_HANDSHAKE, 1, string(MECHANISM))
        refuse(reader.int16(), None, f"the listener does not offer {MECHANISM}")
        scram = Scram(user, password, base64.b64encode(os.urandom(24)).decode())
        scram.verify(self._token(scram.final(self._token(scram.first()))))

    def _token(self, token: bytes) -> bytes:
        reader = self.call(SASL_AUTHENTICATE, 1, blob(token))
        code, message, answer = reader.int16(), reader.string(), reader.blob()
        if code == 58:
            raise AuthenticationFailed("authentication failed")
        refuse(code, message, "authentication")
        return answer

    # --- what is there ---

    def cluster(self) -> tuple[str, int, dict[str, tuple[int, int]]]:
        """The cluster's id, how many brokers it has, and of each topic partitions and replicas."""
        reader = self.call(METADATA, 7, array(None) + b"\0")
        reader.int32()

        def broker() -> None:
            reader.int32(), reader.text(), reader.int32(), reader.string()

        def partition() -> tuple[int, int]:
            _error, number, _leader, _epoch = (
                reader.int16(),
                reader.int32(),
                reader.int32(),
                reader.int32(),
            )
            replicas = len(reader.array(reader.int32))
            reader.array(reader.int32), reader.array(reader.int32)
            return number, replicas

        def topic() -> tuple[str, tuple[int, int]]:
            reader.int16()
            name = reader.text()
            reader.bool()
            partitions = reader.array(partition)
            replicas = max((each for _number, each in partitions), default=0)
            return name, (len(partitions), replicas)

        brokers = len(reader.array(broker))
        identity = reader.text()
        reader.int32()
        return identity, brokers, dict(reader.array(topic))

    def configs(self, resources: list[Resource]) -> dict[Resource, dict[str, str]]:
        """What was set for each topic, or for all brokers, without the defaults."""
        wanted = [int8(kind) + string(name) + array(None) for kind, name in resources]
        reader = self.call(DESCRIBE_CONFIGS, 1, array(wanted) + b"\0")
        reader.int32()

        def entry() -> tuple[str, str, int]:
            name, value = reader.text(), reader.text()
            _read_only, source, _sensitive = reader.bool(), reader.int8(), reader.bool()
            reader.array(lambda: (reader.text(), reader.string(), reader.int8()))
            return name, value, source

        def resource() -> tuple[Resource, dict[str, str]]:
            code, message = reader.int16(), reader.string()
            kind, name = reader.int8(), reader.text()
            entries = reader.array(entry)
            refuse(code, message, f"config of {_called(kind, name)}")
            own = DYNAMIC_TOPIC_CONFIG if kind == TOPIC else DYNAMIC_DEFAULT_BROKER_CONFIG
            return (kind, name), {key: value for key, value, source in entries if source == own}

        return dict(reader.array(resource))

    def acls(self) -> set[Acl]:
        """All rules."""
        any_of_all = (
            int8(1) + string(None) + int8(1) + string(None) + string(None) + int8(1) + int8(1)
        )
        reader = self.call(DESCRIBE_ACLS, 1, any_of_all)
        reader.int32()
        refuse(reader.int16(), reader.string(), "reading the ACLs")

        def resource() -> list[Acl]:
            kind, name, pattern = reader.int8(), reader.text(), reader.int8()
            return reader.array(
                lambda: Acl(
                    kind,
                    name,
                    pattern,
                    reader.text(),
                    reader.text(),
                    reader.int8(),
                    reader.int8(),
                )
            )

        return {acl for found in reader.array(resource) for acl in found}

    def users(self) -> set[str]:
        """The users that have a password for our mechanism."""
        reader = self.call(DESCRIBE_SCRAM, 0, b"\0\0", tagged=True)
        reader.int32()
        refuse(reader.int16(), reader.compact(), "reading the users")

        def mechanism() -> int:
            number, _iterations = reader.int8(), reader.int32()
            reader.tags()
            return number

        def user() -> tuple[str, list[int]]:
            name = reader.compact() or ""
            code, message = reader.int16(), reader.compact()
            mechanisms = reader.compact_array(mechanism)
            reader.tags()
            refuse(code, message, f"user {name}")
            return name, mechanisms

        found = reader.compact_array(user)
        return {name for name, mechanisms in found if MECHANISM_NUMBER in mechanisms}

    # --- what is changed ---

    def alter_users(self, passwords: dict[str, str], remove: list[str]) -> None:
        """Give users their passwords, which the broker never sees, and remove others."""
        gone = [compact(name.encode()) + int8(MECHANISM_NUMBER) + b"\0" for name in remove]
        upserts = []
        for name, password in passwords.items():
            salt = os.urandom(24)
            upserts.append(
                compact(name.encode())
                + int8(MECHANISM_NUMBER)
                + int32(ITERATIONS)
                + compact(salt)
                + compact(salted_password(password, salt))
                + b"\0"
            )
        body = compact_array(gone) + compact_array(upserts) + b"\0"
        reader = self.call(ALTER_SCRAM, 0, body, tagged=True)
        reader.int32()

        def result() -> tuple[str, int, str | None]:
            found = reader.compact() or "", reader.int16(), reader.compact()
            reader.tags()
            return found

        for name, code, message in reader.compact_array(result):
            refuse(code, message, f"user {name}")

    def create_acls(self, acls: list[Acl]) -> None:
        reader = self.call(CREATE_ACLS, 1, array([_acl(acl) for acl in acls]))
        reader.int32()
        results = reader.array(lambda: (reader.int16(), reader.string()))
        for acl, (code, message) in zip(acls, results, strict=True):
            refuse(code, message, f"ACL of {acl.principal} on {acl.resource_name}")

    def delete_acls(self, acls: list[Acl]) -> None:
        reader = self.call(DELETE_ACLS, 1, array([_acl(acl) for acl in acls]))
        reader.int32()

        def result() -> tuple[int, str | None]:
            code, message = reader.int16(), reader.string()
            reader.array(
                lambda: (
                    reader.int16(),
                    reader.string(),
                    reader.int8(),
                    reader.text(),
                    reader.int8(),
                    reader.text(),
                    reader.text(),
                    reader.int8(),
                    reader.int8(),
                )
            )
            return code, message

        for acl, (code, message) in zip(acls, reader.array(result), strict=True):
            refuse(code, message, f"removing the ACL of {acl.principal} on {acl.resource_name}")

    def create_topics(self, topics: dict[str, Topic]) -> None:
        items = [
            string(name)
            + int32(topic.partitions)
            + int16(topic.replication)
            + array([])
            + array([string(key) + string(value) for key, value in topic.config.items()])
            for name, topic in topics.items()
        ]
        reader = self.call(CREATE_TOPICS, 4, array(items) + int32(OPERATION_TIMEOUT_MS) + b"\0")
        reader.int32()
        for name, code, message in reader.array(
            lambda: (reader.text(), reader.int16(), reader.string())
        ):
            refuse(code, message, f"topic {name}")

    def create_partitions(self, counts: dict[str, int]) -> None:
        items = [string(name) + int32(count) + array(None) for name, count in counts.items()]
        body = array(items) + int32(OPERATION_TIMEOUT_MS) + b"\0"
        reader = self.call(CREATE_PARTITIONS, 1, body)
        reader.int32()
        for name, code, message in reader.array(
            lambda: (reader.text(), reader.int16(), reader.string())
        ):
            refuse(code, message, f"partitions of topic {name}")

    def alter_configs(self, configs: dict[Resource, dict[str, str | None]]) -> None:
        """Set what has a value and return what has none to the broker's default."""
        items = [
            int8(kind)
            + string(name)
            + array(
                [
                    string(key) + int8(1 if value is None else 0) + string(value)
                    for key, value in config.items()
                ]
            )
            for (kind, name), config in configs.items()
        ]
        reader = self.call(INCREMENTAL_ALTER_CONFIGS, 0, array(items) + b"\0")
        reader.int32()
        for code, message, kind, name in reader.array(
            lambda: (reader.int16(), reader.string(), reader.int8(), reader.text())
        ):
            refuse(code, message, f"config of {_called(kind, name)}")


def _called(kind: int, name: str) -> str:
    return f"topic {name}" if kind == TOPIC else "the brokers"


def _acl(acl: Acl) -> bytes:
    """The same bytes create a rule and, as a filter, match that very rule."""
    return (
        int8(acl.resource_type)
        + string(acl.resource_name)
        + int8(acl.pattern)
        + string(acl.principal)
        + string(acl.host)
        + int8(acl.operation)
        + int8(acl.permission)
    )


def signs_in(address: str, port: int, user: str, password: str, timeout: float = 30) -> bool:
    """Whether this is the user's password."""
    try:
        with Connection(address, port, user, password, timeout):
            return True
    except AuthenticationFailed:
        return False
