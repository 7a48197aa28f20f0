"""Hashes, definitions and settings of RabbitMQ, and what differs from the running node."""

from __future__ import annotations

import base64
import copy
import hashlib
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.rabbitmq import (
    REMOVABLE,
    RabbitmqError,
    configuration,
    definitions,
    difference,
    password_hash,
    plugins_of,
    unlisted_vhosts,
)
from hypothesis import given
from hypothesis import strategies as st

DEFAULT = ("users", "permissions", "policies", "empty_vhosts")


# --- passwords ----------------------------------------------------------------------------------


def verify(password: str, stored: str) -> bool:
    """As rabbit_password:is_password/3 does it."""
    raw = base64.b64decode(stored)
    return raw[4:] == hashlib.sha256(raw[:4] + password.encode()).digest()


def test_the_hash_is_the_one_of_the_documentation() -> None:
    """https://www.rabbitmq.com/docs/passwords#computing-password-hash: salt 908DC60A, test12."""
    documented = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert verify("test12", documented)


@given(st.text(min_size=1), st.text(), st.text())
def test_a_hash_is_for_its_password_only(password: str, user: str, key: str) -> None:
    stored = password_hash(password, user, key)
    assert len(base64.b64decode(stored)) == 36
    assert verify(password, stored) and not verify(password + "x", stored)
    assert stored == password_hash(password, user, key)


def test_equal_passwords_of_two_users_or_installations_do_not_look_equal() -> None:
    hashes = [
        password_hash("same", user, key) for user in ("sales", "payroll") for key in ("", "a", "b")
    ]
    assert len(set(hashes)) == 6


# --- definitions --------------------------------------------------------------------------------

VHOSTS = [{"name": "prod"}, {"name": "/", "default_queue_type": "classic", "description": "all"}]
USERS = [
    {"name": "sales", "password": "hunter2", "permissions": [{"vhost": "prod"}]},
    {
        "name": "probe",
        "password": "hunter3",
        "tags": ["monitoring"],
        "permissions": [{"vhost": "/", "configure": "^$", "write": "", "read": "^a"}],
    },
]
POLICIES = [
    {"name": "cap", "vhost": "prod", "pattern": "^x", "definition": {"max-length": 5}},
]


def test_definitions_are_sorted_complete_and_without_passwords() -> None:
    made = definitions(VHOSTS, USERS, POLICIES, "cookie")
    assert made == definitions(VHOSTS[::-1], USERS[::-1], POLICIES, "cookie")
    assert [vhost["name"] for vhost in made["vhosts"]] == ["/", "prod"]
    assert made["vhosts"][1]["metadata"]["default_queue_type"] == "quorum"
    assert made["vhosts"][0]["metadata"]["default_queue_type"] == "classic"
    assert made["permissions"] == [
        {"user": "probe", "vhost": "/", "configure": "^$", "write": "", "read": "^a"},
        {"user": "sales", "vhost": "prod", "configure": ".*", "write": ".*", "read": ".*"},
    ]
    assert made["policies"] == [
        {
            "vhost": "prod",
            "name": "cap",
            "pattern": "^x",
            "apply-to": "all",
            "priority": 0,
            "definition": {"max-length": 5},
        }
    ]
    assert made["users"][0]["tags"] == ["monitoring"]
    assert "hunter" not in str(made)


def test_all_faults_are_told_at_once_and_no_password_with_them() -> None:
    with pytest.raises(RabbitmqError) as error:
        definitions(
            [{"name": "a"}, {"name": "a"}],
            [
                {"name": "u", "password": "hunter2", "permissions": [{"vhost": "nowhere"}]},
                {"name": "u", "password": ""},
                {"name": "w", "password": "x", "permissions": [{"vhost": "a"}, {"vhost": "a"}]},
            ],
            [{"name": "p", "vhost": "gone", "pattern": "", "definition": {}}] * 2,
        )
    told = str(error.value)
    for fault in (
        "vhost a is listed twice",
        "user u is listed twice",
        "user u has permissions on vhost nowhere, which is not listed",
        "user u has no password",
        "user w has permissions on vhost a twice",
        "policy p is for vhost gone, which is not listed",
        "policy p of vhost gone is listed twice",
    ):
        assert fault in told
    assert "hunter2" not in told


# --- settings -----------------------------------------------------------------------------------


def settings(**over: Any) -> dict[str, str]:
    base: dict[str, Any] = {
        "listeners": ["127.0.0.1:5672"],
        "management": {"address": "127.0.0.1", "port": 15672},
        "memory_limit": 0.4,
        "disk_free_limit": "1GB",
        "definitions_file": "/d.json",
        "settings": {},
    }
    return configuration(**{**base, **over})


