"""The broker as its services meet it: produce and consume, and what they are refused."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

# Molecule's pytest does not know the collection; its checkout is where Ansible finds it.
sys.path.insert(0, str(Path(__file__).parents[3] / ".work" / "collections"))

from ansible_collections.berth.platform.plugins.module_utils.kafka_protocol import (
    ALL_BROKERS,
    TOPIC,
    AuthenticationFailed,
    Connection,
    NotReachable,
    array,
    blob,
    int8,
    int16,
    int32,
    string,
)

ADMIN = 'admin-password-", \\]$'
PASSWORDS = {"sales": "sales-password", "payroll": "payroll-password", "admin": ADMIN}
TOPIC_AUTHORIZATION_FAILED = 29
TOOLS = "/opt/kafka/current/libs/*"


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def zigzag(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def batch(body: bytes) -> bytes:
    """A record batch (magic 2) of one record without a key."""
    now = int(time.time() * 1000)
    record = int8(0) + zigzag(0) + zigzag(0) + zigzag(-1) + zigzag(len(body)) + body + zigzag(0)
    record = zigzag(len(record)) + record
    counted = int16(0) + int32(0) + struct.pack(">qqqhi", now, now, -1, -1, -1) + int32(1) + record
    checked = int32(0) + int8(2) + struct.pack(">I", crc32c(counted)) + counted
    return struct.pack(">q", 0) + blob(checked)


def produce(connection: Connection, topic: str, body: str, partition: int = 0) -> int:
    """The error code; 0 once the record is written."""
    data = array([int32(partition) + blob(batch(body.encode()))])
    request = string(None) + int16(-1) + int32(10_000) + array([string(topic) + data])
    reader = connection.call(0, 3, request)
    codes: list[int] = []

    def one() -> None:
        reader.int32()
        codes.append(reader.int16())
        reader.int64(), reader.int64()

    reader.array(lambda: (reader.text(), reader.array(lambda: one())))
    return codes[0]


def fetch(connection: Connection, topic: str, partition: int = 0) -> tuple[int, bytes]:
    """The error code, and what is in the partition from its beginning on."""
    part = int32(partition) + struct.pack(">q", 0) + int32(1 << 20)
    request = int32(-1) + int32(2000) + int32(1) + int32(1 << 20) + int8(0)
    reader = connection.call(1, 4, request + array([string(topic) + array([part])]))
    reader.int32()
    found: list[tuple[int, bytes]] = []

    def one() -> None:
        reader.int32()
        code = reader.int16()
        reader.int64(), reader.int64()
        reader.array(lambda: (reader.int64(), reader.int64()))
        found.append((code, reader.blob()))

    reader.array(lambda: (reader.text(), reader.array(lambda: one())))
    return found[0]


def address_of(host: Any) -> str:
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture
def connect(host: Any) -> Callable[..., Connection]:
    address = address_of(host)

    def open_connection(user: str | None, password: str | None = None) -> Connection:
        return Connection(address, 9092, user, password or PASSWORDS.get(user or "", ""), 10)

    return open_connection


def eventually(ask: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.3)
    return True


def pid(host: Any) -> str:
    return str(host.check_output("systemctl show -P MainPID kafka"))


def test_a_service_produces_and_consumes(connect: Any) -> None:
    with connect("sales") as sales:
        assert produce(sales, "orders", "an order") == 0
        code, records = fetch(sales, "orders")
        assert (code, b"an order" in records) == (0, True)


def test_without_signing_in_nothing_is_answered(connect: Any) -> None:
    with pytest.raises(NotReachable), connect(None) as nobody:
        produce(nobody, "orders", "forged")


@pytest.mark.parametrize("user", ["sales", "nobody", "admin"])
def test_a_wrong_password_is_refused(connect: Any, user: str) -> None:
    with pytest.raises(AuthenticationFailed):
        connect(user, "wrong")


@pytest.mark.parametrize(("user", "topic"), [("sales", "payslips"), ("payroll", "orders")])
def test_anothers_topic_is_refused(connect: Any, user: str, topic: str) -> None:
    with connect(user) as service:
        assert produce(service, topic, "forged") == TOPIC_AUTHORIZATION_FAILED
        assert fetch(service, topic) == (TOPIC_AUTHORIZATION_FAILED, b"")
        assert topic not in service.cluster()[2]


def test_kafkas_own_tools_agree(host: Any) -> None:
    """With Kafka's client and group coordinator: what the tests' own protocol does not cover."""
    login = (
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config="
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="sales" password="sales-password";\n'
    )
    host.check_output(f"printf %s {quote(login)} > /tmp/client.properties")
    at = f"--bootstrap-server {address_of(host)}:9092"
    java = f"java -Xmx128m -cp '{TOOLS}' org.apache.kafka.tools.consumer.ConsoleConsumer {at}"
    told = "--command-config /tmp/client.properties"
    arguments = f"--topic orders --group sales-1 --from-beginning --max-messages 1 {told}"
    done = host.run(f"{java} {arguments} --timeout-ms 20000")
    assert "an order" in done.stdout, done.stdout + done.stderr


def test_topics_are_as_declared(connect: Any) -> None:
    with connect("admin") as admin:
        identity, brokers, topics = admin.cluster()
        assert (identity, brokers) == ("MkU3OEVBNTcwNTJENDM2Qk", 1)
        assert topics["orders"] == (3, 1)
        assert topics["payslips"] == (1, 1)
        found = admin.configs([(TOPIC, "orders"), (TOPIC, "payslips"), ALL_BROKERS])
        assert found[TOPIC, "orders"] == {"retention.ms": "3600000"}
        assert found[TOPIC, "payslips"] == {"cleanup.policy": "compact"}
        assert int(found[ALL_BROKERS]["log.retention.bytes"]) >= 64 << 20


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output("ss -Hltn").splitlines()
    listening = {line.split()[3].replace("[::ffff:", "").replace("]", "") for line in lines}
    kafka = {each for each in listening if not each.endswith(":22")}
    assert kafka == {f"{address_of(host)}:9092", "127.0.0.1:9094", "127.0.0.1:9093"}


def test_limits_are_those_of_the_process(host: Any) -> None:
    command = host.check_output(f"tr '\\0' ' ' < /proc/{pid(host)}/cmdline")
    assert "-Xmx384m" in command and "jmx" not in command
    assert "kafka" in host.check_output(f"ps -o user= -p {pid(host)}")


def test_secrets_are_for_the_broker_only(host: Any) -> None:
    for path in ("/etc/kafka/server.properties", "/etc/kafka/format"):
        file = host.file(path)
        assert (file.mode, file.user, file.group) == (0o640, "root", "kafka")
    assert host.file("/var/lib/kafka").mode == 0o750
    journal = host.check_output("journalctl --no-pager -b")
    for secret in ("sales-[p]assword", "payroll-[p]assword", "admin-[p]assword"):
        assert secret.replace("[p]", "p") not in journal
        found = host.run(f"grep -rlE -- '{secret}' /etc /var/lib/kafka /opt/kafka /var/log")
        expected = ["/etc/kafka/server.properties"] if "admin" in secret else []
        assert found.stdout.split() == expected


# --- what changes later ---------------------------------------------------------------------------


def variables() -> dict[str, Any]:
    return {
        "kafka_users": [
            {
                "name": "sales",
                "password": "another-password",
                "acls": [
                    {"resource": "topic", "name": "orders", "operations": ["read", "describe"]}
                ],
            }
        ],
        "kafka_topics": [
            {"name": "orders", "partitions": 5, "config": {"max.message.bytes": 65536}},
            {"name": "fresh"},
        ],
    }


def test_users_acls_and_topics_change_without_a_restart(
    host: Any, connect: Any, converge: Any
) -> None:
    before = pid(host)
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, **variables())
        assert done.returncode == 0, done.stdout
        for words in (
            "user sales: password changed",
            "user payroll: removed",
            "ACL User:sales may write topic orders: removed",
            "topic orders: partitions 3 -> 5",
            "topic orders: retention.ms 3600000 -> default",
            "topic orders: max.message.bytes default -> 65536",
            "topic fresh: added",
        ):
            assert words in done.stdout, done.stdout
        assert "another-password" not in done.stdout
        if arguments:
            with connect("payroll"):
                pass
    assert pid(host) == before
    with connect("sales", "another-password") as sales:
        assert b"an order" in fetch(sales, "orders")[1]
        assert produce(sales, "orders", "denied") == TOPIC_AUTHORIZATION_FAILED
        assert sales.cluster()[2]["orders"] == (5, 1)
    for user in ("sales", "payroll"):
        with pytest.raises(AuthenticationFailed):
            connect(user)
    with connect("admin") as admin:
        assert admin.configs([(TOPIC, "orders")]) == {
            (TOPIC, "orders"): {"max.message.bytes": "65536"}
        }
        assert "payslips" in admin.cluster()[2], "no topic is ever removed"


def test_bad_settings_are_refused_and_the_broker_stays(host: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(**variables(), kafka_settings={"log.retention.hours": "many"})
    assert done.returncode != 0
    assert "for configuration log.retention.hours: Not a number" in " ".join(done.stdout.split())
    assert "many" not in host.file("/etc/kafka/server.properties").content_string
    assert pid(host) == before


def test_another_heap_restarts_and_data_stays(host: Any, connect: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(**variables(), kafka_heap="320m")
    assert done.returncode == 0, done.stdout
    assert pid(host) != before
    assert "-Xmx320m" in host.check_output(f"tr '\\0' ' ' < /proc/{pid(host)}/cmdline")
    with connect("sales", "another-password") as sales:
        assert eventually(lambda: b"an order" in fetch(sales, "orders")[1])
    again = converge(**variables(), kafka_heap="320m")
    assert "changed=0" in again.stdout, again.stdout


def test_another_clusters_id_changes_nothing(host: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(**variables(), kafka_heap="320m", kafka_cluster_id="AAAAAAAAAAAAAAAAAAAAAQ")
    assert done.returncode != 0
    assert "this is cluster MkU3OEVBNTcwNTJENDM2Qk" in done.stdout.replace("\n", " "), done.stdout
    assert pid(host) == before


def test_bad_input_is_told_at_once(converge: Any) -> None:
    done = converge(kafka_topics=[{"name": "orders", "replication": 3}], kafka_cluster_id="short")
    assert done.returncode != 0
    assert "give at most the number of brokers, 1" in " ".join(done.stdout.split()), done.stdout
    assert "kafka_cluster_id" in done.stdout


def test_nothing_is_formatted_where_the_data_is_not_mounted(host: Any) -> None:
    host.check_output("systemctl stop kafka")
    host.check_output("mv /var/lib/kafka/meta.properties /tmp/")
    done = host.run("systemctl start kafka")
    assert done.rc != 0 and "Assertion failed" in done.stderr, done.stderr
