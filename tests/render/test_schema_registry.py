"""The role's files without a host."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

BASE: dict[str, Any] = {"schema_registry_kafka_password": "hunter2"}


def file(path: str, **variables: Any) -> dict[str, Any]:
    files = evaluate("schema_registry", "__schema_registry_files", {**BASE, **variables})
    return dict(next(each for each in files if each["path"] == path))


def unit(**variables: Any) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    text = render("schema_registry", "schema-registry.service.j2", {**BASE, **variables})
    parser.read_string(text.replace(" \\\n", " "))
    return parser


def test_it_serves_this_host_only() -> None:
    text = render("schema_registry", "application.properties.j2", BASE)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert (found["quarkus.http.host"], found["quarkus.http.port"]) == ("127.0.0.1", "8081")
    assert found["apicurio.kafkasql.bootstrap.servers"] == "127.0.0.1:9092"
    assert found["apicurio.rules.global.compatibility"] == "BACKWARD"


def test_the_password_is_for_root_only_and_in_no_command_line() -> None:
    made = file("/etc/schema-registry/application.properties")
    assert (made["mode"], made["secret"]) == ("0600", True)
    assert "owner" not in made and "group" not in made
    service = unit()["Service"]
    assert service["LoadCredential"] == (
        "application.properties:/etc/schema-registry/application.properties"
    )
    assert "hunter2" not in service["ExecStart"]
    assert "${CREDENTIALS_DIRECTORY}/application.properties" in service["ExecStart"]


def test_the_unit_has_its_limits_and_may_write_its_data_only() -> None:
    limits = {"nofile": 4096, "memory": "1500M"}
    data = "/srv/registry"
    variables = {"schema_registry_limits": limits, "schema_registry_data_directory": data}
    service = unit(schema_registry_heap="1g", **variables)["Service"]
    assert (service["LimitNOFILE"], service["MemoryMax"]) == ("4096", "1500M")
    assert "-Xmx1g " in service["ExecStart"]
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == data
    assert file(f"{data}/snapshots", **variables)["owner"] == "schema-registry"


def test_one_limit_given_leaves_the_other() -> None:
    service = unit(schema_registry_limits={"memory": "1G"})["Service"]
    assert (service["LimitNOFILE"], service["MemoryMax"]) == ("16384", "1G")


@pytest.mark.parametrize(
    ("codename", "package"),
    [("bookworm", "openjdk-17-jre-headless"), ("trixie", "openjdk-21-jre-headless")],
)
def test_java_is_the_distributions(codename: str, package: str) -> None:
    facts = {"ansible_facts": host(codename=codename)}
    assert evaluate("schema_registry", "__schema_registry_packages", facts) == [package]


def test_another_program_is_another_unit() -> None:
    text = [
        render("schema_registry", "schema-registry.service.j2", {"schema_registry_checksum": each})
        for each in ("sha256:1", "sha256:2")
    ]
    assert text[0] != text[1]


def test_it_is_asked_where_it_listens() -> None:
    for address, contact in (("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")):
        variables = {"schema_registry_address": address}
        assert evaluate("schema_registry", "__schema_registry_contact", variables) == contact


def test_faults_are_told_before_a_host_is_touched() -> None:
    assert evaluate("schema_registry", "__schema_registry_faults", BASE) == []
    told = evaluate("schema_registry", "__schema_registry_faults", {})
    assert "schema_registry_kafka_password is empty" in told[0]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"schema_registry_compatibility": "backward"}, "backward"),
        ({"schema_registry_limits": {"files": 1}}, "files"),
        ({"schema_registry_port": "http"}, "http"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("schema_registry", variables))