def test_what_is_derived() -> None:
    assert settings(listeners=["127.0.0.1:5672", "[::1]:5672"]) == {
        "listeners.tcp.1": "127.0.0.1:5672",
        "listeners.tcp.2": "[::1]:5672",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": "15672",
        "vm_memory_high_watermark.relative": "0.4",
        "disk_free_limit.absolute": "1GB",
        "load_definitions": "/d.json",
        "log.console": "true",
        "log.file": "false",
    }


def test_without_listener_or_management() -> None:
    made = settings(listeners=[], management=None)
    assert made["listeners.tcp"] == "none"
    assert not [key for key in made if key.startswith("management")]


@pytest.mark.parametrize(
    ("limit", "key"),
    [
        (0.5, "relative"), ("0.5", "relative"), (1, "relative"),
        ("2GB", "absolute"), ("512MiB", "absolute"),
    ],
)  # fmt: skip
def test_a_limit_is_a_share_or_an_amount(limit: Any, key: str) -> None:
    assert settings(memory_limit=limit)[f"vm_memory_high_watermark.{key}"] == str(limit)


def test_given_settings_win_also_over_those_that_exclude_them() -> None:
    made = settings(
        settings={
            "vm_memory_high_watermark.absolute": "4GB",
            "listeners.tcp": ["10.0.0.1:5672"],
            "load_definitions": None,
            "channel_max": 64,
            "auth_mechanisms": ["PLAIN"],
            "log.file": "rabbit.log",
            "mqtt.allow_anonymous": False,
        }
    )
    assert made["vm_memory_high_watermark.absolute"] == "4GB"
    assert "vm_memory_high_watermark.relative" not in made
    assert [v for k, v in made.items() if k.startswith("listeners")] == ["10.0.0.1:5672"]
    assert "load_definitions" not in made
    assert made["channel_max"] == "64" and made["auth_mechanisms.1"] == "PLAIN"
    assert made["log.file"] == "rabbit.log" and made["log.console"] == "true"
    assert made["mqtt.allow_anonymous"] == "false"
    numbered = settings(settings={"listeners.tcp.default": 5673})
    assert [v for k, v in numbered.items() if k.startswith("listeners")] == ["5673"]


