"""The Kafka UI's settings, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import kafka_ui

NODE: dict[str, Any] = {
    "address": "127.0.0.1",
    "port": 8090,
    "path": "/kafka-ui",
    "brokers": ["10.0.0.5:9092", "10.0.0.6:9092"],
    "user": "kafka-ui",
    "password": "hunter2",
    "schema_registry": "",
    "heap": "256m",
}


def settings(given: dict[str, Any] | None = None, **changed: Any) -> dict[str, str]:
    return kafka_ui.settings({**NODE, **changed}, given or {})


def faults(given: dict[str, Any] | None = None, **changed: Any) -> str:
    return "\n".join(kafka_ui.faults({**NODE, **changed}, given or {}))


def test_it_only_shows() -> None:
    found = settings()
    for key in ("topic.createEnabled", "topic.deleteEnabled", "cors.enabled"):
        assert found[key] == "false"
    assert found["kafka.brokerConnect"] == "10.0.0.5:9092,10.0.0.6:9092"
    assert "schemaregistry.connect" not in found
    assert "hunter2" not in str(found)


def test_health_is_on_the_same_port() -> None:
    found = settings(port=99)
    assert found["server.port"] == found["management.server.port"] == "99"


def test_path_and_registry_are_taken() -> None:
    found = settings(path="", schema_registry="http://127.0.0.1:8081/apis/ccompat/v7")
    assert found["server.servlet.context-path"] == "/"
    assert found["schemaregistry.connect"] == "http://127.0.0.1:8081/apis/ccompat/v7"


def test_given_settings_win_and_null_leaves_out() -> None:
    found = settings({"topic.createEnabled": True, "cors.enabled": None})
    assert found["topic.createEnabled"] == "true"
    assert "cors.enabled" not in found


def test_a_password_is_quoted_for_java_twice() -> None:
    line = kafka_ui.client("kafka-ui", 'a"b\\c')["sasl.jaas.config"]
    assert line.endswith('username="kafka-ui" password="a\\\\"b\\\\\\\\c";')


def test_what_is_right_has_no_fault() -> None:
    assert faults() == ""
    assert faults({"server.tomcat.threads.max": 9}, path="") == ""


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"brokers": []}, "kafka_ui_kafka_brokers is empty"),
        ({"brokers": ["broker"]}, "'broker': write address:port"),
        ({"password": ""}, "kafka_ui_kafka_password is empty"),
        ({"user": "a b"}, "kafka_ui_kafka_user 'a b'"),
        ({"path": "kafka-ui"}, "kafka_ui_path 'kafka-ui'"),
        ({"schema_registry": "registry"}, "kafka_ui_schema_registry 'registry'"),
        ({"heap": "256"}, "kafka_ui_heap '256'"),
        ({"given": {"a=b": 1}}, "'a=b' is no key"),
    ],
)
def test_a_fault_names_key_value_and_remedy(changed: dict[str, Any], fault: str) -> None:
    told = faults(**changed)
    assert fault in told
    assert "hunter2" not in told
