"""Redis as its services meet it: what they may do, what is kept, and what changes under them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from shlex import quote
from typing import Any

import pytest

PASSWORDS = {
    "admin": "admin-password",
    "probe": "probe-password",
    "sales": "sales-password",
    "payroll": "payroll-password",
}
PORTS = {"queue": 6379, "cache": 6380}
CACHE: dict[str, Any] = {
    "name": "cache",
    "port": 6380,
    "memory": "64M",
    "eviction": "allkeys-lru",
    "aof": False,
    "save": [],
    "users": [{"name": "sales", "password": "sales-password"}],
}


def redis(
    host: Any,
    user: str | None,
    *commands: str,
    instance: str = "queue",
    address: str = "127.0.0.1",
    password: str | None = None,
) -> list[str]:
    """The replies' lines to what a client sends, without that to AUTH if it is OK."""
    lines = list(commands)
    if user is not None:
        lines.insert(0, f"AUTH {user} {password or PASSWORDS[user]}")
    asked = quote("\n".join(lines) + "\n")
    done = host.run(f"printf %s {asked} | redis-cli -h {address} -p {PORTS[instance]}")
    replies = [line for line in str(done.stdout + done.stderr).splitlines() if line]
    return replies[1:] if user is not None and replies[:1] == ["OK"] else replies


def info(host: Any, field: str, instance: str = "queue") -> str:
    lines = redis(host, "admin", "INFO", instance=instance)
    return dict(line.split(":", 1) for line in lines if ":" in line)[field]


def setting(host: Any, key: str, instance: str = "queue") -> str:
    return redis(host, "admin", f"CONFIG GET {key}", instance=instance)[-1]


