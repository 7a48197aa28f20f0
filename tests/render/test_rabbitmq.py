"""The role's files without a host."""

from __future__ import annotations

import configparser
import json
import re
from typing import Any

import pytest
from render import evaluate, host, render, spec_errors

USERS = [
    {"name": "sales", "password": "hunter2", "permissions": [{"vhost": "prod-sales"}]},
    {"name": "probe", "password": "hunter3", "tags": ["monitoring"]},
]
VHOSTS = [{"name": "prod-sales"}]


def conf(**variables: Any) -> dict[str, str]:
    text = render("rabbitmq", "rabbitmq.conf.j2", variables)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+ = \S.*", line) for line in lines), text
    return dict(line.split(" = ", 1) for line in lines)


def env(**variables: Any) -> list[str]:
    return render("rabbitmq", "rabbitmq-env.conf.j2", variables).splitlines()[1:]


def file(path: str, **variables: Any) -> dict[str, Any]:
    files = evaluate("rabbitmq", "__rabbitmq_files", variables)
    return dict(next(each for each in files if each["path"] == path))


def test_defaults_serve_this_host_only() -> None:
    settings = conf()
    assert settings["listeners.tcp.1"] == "127.0.0.1:5672"
    assert settings["management.tcp.ip"] == "127.0.0.1"
    assert settings["vm_memory_high_watermark.relative"] == "0.4"
    assert settings["disk_free_limit.absolute"] == "1GB"


def test_without_the_plugin_its_listener_is_not_configured() -> None:
    assert "management.tcp.ip" not in conf(rabbitmq_plugins=[])
    assert file("/etc/rabbitmq/enabled_plugins", rabbitmq_plugins=[])["content"] == "[].\n"


def test_plugins_are_a_list_of_erlang() -> None:
    plugins = ["rabbitmq_shovel", "rabbitmq_management"]
    content = file("/etc/rabbitmq/enabled_plugins", rabbitmq_plugins=plugins)["content"]
    assert content == "[rabbitmq_management,rabbitmq_shovel].\n"


def test_the_node_is_named_after_the_host_and_reached_by_loopback() -> None:
    facts = host(hostname="mq1.example.com")
    assert env(ansible_facts=facts) == [
        "NODENAME=rabbit@mq1",
        "DIST_PORT=25672",
        'SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"',
        'CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"',
        "export ERL_EPMD_ADDRESS=127.0.0.1",
        "export ERL_INETRC=/etc/rabbitmq/erl_inetrc",
    ]
    resolver = render("rabbitmq", "erl_inetrc.j2", {"ansible_facts": facts})
    assert '\n{host, {127,0,0,1}, ["mq1"]}.\n' in resolver


def test_another_distribution_address_is_resolved_as_usual() -> None:
    lines = env(rabbitmq_distribution_address="10.0.0.5", rabbitmq_node_name="rabbit@broker")
    assert lines[0] == "NODENAME=rabbit@broker"
    assert not [line for line in lines if "ERL_INETRC" in line]
    variables = {"rabbitmq_distribution_address": "10.0.0.5"}
    assert file("/etc/rabbitmq/erl_inetrc", **variables)["state"] == "absent"
    assert "ListenStream=10.0.0.5:4369" in render("rabbitmq", "epmd.conf.j2", variables)


def test_the_socket_of_epmd_forgets_the_packages_address() -> None:
    lines = render("rabbitmq", "epmd.conf.j2").splitlines()
    assert lines.index("ListenStream=") < lines.index("ListenStream=127.0.0.1:4369")


def test_the_unit_has_its_limit() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(
        render("rabbitmq", "rabbitmq-server.conf.j2", {"rabbitmq_limits": {"nofile": 4096}})
    )
    assert parser["Service"]["LimitNOFILE"] == "4096"


def test_definitions_have_no_password_and_are_only_for_the_broker() -> None:
    variables = {
        "rabbitmq_users": USERS,
        "rabbitmq_vhosts": VHOSTS,
        "rabbitmq_erlang_cookie": "COOKIE",
    }
    made = file("/etc/rabbitmq/definitions.json", **variables)
    assert (made["mode"], made["group"], made["secret"]) == ("0640", "rabbitmq", True)
    assert "hunter" not in made["content"]
    definitions = json.loads(made["content"])
    assert [user["name"] for user in definitions["users"]] == ["probe", "sales"]
    again = file("/etc/rabbitmq/definitions.json", **variables)
    assert again["content"] == made["content"]
    other = file("/etc/rabbitmq/definitions.json", **{**variables, "rabbitmq_erlang_cookie": "X"})
    assert other["content"] != made["content"]


def test_the_cookie_is_only_written_where_it_is_given() -> None:
    paths = [each["path"] for each in evaluate("rabbitmq", "__rabbitmq_files")]
    assert "/var/lib/rabbitmq/.erlang.cookie" not in paths
    cookie = file("/var/lib/rabbitmq/.erlang.cookie", rabbitmq_erlang_cookie="ABC")
    assert (cookie["content"], cookie["mode"], cookie["owner"]) == ("ABC", "0400", "rabbitmq")


def test_a_fault_is_told_before_a_host_is_touched() -> None:
    users = [{"name": "sales", "password": "hunter2", "permissions": [{"vhost": "prod-saels"}]}]
    with pytest.raises(Exception, match="vhost prod-saels, which is not listed") as error:
        evaluate("rabbitmq", "__rabbitmq_definitions", {"rabbitmq_users": users})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"rabbitmq_users": [{"name": "x"}]}, "password"),
        ({"rabbitmq_users": [{"password": "x"}]}, "name"),
        ({"rabbitmq_vhosts": [{"name": "x", "queue_type": "quorum"}]}, "queue_type"),
        ({"rabbitmq_vhosts": [{"name": "x", "default_queue_type": "fast"}]}, "fast"),
        ({"rabbitmq_remove": ["everything"]}, "everything"),
        ({"rabbitmq_policies": [{"name": "x", "pattern": "y"}]}, "definition"),
        ({"rabbitmq_limits": {"files": 1}}, "files"),
    ],
)
def test_the_specification_refuses(variables: dict[str, Any], fault: str) -> None:
    assert any(fault in error for error in spec_errors("rabbitmq", variables))


def test_the_specification_takes_what_is_documented() -> None:
    policies = [{"name": "cap", "pattern": "^x", "definition": {"max-length": 1}}]
    assert not spec_errors(
        "rabbitmq",
        {
            "rabbitmq_users": USERS,
            "rabbitmq_vhosts": VHOSTS,
            "rabbitmq_policies": policies,
            "rabbitmq_memory_limit": "2GB",
            "rabbitmq_settings": {"channel_max": 12},
        },
    )