@pytest.mark.parametrize(
    ("given_settings", "fault"),
    [
        ({"a.b": "x # y"}, "setting a.b: a value is one line"),
        ({"a.b": "x\ny"}, "one line"),
        ({"a.b": ""}, "not empty"),
        ({"a b": 1}, "no such key can stand"),
        ({"a\nlisteners.tcp.9": 1}, "no such key can stand"),
        ({"log": {"level": "debug"}}, "write its keys with dots"),
    ],
)
def test_what_cannot_stand_in_the_file_is_refused(
    given_settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(RabbitmqError, match=fault):
        settings(settings=given_settings)


# --- what differs -------------------------------------------------------------------------------


def exported(made: dict[str, Any], version: str) -> dict[str, Any]:
    """As RabbitMQ 3.10 and 4.0 give back what they were given."""
    there = copy.deepcopy(made)
    for vhost in there["vhosts"]:
        vhost["limits"] = []
        if version == "4.0":
            vhost["default_queue_type"] = vhost["metadata"]["default_queue_type"]
        else:
            vhost["metadata"].pop("default_queue_type")
    for user in there["users"]:
        user["limits"] = {}
        if version == "3.8":
            user["tags"] = ",".join(user["tags"])
    return there


WANTED = definitions(VHOSTS, USERS, POLICIES)
NAMES = st.sampled_from(["a", "b", "c", "/", "a b", "ü"])


@pytest.mark.parametrize("version", ["3.8", "3.10", "4.0"])
def test_nothing_differs_from_what_was_imported(version: str) -> None:
    assert not difference(WANTED, exported(WANTED, version), REMOVABLE).changed


def test_an_empty_node_gets_all() -> None:
    changes = difference(WANTED, {}, REMOVABLE)
    assert changes.imports == WANTED
    assert changes.words == [
        "vhost /: added",
        "vhost prod: added",
        "user probe: added",
        "user sales: added",
        "permissions probe on /: added",
        "permissions sales on prod: added",
        "policy prod on cap: added",
    ]
    assert changes.commands() == []


def test_only_what_differs_is_imported_and_named() -> None:
    there = exported(WANTED, "4.0")
    there["users"][1]["password_hash"] = "x"
    there["permissions"][0]["write"] = ".*"
    there["policies"][0]["definition"] = {}
    there["vhosts"][1]["default_queue_type"] = "classic"
    there["vhosts"][1]["metadata"]["default_queue_type"] = "classic"
    changes = difference(WANTED, there, REMOVABLE)
    assert changes.words == [
        "vhost prod: default queue type changed",
        "user sales: password changed",
        "permissions probe on /: write changed",
        "policy prod on cap: definition changed",
    ]
    assert {kind: len(items) for kind, items in changes.imports.items()} == {
        "vhosts": 1,
        "users": 1,
        "permissions": 1,
        "policies": 1,
    }


def with_more(there: dict[str, Any]) -> dict[str, Any]:
    there["users"].append({"name": "guest", "password_hash": "x", "tags": ["administrator"]})
    there["vhosts"].append({"name": "old", "metadata": {}})
    there["permissions"] += [
        {"user": "guest", "vhost": "prod", "configure": "", "write": "", "read": ""},
        {"user": "sales", "vhost": "/", "configure": "", "write": "", "read": ""},
        {"user": "sales", "vhost": "old", "configure": "", "write": "", "read": ""},
    ]
    there["policies"] += [
        {"vhost": "prod", "name": "stray", "pattern": "", "definition": {}},
        {"vhost": "old", "name": "stray", "pattern": "", "definition": {}},
    ]
    return there


def test_what_is_not_listed_goes() -> None:
    changes = difference(WANTED, with_more(exported(WANTED, "4.0")), DEFAULT, {"old": 0})
    assert changes.imports == {}
    assert changes.words == [
        "policy prod on stray: removed",
        "permissions sales on /: removed",
        "user guest: removed",
        "vhost old: removed",
    ]
    assert changes.commands() == [
        ["clear_policy", "-p", "prod", "--", "stray"],
        ["clear_permissions", "-p", "/", "--", "sales"],
        ["delete_user", "--", "guest"],
        ["delete_vhost", "--", "old"],
    ]


@pytest.mark.parametrize("queues", [{"old": 3}, {}, None])
def test_a_vhost_with_queues_or_of_unknown_content_stays(
    queues: dict[str, int] | None,
) -> None:
    there = with_more(exported(WANTED, "4.0"))
    changes = difference(WANTED, there, DEFAULT, queues)
    assert changes.vhosts == []
    # The user loses its rights there none the less.
    assert ("sales", "old") in changes.permissions
    assert unlisted_vhosts(WANTED, there) == ["old"]
    assert difference(WANTED, there, REMOVABLE, queues).vhosts == ["old"]


def test_nothing_goes_unless_it_may() -> None:
    assert not difference(WANTED, with_more(exported(WANTED, "4.0")), ()).changed


@given(
    st.lists(NAMES, unique=True, min_size=1),
    st.lists(st.tuples(NAMES, st.text("xyz", min_size=1)), unique_by=lambda user: user[0]),
    st.lists(NAMES, unique=True, min_size=1),
    st.lists(st.tuples(NAMES, st.text("xyz", min_size=1)), unique_by=lambda user: user[0]),
    st.data(),
)
def test_after_the_changes_nothing_differs(
    vhosts: list[str],
    users: list[tuple[str, str]],
    old_vhosts: list[str],
    old_users: list[tuple[str, str]],
    data: st.DataObject,
) -> None:
    def made(vhosts: list[str], users: list[tuple[str, str]]) -> dict[str, Any]:
        return definitions(
            [{"name": name} for name in vhosts],
            [
                {
                    "name": name,
                    "password": password,
                    "permissions": [
                        {"vhost": vhost} for vhost in vhosts if data.draw(st.booleans())
                    ],
                }
                for name, password in users
            ],
        )

    wanted, there = made(vhosts, users), exported(made(old_vhosts, old_users), "4.0")
    changes = difference(wanted, there, REMOVABLE)
    keys = {"vhosts": ("name",), "users": ("name",), "permissions": ("user", "vhost")}
    for kind, key in keys.items():
        imported = {tuple(i[k] for k in key): i for i in changes.imports.get(kind, [])}
        kept = {tuple(i[k] for k in key): i for i in there[kind]}
        there[kind] = list({**kept, **imported}.values())
    there["users"] = [u for u in there["users"] if u["name"] not in changes.users]
    there["vhosts"] = [v for v in there["vhosts"] if v["name"] not in changes.vhosts]
    there["permissions"] = [
        p
        for p in there["permissions"]
        if (p["user"], p["vhost"]) not in changes.permissions
        and p["user"] not in changes.users
        and p["vhost"] not in changes.vhosts
    ]
    assert not difference(wanted, there, REMOVABLE).changed


def test_plugins_are_read_from_erlang() -> None:
    assert plugins_of("[rabbitmq_management,\n rabbitmq_shovel].\n") == [
        "rabbitmq_management",
        "rabbitmq_shovel",
    ]
    assert plugins_of("[].") == []