def eventually(ask: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def address_of(host: Any) -> str:
    return str(host.check_output("hostname -I").split()[0])


def queue(**more: Any) -> dict[str, Any]:
    """The instance as molecule.yml has it, but for an address and a primary."""
    users = [
        {"name": "sales", "password": "sales-password"},
        {"name": "payroll", "password": "payroll-password", "commands": ["+info", "-scan"]},
    ]
    listen = ["127.0.0.1", "{{ ansible_host }}"]
    wanted = {"name": "queue", "port": 6379, "listen": listen, "memory": "128M", "users": users}
    settings = {"repl-diskless-sync-delay": 0} | more.pop("settings", {})
    return copy.deepcopy({**wanted, "settings": settings, **more})


@pytest.fixture
def primary(hosts: dict[str, Any]) -> Any:
    return hosts["bookworm"]


@pytest.fixture
def replica(hosts: dict[str, Any]) -> Any:
    return hosts["trixie"]


# --- on each host ---------------------------------------------------------------------------------


def test_a_service_writes_and_reads(host: Any) -> None:
    commands = ("SET sales:a 1", "GET sales:a", 'EVAL "return 7" 0', "DEL sales:a")
    assert redis(host, "sales", *commands, instance="cache") == ["OK", "1", "7", "1"]


@pytest.mark.parametrize("instance", PORTS)
def test_strangers_are_refused(host: Any, instance: str) -> None:
    assert redis(host, None, "PING", instance=instance)[0].startswith("NOAUTH")
    for user, password in (("sales", "wrong"), ("nobody", "x"), ("default", "x")):
        refused = redis(host, user, "PING", instance=instance, password=password)
        assert refused[0].startswith("WRONGPASS"), refused
        assert refused[-1].startswith("NOAUTH"), refused


def test_a_user_of_another_instance_is_refused(host: Any) -> None:
    assert redis(host, "payroll", "PING", instance="cache")[0].startswith("WRONGPASS")


def test_a_service_is_refused_what_is_not_its_own(host: Any) -> None:
    """On both versions, whose dangerous commands differ."""
    commands = [
        *("GET payroll:a", "MGET sales:a payroll:a", "PUBLISH payroll:a x", "KEYS sales:*"),
        *("FLUSHALL", "FLUSHDB", "CONFIG GET dir", "ACL LIST", "SHUTDOWN", "REPLICAOF NO ONE"),
        *("SWAPDB 0 1", "MONITOR", "INFO", "FUNCTION FLUSH", "SCRIPT FLUSH", "CLIENT LIST"),
        *("SAVE", "MODULE LIST", "DEBUG SLEEP 0"),
        "EVAL \"return redis.call('get','payroll:a')\" 0",
    ]
    refused = redis(host, "sales", *commands)
    assert len(refused) == len(commands), refused
    for command, reply in zip(commands, refused, strict=True):
        # DEBUG is off altogether. A script's refusal is worded otherwise in 7.0 and 8.0.
        words = "NOPERM", "not allowed", "No permissions", "can't access", "ACL failure"
        assert any(word in reply for word in words), (command, reply)


def test_rules_of_its_own_are_added(primary: Any) -> None:
    assert redis(primary, "payroll", "INFO server")[0] == "# Server"
    assert redis(primary, "payroll", "SCAN 0")[0].startswith("NOPERM")
    assert redis(primary, "sales", "SCAN 0")[0] == "0"


def test_a_probe_pings_and_does_nothing(host: Any) -> None:
    assert redis(host, "probe", "PING", "INFO server")[:2] == ["PONG", "# Server"]
    for command in ("GET x", "SET x y", "CONFIG GET dir", "CLIENT LIST"):
        assert redis(host, "probe", command)[0].startswith("NOPERM")


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output("ss -Hltn").splitlines()
    listening = {line.split()[3] for line in lines} - {"0.0.0.0:22", "[::]:22"}
    assert listening == {"127.0.0.1:6379", f"{address_of(host)}:6379", "127.0.0.1:6380"}


def test_the_distributions_instance_is_masked(host: Any) -> None:
    assert host.run("systemctl is-enabled redis-server.service").stdout.strip() == "masked"
    for name in PORTS:
        assert host.service(f"redis-server@{name}").is_enabled


def test_a_cache_evicts_and_a_queue_does_not(host: Any) -> None:
    assert setting(host, "maxmemory", "cache") == str(64 * 1024**2)
    assert setting(host, "maxmemory") == str(128 * 1024**2)
    assert setting(host, "maxmemory-policy") == "noeviction"
    script = "for i=1,20000 do redis.call('set','sales:PART:'..i,string.rep('x',1000)) end"
    # Past its limit, in parts, since a script is not interrupted by evictions.
    fill = [f'EVAL "{script.replace("PART", str(part))}" 0' for part in range(4)]
    redis(host, "admin", *fill, instance="cache")
    assert redis(host, "sales", "SET sales:last 1", instance="cache") == ["OK"]
    assert int(info(host, "evicted_keys", "cache")) > 0
    assert eventually(lambda: int(info(host, "used_memory", "cache")) < 66 * 1024**2)


def test_passwords_are_in_no_readable_place(host: Any) -> None:
    for name in PORTS:
        for suffix, mode, group in (
            ("acl", 0o640, "redis"),
            ("auth", 0o640, "redis"),
            ("state", 0o600, "root"),
        ):
            file = host.file(f"/etc/redis/berth/{name}.{suffix}")
            assert (file.mode, file.user, file.group) == (mode, "root", group)
    # The pattern does not match itself, where commands are logged.
    found = host.run("grep -rlE 'sales-[p]assword|payroll-[p]assword' /etc /var/lib/redis")
    assert found.stdout == ""
    # What the tests type is in the journal of sudo or sshd at most, never in Redis's.
    words = host.check_output("journalctl -q --no-pager -u 'redis-server@*'")
    assert "-password" not in words
    assert "password" not in host.check_output("ps axww -o args | grep '[r]edis-server'")


def test_it_can_write_its_data_only(host: Any) -> None:
    pid = host.check_output("systemctl show -P MainPID redis-server@queue")
    mounts = [
        line.split() for line in host.file(f"/proc/{pid}/mountinfo").content_string.split("\n")
    ]
    options = {fields[4]: fields[5].split(",")[0] for fields in mounts if fields}
    assert options["/"] == "ro"
    assert options["/var/lib/redis/queue"] == "rw"
    assert "/etc/redis" not in options
    assert "/var/lib/redis/cache" not in options


# --- replication ----------------------------------------------------------------------------------


def test_what_is_written_is_replicated(primary: Any, replica: Any) -> None:
    assert eventually(lambda: info(replica, "master_link_status") == "up")
    assert redis(primary, "sales", "SET sales:order 42") == ["OK"]
    assert eventually(lambda: redis(replica, "sales", "GET sales:order") == ["42"])
    assert redis(replica, "sales", "SET sales:order 43")[0].startswith("READONLY")
    assert info(primary, "connected_slaves") == "1"


def test_data_is_there_after_a_crash(primary: Any) -> None:
    assert redis(primary, "sales", "SET sales:kept yes") == ["OK"]
    time.sleep(1.2)  # appendfsync everysec
    primary.check_output("systemctl kill -s KILL redis-server@queue")
    assert eventually(lambda: redis(primary, "sales", "GET sales:kept") == ["yes"])


# --- what changes later ---------------------------------------------------------------------------


def test_passwords_and_settings_change_without_a_restart(
    primary: Any, replica: Any, converge: Any
) -> None:
    run_ids = [info(host, "run_id") for host in (primary, replica)]
    users = [{"name": "sales", "password": "another-password"}, queue()["users"][1]]
    variables = {
        "redis_admin_password": "another-admin",
        "redis_replication_password": "another replication",
        "redis_instances": [
            {**CACHE, "memory": "96M", "eviction": "allkeys-lfu"},
            queue(users=users, settings={"slowlog-max-len": 77}),
        ],
    }
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, **variables)
        assert done.returncode == 0, done.stdout
        for words in (
            "cache: maxmemory changed from '67108864' to '100663296'",
            "cache: maxmemory-policy changed",
            "queue: slowlog-max-len changed from '128' to '77'",
            "queue: masterauth changed",
            "queue: user sales: changed",
            "queue: user admin: changed",
        ):
            assert words in done.stdout, done.stdout
        assert "user payroll: changed" not in done.stdout
        assert "another" not in done.stdout
        if arguments:
            assert redis(primary, "sales", "PING") == ["PONG"], "check mode changes nothing"
    PASSWORDS["admin"] = "another-admin"
    assert [info(host, "run_id") for host in (primary, replica)] == run_ids
    assert setting(primary, "maxmemory", "cache") == str(96 * 1024**2)
    assert redis(primary, "sales", "PING")[0].startswith("WRONGPASS")
    for host in (primary, replica):
        assert redis(host, "sales", "PING", password="another-password") == ["PONG"]
    assert eventually(lambda: info(replica, "master_link_status") == "up")

    PASSWORDS["admin"] = "admin-password"
    # Back, with a setting less: that one takes a restart, and is gone then.
    done = converge()
    assert done.returncode == 0, done.stdout
    assert setting(primary, "slowlog-max-len") == "128"
    assert info(primary, "run_id") != run_ids[0]
    assert eventually(lambda: info(replica, "master_link_status") == "up")


