"""The role's files without a host."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

ID = "MkU3OEVBNTcwNTJENDM2Qk"
BASE: dict[str, Any] = {"kafka_cluster_id": ID, "kafka_admin_password": "hunter2"}
NODES = [{"id": n, "address": f"10.0.0.{n}", "port": 9093} for n in (1, 2, 3)]
CLUSTER: dict[str, Any] = {
    **BASE,
    "kafka_controllers": NODES,
    "kafka_brokers": 3,
    "kafka_node_id": 2,
    "kafka_listeners": [
        {"name": "internal", "address": "10.0.0.2", "port": 9092},
        {"name": "public", "address": "::", "port": 9094, "advertised": "k2.example.com:9094"},
    ],
    "kafka_controller_listener": {"address": "10.0.0.2", "port": 9093},
}


def conf(variables: dict[str, Any], **more: Any) -> dict[str, str]:
    content = render("kafka", "server.properties.j2", {**variables, **more})
    lines = [line for line in content.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def file(path: str, **variables: Any) -> dict[str, Any]:
    files = evaluate("kafka", "__kafka_files", {**BASE, **variables})
    return dict(next(each for each in files if each["path"] == path))


def faults(**variables: Any) -> str:
    return "\n".join(evaluate("kafka", "__kafka_faults", {**BASE, **variables}))


def unit(**variables: Any) -> str:
    return render("kafka", "kafka.service.j2", {**BASE, **variables})


def test_alone_it_is_all_and_serves_this_host_only() -> None:
    settings = conf(BASE)
    assert settings["process.roles"] == "broker,controller"
    assert settings["listeners"] == "CLIENTS://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert settings["default.replication.factor"] == "1"
    assert settings["min.insync.replicas"] == "1"


def test_nothing_is_open() -> None:
    settings = conf(CLUSTER)
    mapped = settings["listener.security.protocol.map"].split(",")
    assert all(each.endswith(":SASL_PLAINTEXT") for each in mapped) and len(mapped) == 3
    assert settings["authorizer.class.name"].endswith("StandardAuthorizer")
    assert settings["allow.everyone.if.no.acl.found"] == "false"
    assert settings["super.users"] == "User:admin;User:controller"
    assert settings["auto.create.topics.enable"] == "false"


def test_three_nodes_are_a_safe_cluster() -> None:
    settings = conf(CLUSTER)
    assert settings["controller.quorum.voters"] == "1@10.0.0.1:9093,2@10.0.0.2:9093,3@10.0.0.3:9093"
    assert settings["listeners"] == (
        "INTERNAL://10.0.0.2:9092,PUBLIC://[::]:9094,CONTROLLER://10.0.0.2:9093"
    )
    assert settings["advertised.listeners"] == (
        "INTERNAL://10.0.0.2:9092,PUBLIC://k2.example.com:9094"
    )
    assert settings["inter.broker.listener.name"] == "INTERNAL"
    for name in ("default", "offsets.topic", "transaction.state.log"):
        assert settings[f"{name}.replication.factor"] == "3"
    assert settings["min.insync.replicas"] == "2"
    assert settings["unclean.leader.election.enable"] == "false"
    others = conf(CLUSTER, kafka_node_id=3)
    jaas = "listener.name.controller.plain.sasl.jaas.config"
    assert settings[jaas] == others[jaas], "controllers know one another"
    assert "hunter2" not in settings[jaas], "PLAIN does not send the admin's password"


def test_two_brokers_do_not_stop_for_one() -> None:
    settings = conf(CLUSTER, kafka_brokers=2)
    assert (settings["default.replication.factor"], settings["min.insync.replicas"]) == ("2", "1")


def test_a_controller_alone_serves_no_clients() -> None:
    settings = conf(CLUSTER, kafka_roles=["controller"])
    assert settings["listeners"] == "CONTROLLER://10.0.0.2:9093"
    assert "advertised.listeners" not in settings
    assert "hunter2" not in "".join(settings.values())


def test_a_broker_alone_does_not_listen_as_a_controller() -> None:
    settings = conf(CLUSTER, kafka_roles=["broker"], kafka_node_id=11)
    assert settings["process.roles"] == "broker"
    assert "CONTROLLER://" not in settings["listeners"]
    assert settings["controller.listener.names"] == "CONTROLLER"


def test_given_settings_win_and_null_leaves_out() -> None:
    given = {"log.retention.hours": None, "min.insync.replicas": 3, "num.io.threads": 4}
    settings = conf(CLUSTER, kafka_settings=given)
    assert "log.retention.hours" not in settings
    assert (settings["min.insync.replicas"], settings["num.io.threads"]) == ("3", "4")


@pytest.mark.parametrize(
    ("codename", "package"),
    [("bookworm", "openjdk-17-jre-headless"), ("trixie", "openjdk-21-jre-headless")],
)
def test_java_is_the_distributions(codename: str, package: str) -> None:
    facts = host(codename=codename)
    assert evaluate("kafka", "__kafka_packages", {"ansible_facts": facts}) == [package]


def test_the_unit_starts_java_by_itself() -> None:
    parser = configparser.ConfigParser(strict=False)
    parser.read_string(unit(ansible_facts=host(memory_mb=8192), kafka_limits={"nofile": 4096}))
    service = parser["Service"]
    assert "-Xms2048m -Xmx2048m" in service["ExecStart"]
    assert "-cp /opt/kafka/current/libs/* kafka.Kafka" in service["ExecStart"]
    assert "jmx" not in service["ExecStart"] and "hunter2" not in service["ExecStart"]
    assert service["LimitNOFILE"] == "4096"
    assert parser["Unit"]["AssertPathExists"] == "/var/lib/kafka/meta.properties"
    assert "-Xmx512m" in unit(kafka_heap="512M")


def test_secrets_are_for_the_broker_only() -> None:
    for path in ("/etc/kafka/server.properties", "/etc/kafka/format"):
        made = file(path)
        assert (made["mode"], made["group"], made["secret"]) == ("0640", "kafka", True)
    content = file("/etc/kafka/format")["content"]
    assert "hunter2" not in content
    lines = content.splitlines()
    assert lines[0] == "format" and lines[lines.index("--cluster-id") + 1] == ID
    assert content == file("/etc/kafka/format")["content"]


def test_the_node_is_asked_where_it_listens() -> None:
    assert evaluate("kafka", "__kafka_contact", CLUSTER) == "10.0.0.2"
    everywhere = [{"name": "all", "address": "0.0.0.0", "port": 9092}]
    assert evaluate("kafka", "__kafka_contact", {"kafka_listeners": everywhere}) == "127.0.0.1"


def test_what_is_right_has_no_fault() -> None:
    assert faults() == ""
    assert faults(**CLUSTER) == ""


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"kafka_cluster_id": "short"}, "kafka_cluster_id 'short'"),
        ({"kafka_admin_password": ""}, "kafka_admin_password is empty"),
        ({"kafka_roles": []}, "kafka_roles is empty"),
        ({"kafka_roles": ["broker"]}, "kafka_controllers is empty"),
        ({"kafka_controllers": NODES, "kafka_node_id": 9}, "kafka_node_id 9"),
        (
            {"kafka_listeners": [{"name": "controller", "address": "127.0.0.1", "port": 9092}]},
            "name 'controller'",
        ),
        (
            {"kafka_listeners": [{"name": "a", "address": "127.0.0.1", "port": 9093}]},
            "port 9093 is used twice",
        ),
        ({"kafka_topics": [{"name": "a b"}]}, "topic 'a b'"),
        ({"kafka_topics": [{"name": "a", "replication": 2}]}, "number of brokers, 1"),
        ({"kafka_topics": [{"name": "a"}, {"name": "a"}]}, "a is listed twice"),
        ({"kafka_users": [{"name": "admin", "password": "x"}]}, "super user"),
        ({"kafka_users": [{"name": "x", "password": ""}]}, "user x has no password"),
        (
            {
                "kafka_users": [
                    {
                        "name": "x",
                        "password": "y",
                        "acls": [{"resource": "topic", "operations": ["read"]}],
                    }
                ]
            },
            "an ACL on a topic needs its name",
        ),
    ],
)
def test_a_fault_is_told_before_a_host_is_touched(variables: dict[str, Any], fault: str) -> None:
    assert fault in faults(**variables)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"kafka_roles": ["zookeeper"]}, "zookeeper"),
        ({"kafka_users": [{"name": "x"}]}, "password"),
        ({"kafka_topics": [{"name": "x", "partition": 2}]}, "partition"),
        ({"kafka_remove": ["topics"]}, "topics"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("kafka", variables))


def test_the_specification_takes_what_is_documented() -> None:
    acls = [{"resource": "topic", "name": "x", "operations": ["read"]}]
    users = [{"name": "x", "password": "y", "acls": acls}]
    assert not spec_errors("kafka", {**CLUSTER, "kafka_users": users, "kafka_retention_bytes": -1})
