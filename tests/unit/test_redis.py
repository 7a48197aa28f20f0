"""Redis instances as files and users, and what differs from a running one."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.redis_instances import (
    MIB,
    RedisError,
    files,
    layout,
    quoted,
    units,
)
from ansible_collections.berth.platform.plugins.module_utils.redis_objects import (
    Client,
    Refused,
    changed_settings,
    changed_users,
    fingerprint,
    listed_users,
    remembered,
    same_value,
    without_keys,
)


def plan(*instances: dict[str, Any], memory_mb: int = 4096, **more: Any) -> list[dict[str, Any]]:
    more.setdefault("admin_password", "hunter1")
    return layout(instances, memory_mb, **more)


def one(**more: Any) -> dict[str, Any]:
    passwords = {key: more.pop(key) for key in list(more) if key.endswith("_password")}
    return plan({"name": "queue", "port": 6379, **more}, **passwords)[0]


def rules(instance: dict[str, Any], user: str) -> str:
    return dict((each["name"], each["rules"]) for each in instance["users"])[user]


# --- what is wanted -------------------------------------------------------------------------------


def test_defaults_are_safe() -> None:
    settings = one()["settings"]
    assert settings["bind"] == "127.0.0.1"
    assert settings["protected-mode"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert "masteruser" not in settings
    assert rules(one(), "default").startswith("off ")


def test_memory_is_shared_of_half_the_host() -> None:
    found = plan(
        {"name": "a", "port": 1, "memory": "512M"},
        {"name": "b", "port": 2},
        {"name": "c", "port": 3},
        memory_mb=4096,
    )
    assert [int(one["settings"]["maxmemory"]) // MIB for one in found] == [512, 768, 768]
    small = plan({"name": "a", "port": 1}, memory_mb=96)
    assert int(small[0]["settings"]["maxmemory"]) == 64 * MIB


def test_a_service_has_its_prefix_and_nothing_dangerous() -> None:
    user = {"name": "sales", "password": "hunter2"}
    words = rules(one(users=[user]), "sales").split()
    assert words[:2] == ["on", f"#{hashlib.sha256(b'hunter2').hexdigest()}"]
    assert "~sales:*" in words and "&sales:*" in words
    assert words.index("+@all") < words.index("-@dangerous")
    user |= {"keys": ["%R~shared:*", "a*"], "channels": [], "commands": ["+info"]}
    words = rules(one(users=[user]), "sales").split()
    assert "%R~shared:*" in words and "~a*" in words
    assert not [word for word in words if word.startswith("&")]
    assert words[-1] == "+info"


def test_the_roles_own_users_follow_their_passwords() -> None:
    assert [user["name"] for user in one()["users"]] == ["default", "admin"]
    made = one(replication_password="x", probe_password="y")
    assert [u["name"] for u in made["users"]] == ["default", "admin", "replication", "probe"]
    assert "~" not in rules(made, "replication") + rules(made, "probe")
    assert made["settings"]["masteruser"] == "replication"


def test_whom_it_follows_is_only_in_the_seed() -> None:
    made = one(primary={"host": "10.0.0.5", "port": 6379}, replication_password="x")
    assert made["seed"] == "replicaof 10.0.0.5 6379\n"
    assert "replicaof" not in made["configuration"] + made["authentication"]
    assert one(primary={"host": None, "port": None})["seed"] == ""
    (seeded,) = [file for file in files([made]) if file["path"] == made["main"]]
    assert (seeded["replace"], seeded["owner"]) == (False, "redis")


def test_secrets_are_in_secret_files_and_hashes_elsewhere() -> None:
    user = {"name": "sales", "password": "hunter2"}
    for file in files([one(users=[user], replication_password="hunter3")]):
        content = file.get("content", "")
        assert "hunter1" not in content and "hunter2" not in content
        assert "hunter3" not in content or file["secret"]
        if "hunter3" in content or "#" in content.replace("# ", ""):
            assert file["secret"] and file["mode"] == "0640", file["path"]


def test_save_points_replace_those_the_engine_wrote() -> None:
    lines = one(save=["900 1", "60 100"])["configuration"].splitlines()
    assert lines.index('save ""') < lines.index("save 900 1 60 100")
    assert [line for line in one(save=[])["configuration"].splitlines() if "save" in line] == [
        'save ""'
    ]


def test_settings_win_and_null_leaves_one_out() -> None:
    made = one(settings={"maxmemory": "1gb", "appendfsync": None, "notify-keyspace-events": "Ex"})
    assert made["settings"]["maxmemory"] == "1gb"
    assert "appendfsync" not in made["settings"]
    assert "notify-keyspace-events Ex\n" in made["configuration"]


@pytest.mark.parametrize(
    ("value", "line"), [("a", "a"), ("", '""'), ("a b", '"a b"'), ('"\\', '"\\"\\\\"')]
)
def test_words_are_quoted(value: str, line: str) -> None:
    assert quoted(value) == line


USER = {"name": "sales", "password": "hunter2"}


@pytest.mark.parametrize(
    ("instance", "fault"),
    [
        ({"name": "My Queue"}, "name 'My Queue'"),
        ({"port": 0}, "port 0"),
        ({"listen": ["localhost"]}, "listen 'localhost': write addresses"),
        ({"memory": "1GB"}, "memory '1GB'"),
        ({"memory": "64G"}, "more than the host's 4096M"),
        ({"save": ["often"]}, "save 'often'"),
        ({"primary": {"host": "10.0.0.5"}}, "primary needs host and port"),
        ({"primary": {"host": "10.0.0.5", "port": 1}}, "redis_replication_password is empty"),
        ({"settings": {"replicaof": "x 1"}}, "settings replicaof: it cannot be set here"),
        ({"settings": {"hz": "1\nuser x on nopass"}}, "settings hz"),
        ({"settings": {"hz 1": 1}}, "settings 'hz 1'"),
        ({"users": [USER, USER]}, "user sales is listed twice"),
        ({"users": [{**USER, "name": "admin"}]}, "user admin: the name is taken"),
        ({"users": [{**USER, "password": ""}]}, "user sales has no password"),
        ({"users": [{**USER, "keys": ["a b"]}]}, "keys 'a b'"),
        ({"users": [{**USER, "commands": ["nopass"]}]}, "commands 'nopass'"),
    ],
)
def test_faults_name_the_key_and_the_value(instance: dict[str, Any], fault: str) -> None:
    with pytest.raises(RedisError) as error:
        one(**instance)
    assert fault in str(error.value)
    assert "hunter" not in str(error.value)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(RedisError) as error:
        plan({"name": "a", "port": 1}, {"name": "a", "port": 1}, admin_password="")
    text = str(error.value)
    assert "name a is listed twice" in text and "port 1 is listed twice" in text
    assert "redis_admin_password is empty" in text


def test_units_that_are_not_listed_stop() -> None:
    found = units(
        ["redis-server@queue.service"],
        ["redis-server@old.service", "redis-server@queue.service", "redis-server@.service", "x"],
    )
    assert [(unit["name"], unit.get("state")) for unit in found] == [
        ("redis-server.service", None),
        ("redis-server@old.service", "stopped"),
        ("redis-server@queue.service", "started"),
    ]


# --- what differs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "wanted", "actual", "same"),
    [
        ("maxmemory", "64mb", str(64 * 1024**2), True),
        ("maxmemory", "64m", str(64 * 1024**2), False),
        ("appendonly", "Yes", "yes", True),
        ("save", "", "", True),
        ("save", "60 1", "60 1 900 1", False),
        ("client-output-buffer-limit", "replica 1kb 0 0", "normal 0 0 0 slave 1024 0 0", True),
        ("client-output-buffer-limit", "replica 2kb 0 0", "normal 0 0 0 slave 1024 0 0", False),
    ],
)
def test_values_are_compared_by_meaning(key: str, wanted: str, actual: str, same: bool) -> None:
    assert same_value(key, wanted, actual) is same


def test_what_config_get_does_not_know_is_left() -> None:
    assert changed_settings({"hz": "10", "unknown": "1"}, {"hz": "20"}) == ["hz"]


def test_users_are_compared_with_what_was_loaded() -> None:
    wanted = {"sales": "on #aa ~x -@all +get +set"}
    listed = listed_users(["user sales on sanitize-payload #aa ~x -@all +get +set"])
    memory = remembered(wanted, listed)
    assert changed_users(wanted, listed, memory) == []
    # Another order after a start is no change.
    again = {"sales": "on sanitize-payload #aa ~x -@all +set +get"}
    assert changed_users(wanted, again, memory) == []
    assert changed_users(wanted, {"sales": "on nopass"}, memory) == ["user sales: changed"]
    assert changed_users({"sales": "on #bb"}, listed, memory) == ["user sales: changed"]
    assert changed_users(wanted, {**listed, "x": "on"}, memory) == ["user x: removed"]
    assert changed_users({**wanted, "y": "on"}, listed, memory) == ["user y: added"]
    assert "#aa" not in fingerprint("on #aa")


def test_lines_of_the_engines_file_go_by_key() -> None:
    text = "# hz\n\nhz 50\nreplicaof 10.0.0.5 1\nhz-other 1\n"
    assert without_keys(text, ["hz"]) == "# hz\n\nreplicaof 10.0.0.5 1\nhz-other 1\n"


def test_the_client_reads_what_redis_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    replies = b"*2\r\n$1\r\na\r\n$3\r\n\xc3\xa9x\r\n:7\r\n$-1\r\n-ERR no\r\n+OK"

    def serve() -> None:
        peer, _ = server.accept()
        peer.recv(1000)
        peer.sendall(replies)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1000)
        peer.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = Client(path, timeout=5)
    assert client.pairs("CONFIG", "GET", "é") == {"a": "éx"}
    assert client._reply() == 7
    assert client._reply() is None
    with pytest.raises(Refused, match="ERR no"):
        client._reply()
    with pytest.raises(ConnectionError):
        client._reply()
    client.close()
    thread.join()
    server.close()