def test_what_is_changed_by_hand_comes_back(primary: Any, converge: Any) -> None:
    redis(primary, "admin", "ACL SETUSER intruder on nopass ~* +@all", "ACL SETUSER sales ~*")
    redis(primary, "admin", "CONFIG SET maxmemory 1gb", "CONFIG REWRITE")
    done = converge("--diff", "--limit", "bookworm")
    assert done.returncode == 0, done.stdout
    for words in ("user intruder: removed", "user sales: changed", "queue: maxmemory changed"):
        assert words in done.stdout, done.stdout
    assert redis(primary, "sales", "GET payroll:a")[0].startswith("NOPERM")
    # What the engine has written does not win at the next start, either.
    primary.check_output("systemctl restart redis-server@queue")
    assert eventually(lambda: redis(primary, "admin", "PING") == ["PONG"])
    assert setting(primary, "maxmemory") == str(128 * 1024**2)
    assert setting(primary, "save") == "3600 1"
    assert "changed=0" in converge("--limit", "bookworm").stdout


def test_bad_settings_and_users_are_refused_and_redis_stays(primary: Any, converge: Any) -> None:
    before = info(primary, "run_id")
    users = [{"name": "x", "password": "x1y2z3", "commands": ["+nonsense"]}]
    cache = {**CACHE, "settings": {"maxmemory-policy": "allkeys-lruu"}}
    done = converge("--limit", "bookworm", redis_instances=[cache, queue(users=users)])
    assert done.returncode != 0
    for words in ("allkeys-lruu", "must be one of", "queue.acl:5", "Unknown command or category"):
        assert words in done.stdout, done.stdout
    assert "x1y2z3" not in done.stdout
    assert "lruu" not in primary.file("/etc/redis/berth/cache.conf").content_string
    assert "user x" not in primary.file("/etc/redis/berth/queue.acl").content_string
    assert info(primary, "run_id") == before


def test_a_promoted_replica_stays_promoted(primary: Any, replica: Any, converge: Any) -> None:
    assert redis(replica, "admin", "REPLICAOF NO ONE") == ["OK"]
    done = converge("--limit", "trixie")
    assert "changed=0" in done.stdout, done.stdout
    assert info(replica, "role") == "master"

    # Nor is it by a restart that the role itself asks for, though nobody had it written down. The
    # same restart turns on an append-only file, which must not begin empty.
    redis(primary, "sales", "SET sales:early 1", instance="cache")
    follow = {"primary": {"host": address_of(primary), "port": 6379}}
    cache = {**CACHE, "aof": True, "settings": {"databases": 3}}
    done = converge(redis_limits={"nofile": 4096}, redis_instances=[cache, queue(**follow)])
    assert done.returncode == 0, done.stdout
    pid = replica.check_output("systemctl show -P MainPID redis-server@queue")
    assert "4096" in replica.check_output(f"grep 'open files' /proc/{pid}/limits")
    assert info(replica, "role") == "master"
    assert info(primary, "role") == "master", "what is given later does not count, either"
    assert redis(replica, "sales", "GET sales:order") == ["42"]
    assert redis(replica, "sales", "SET sales:order 44") == ["OK"]
    assert setting(primary, "databases", "cache") == "3"
    assert redis(primary, "sales", "GET sales:early", instance="cache") == ["1"]


def test_an_instance_that_is_not_listed_stops_and_keeps_its_data(
    primary: Any, converge: Any
) -> None:
    done = converge("--limit", "bookworm", redis_instances=[queue()])
    assert done.returncode == 0, done.stdout
    assert not primary.service("redis-server@cache").is_running
    assert not primary.service("redis-server@cache").is_enabled
    assert not primary.file("/etc/redis/berth/cache.state").exists
    assert primary.file("/var/lib/redis/cache/redis.conf").exists
