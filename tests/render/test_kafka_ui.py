"""The role's files without a host."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from render import evaluate, render, spec_errors

BASE: dict[str, Any] = {"kafka_ui_kafka_password": "hunter2"}


def file(path: str, **variables: Any) -> dict[str, Any]:
    files = evaluate("kafka_ui", "__kafka_ui_files", {**BASE, **variables})
    return dict(next(each for each in files if each["path"] == path))


def lines(path: str, **variables: Any) -> dict[str, str]:
    """What stands in a file of properties."""
    made = file(path, **variables)
    text = render("kafka_ui", made["template"], {**BASE, **variables, **made["vars"]})
    return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))


def service(**variables: Any) -> Any:
    parser = configparser.ConfigParser(strict=False)
    text = render("kafka_ui", "kafka-ui.service.j2", {**BASE, **variables})
    parser.read_string(text.replace(" \\\n", " "))
    return parser["Service"]


def test_it_serves_this_host_below_its_path() -> None:
    found = lines("/etc/kafka-ui/application.properties")
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", "8090")
    assert found["server.servlet.context-path"] == "/kafka-ui"
    assert "hunter2" not in str(found)


def test_the_password_is_for_root_only_and_in_no_command_line() -> None:
    made = file("/etc/kafka-ui/kafka.properties")
    assert (made["mode"], made["secret"]) == ("0600", True)
    found = lines("/etc/kafka-ui/kafka.properties")
    assert 'password="hunter2"' in found["sasl.jaas.config"]
    unit = service()
    assert unit["LoadCredential"] == "kafka.properties:/etc/kafka-ui/kafka.properties"
    assert "hunter2" not in unit["ExecStart"]
    assert unit["ExecStart"].endswith("=${CREDENTIALS_DIRECTORY}/kafka.properties")


def test_the_unit_has_its_limits() -> None:
    unit = service(kafka_ui_limits={"memory": "700M"}, kafka_ui_heap="200m")
    assert (unit["LimitNOFILE"], unit["MemoryMax"]) == ("8192", "700M")
    assert "-Xmx200m " in unit["ExecStart"]


def test_faults_are_told_before_a_host_is_touched() -> None:
    assert evaluate("kafka_ui", "__kafka_ui_faults", BASE) == []
    assert "is empty" in evaluate("kafka_ui", "__kafka_ui_faults", {})[0]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [({"kafka_ui_limits": {"files": 1}}, "files"), ({"kafka_ui_port": "http"}, "http")],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("kafka_ui", variables))
