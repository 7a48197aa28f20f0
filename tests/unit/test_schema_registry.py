"""The schema registry's settings, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import schema_registry

REGISTRY: dict[str, Any] = {
    "address": "127.0.0.1",
    "port": 8081,
    "management_port": 8082,
    "brokers": ["10.0.0.5:9092", "[fd00::5]:9092"],
    "user": "schema-registry",
    "password": "hunter2",
    "topic": "_schemas",
    "compatibility": "BACKWARD",
    "data_directory": "/var/lib/schema-registry",
}
JAAS = "apicurio.kafka.common.sasl.jaas.config"


def settings(given: dict[str, Any] | None = None, **changed: Any) -> dict[str, str]:
    return schema_registry.settings({**REGISTRY, **changed}, given or {})


def faults(given: dict[str, Any] | None = None, heap: str = "512m", **changed: Any) -> str:
    return "\n".join(schema_registry.faults({**REGISTRY, **changed}, given or {}, heap))


def as_java_and_quarkus_read(value: str) -> str:
    """The value of a line of a properties file, then without the escapes of expressions."""
    out, rest = [], value
    while rest:
        step = 2 if rest[0] == "\\" else 1
        out.append(rest[step - 1])
        rest = rest[step:]
    text = "".join(out)
    return text.replace("\\$", "$")


def test_everything_is_in_its_own_topics_and_as_its_own_user() -> None:
    found = settings(topic="x", user="registry")
    assert found["apicurio.storage.kind"] == "kafkasql"
    assert found["apicurio.kafkasql.bootstrap.servers"] == "10.0.0.5:9092,[fd00::5]:9092"
    assert [
        found[f"apicurio.{key}"]
        for key in ("kafkasql.topic", "kafkasql.snapshots.topic", "events.kafka.topic")
    ] == ["x", "x-snapshots", "x-events"]
    assert found["apicurio.kafkasql.topic.auto-create"] == "false"
    assert found["apicurio.kafkasql.consumer.group-prefix"] == "registry-"


def test_management_is_on_loopback_wherever_it_listens() -> None:
    found = settings(address="0.0.0.0")
    assert found["quarkus.http.host"] == "0.0.0.0"
    assert found["quarkus.management.host"] == "127.0.0.1"


@pytest.mark.parametrize("password", ["plain", 'a"b', "a\\b", "${quarkus.uuid}", "\\]$$x", "\\${x"])
def test_a_password_arrives_as_it_is(password: str) -> None:
    line = as_java_and_quarkus_read(settings(password=password)[JAAS])
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    assert line.endswith(f'username="schema-registry" password="{quoted}";')


def test_given_settings_win_may_refer_and_null_leaves_out() -> None:
    given = {
        "quarkus.http.port": 99,
        "quarkus.log.console.format": None,
        "apicurio.app.name": "${user.name}",
        "quarkus.http.access-log.enabled": True,
    }
    found = settings(given)
    assert found["quarkus.http.port"] == "99"
    assert found["quarkus.http.access-log.enabled"] == "true"
    assert found["apicurio.app.name"] == "${user.name}"
    assert "quarkus.log.console.format" not in found


def test_what_is_right_has_no_fault() -> None:
    assert faults() == ""
    assert faults({'quarkus.log.category."org.apache".level': "INFO"}) == ""


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"brokers": []}, "schema_registry_kafka_brokers is empty"),
        ({"brokers": ["broker"]}, "'broker': write address:port"),
        ({"brokers": ["a:1,b:2"]}, "'a:1,b:2': write address:port"),
        ({"password": ""}, "schema_registry_kafka_password is empty"),
        ({"user": "a b"}, "schema_registry_kafka_user 'a b'"),
        ({"topic": ".."}, "schema_registry_topic '..'"),
        ({"management_port": 8081}, "schema_registry_management_port 8081"),
        ({"heap": "512"}, "schema_registry_heap '512'"),
        ({"given": {"a=b": 1}}, "'a=b' is no key"),
    ],
)
def test_a_fault_names_key_value_and_remedy(changed: dict[str, Any], fault: str) -> None:
    told = faults(**changed)
    assert fault in told
    assert "hunter2" not in told
