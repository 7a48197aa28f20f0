"""The broker as its services meet it: publish and consume, and what they are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from shlex import quote
from typing import Any

import pytest

PASSWORDS = {
    "sales": "sales-password",
    "payroll": "payroll-password",
    "probe": "probe-password",
    "guest": "guest",
}
VHOSTS = {"sales": "prod/sales", "payroll": "payroll", "probe": "/", "guest": "/"}
CLIENT = """
import json, sys, pika
user, password, vhost, address, action, queue, body = sys.argv[1:]
connection = pika.BlockingConnection(pika.ConnectionParameters(
    address, 5672, vhost, pika.PlainCredentials(user, password), socket_timeout=5,
    blocked_connection_timeout=10))
channel = connection.channel()
channel.confirm_delivery()
if action == "declare":
    channel.queue_declare(queue, durable=True)
if action == "publish":
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, body.encode(), pika.BasicProperties(delivery_mode=2))
if action == "consume":
    channel.queue_declare(queue, passive=True)
    for _ in range(50):
        method, _, got = channel.basic_get(queue, auto_ack=True)
        if method:
            print(got.decode())
            break
        connection.sleep(0.1)
connection.close()
"""


def client(
    host: Any,
    user: str,
    action: str = "connect",
    queue: str = "orders",
    body: str = "",
    *,
    password: str | None = None,
    vhost: str | None = None,
    address: str = "127.0.0.1",
) -> Any:
    """What a service would do, as that user."""
    arguments = [
        user,
        PASSWORDS[user] if password is None else password,
        VHOSTS[user] if vhost is None else vhost,
        address,
        action,
        queue,
        body,
    ]
    return host.run(f"python3 -c {quote(CLIENT)} {' '.join(map(quote, arguments))}")


def eventually(ask: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def ctl(host: Any, command: str) -> Any:
    return json.loads(host.check_output(f"rabbitmqctl -q --formatter json {command}"))


def address_of(host: Any) -> str:
    return str(host.check_output("hostname -I").split()[0])


@pytest.mark.parametrize("user", ["sales", "payroll"])
def test_a_service_publishes_and_consumes(host: Any, user: str) -> None:
    published = client(host, user, "publish", "orders", f"of {user}")
    assert published.rc == 0, published.stderr
    consumed = client(host, user, "consume", "orders")
    assert (consumed.rc, consumed.stdout.strip()) == (0, f"of {user}"), consumed.stderr


def test_it_is_reached_from_the_other_host(host: Any, hosts: dict[str, Any]) -> None:
    peer = hosts[{"trixie": "bookworm", "bookworm": "trixie"}[host.check_output("hostname")]]
    done = client(peer, "sales", address=address_of(host))
    assert done.rc == 0, done.stderr


def test_a_wrong_password_is_refused(host: Any) -> None:
    assert "ACCESS_REFUSED" in client(host, "sales", password="wrong").stderr


@pytest.mark.parametrize(
    ("user", "vhost"), [("sales", "payroll"), ("payroll", "prod/sales"), ("sales", "/")]
)
def test_another_virtual_host_is_refused(host: Any, user: str, vhost: str) -> None:
    done = client(host, user, vhost=vhost)
    assert done.rc != 0
    assert "NOT_ALLOWED" in done.stderr or "access to vhost" in done.stderr, done.stderr


def test_guest_is_refused(host: Any) -> None:
    assert "ACCESS_REFUSED" in client(host, "guest").stderr
    assert [user["user"] for user in ctl(host, "list_users") if user["user"] == "guest"] == []


def test_a_probe_connects_and_may_do_nothing(host: Any) -> None:
    assert client(host, "probe").rc == 0
    assert "ACCESS_REFUSED" in client(host, "probe", "declare", "mine").stderr


def test_management_answers_for_the_monitoring_user_only(host: Any) -> None:
    url = "http://127.0.0.1:15672/api/overview"
    fetch = (
        "import base64, sys, urllib.request as r; "
        "print(r.urlopen(r.Request(sys.argv[1], headers={'Authorization': 'Basic ' + "
        "base64.b64encode(sys.argv[2].encode()).decode()})).status)"
    )
    for user, password, answer in (
        ("probe", "probe-password", "200"),
        ("probe", "wrong", "401"),
        ("sales", "sales-password", "401"),
    ):
        done = host.run(f"python3 -c {quote(fetch)} {url} {user}:{password}")
        assert answer in done.stdout + done.stderr


def test_a_queue_without_a_type_is_a_quorum_queue(host: Any) -> None:
    assert client(host, "sales", "declare", "typed").rc == 0
    queues = {q["name"]: q["type"] for q in ctl(host, "list_queues -p prod/sales name type")}
    assert queues["typed"].endswith("quorum") or queues["typed"].endswith("quorum_queue"), queues


def test_a_policy_applies(host: Any) -> None:
    for number in range(3):
        assert client(host, "sales", "publish", "capped", str(number)).rc == 0

    def counts() -> bool:
        queues = ctl(host, "list_queues -p prod/sales name messages")
        return {q["name"]: q["messages"] for q in queues}["capped"] == 2

    assert eventually(counts)


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output("ss -Hltn").splitlines()
    listening = {line.split()[3] for line in lines} - {"0.0.0.0:22", "[::]:22"}
    assert listening == {
        "127.0.0.1:5672",
        f"{address_of(host)}:5672",
        "127.0.0.1:15672",
        "127.0.0.1:25672",
        "127.0.0.1:4369",
    }


def test_limits_are_those_of_the_process(host: Any) -> None:
    pid = host.check_output("systemctl show -P MainPID rabbitmq-server")
    assert "8192" in host.check_output(f"grep 'open files' /proc/{pid}/limits")
    assert ctl(host, "status")["vm_memory_high_watermark_limit"] == 512_000_000


def test_it_was_started_once(host: Any) -> None:
    done = host.check_output(
        "journalctl --no-pager -q -u rabbitmq-server -b _PID=1 --grep 'Started rabbitmq'"
    )
    assert len(done.splitlines()) == 1, done


def test_secrets_are_for_the_broker_only(host: Any) -> None:
    cookie = host.file("/var/lib/rabbitmq/.erlang.cookie")
    assert (cookie.mode, cookie.user, cookie.content_string) == (
        0o400,
        "rabbitmq",
        "MOLECULECOOKIE",
    )
    definitions = host.file("/etc/rabbitmq/definitions.json")
    assert (definitions.mode, definitions.group) == (0o640, "rabbitmq")
    for name in ("sales", "payroll", "probe"):
        # The pattern does not match itself, where commands are logged.
        pattern = f"{name}-[p]assword"
        found = host.run(f"grep -rlE -- '{pattern}' /etc /var/lib/rabbitmq /var/log")
        assert found.stdout == ""
        assert "COOKIE" not in host.check_output("ps axww -o args")


def test_it_survives_a_reboot(host: Any, lab: Any) -> None:
    assert client(host, "sales", "publish", "durable", "from before").rc == 0
    lab("restart", host.check_output("hostname"))
    assert eventually(lambda: bool(client(host, "sales").rc == 0), 60)
    consumed = client(host, "sales", "consume", "durable")
    assert consumed.stdout.strip() == "from before", consumed.stderr


# --- what changes later, one host at a time -------------------------------------------------------


@pytest.fixture
def reconverge(host: Any, converge: Any) -> Callable[..., Any]:
    def run(*arguments: str, **variables: Any) -> Any:
        return converge("--limit", host.check_output("hostname"), *arguments, **variables)

    return run


def test_what_is_changed_by_hand_comes_back(host: Any, reconverge: Any) -> None:
    host.check_output("rabbitmqctl -q add_user 'in$(id)truder' secret")
    host.check_output("rabbitmqctl -q delete_user probe")
    done = reconverge("--diff")
    assert done.returncode == 0, done.stdout
    users = {user["user"] for user in ctl(host, "list_users")}
    assert users == {"sales", "payroll", "probe"}
    assert "removed" in done.stdout and "user probe: added" in done.stdout


def test_bad_settings_are_refused_and_the_broker_stays(host: Any, reconverge: Any) -> None:
    before = host.check_output("systemctl show -P MainPID rabbitmq-server")
    done = reconverge(rabbitmq_settings={"disk_free_limit.absolut": "1GB", "channel_max": "many"})
    assert done.returncode != 0
    assert "unknown variable: disk_free_limit.absolut" in done.stdout, done.stdout
    assert '"many"' in done.stdout
    assert "absolut = " not in host.file("/etc/rabbitmq/rabbitmq.conf").content_string
    assert host.check_output("systemctl show -P MainPID rabbitmq-server") == before


def test_a_setting_restarts_and_takes_effect(host: Any, reconverge: Any) -> None:
    before = host.check_output("systemctl show -P MainPID rabbitmq-server")
    changed = {"rabbitmq_settings": {"channel_max": 77}, "rabbitmq_erlang_cookie": "ANOTHER"}
    done = reconverge(**changed)
    assert done.returncode == 0, done.stdout
    assert host.check_output("systemctl show -P MainPID rabbitmq-server") != before
    assert host.check_output("rabbitmqctl -q environment | grep channel_max").endswith(",77},")
    # The salts follow from the cookie; the passwords are the same.
    assert client(host, "sales").rc == 0


def test_users_and_virtual_hosts_change_without_a_restart(host: Any, reconverge: Any) -> None:
    before = host.check_output("systemctl show -P MainPID rabbitmq-server")
    assert client(host, "sales", "publish", "kept", "still here").rc == 0
    assert client(host, "payroll", "publish", "kept", "still here").rc == 0
    variables: dict[str, Any] = {
        "rabbitmq_settings": {"channel_max": 77},
        "rabbitmq_erlang_cookie": "ANOTHER",
        "rabbitmq_vhosts": [{"name": "/"}, {"name": "prod/sales"}, {"name": "fresh"}],
        "rabbitmq_users": [
            {
                "name": "sales",
                "password": "another-password",
                "permissions": [{"vhost": "prod/sales", "configure": "^$"}, {"vhost": "fresh"}],
            },
        ],
        "rabbitmq_policies": [],
        "rabbitmq_plugins": ["rabbitmq_management", "rabbitmq_shovel"],
    }
    for arguments in (["--check"], []):
        done = reconverge("--diff", *arguments, **variables)
        assert done.returncode == 0, done.stdout
        for words in (
            "user sales: password changed",
            "permissions sales on prod/sales: configure changed",
            "user payroll: removed",
            "vhost fresh: added",
            "policy prod/sales on cap: removed",
            "plugins: rabbitmq_management, rabbitmq_shovel enabled",
        ):
            assert words in done.stdout, done.stdout
        # Ansible folds its warnings to the terminal's width.
        folded = " ".join(done.stdout.split())
        assert "payroll is not listed and has queues (" in folded
        assert "another-password" not in done.stdout
        if arguments:
            assert client(host, "sales").rc == 0, "check mode changes nothing"
    assert host.check_output("systemctl show -P MainPID rabbitmq-server") == before

    assert "ACCESS_REFUSED" in client(host, "sales").stderr
    assert client(host, "sales", password="another-password", vhost="fresh").rc == 0
    refused = client(host, "sales", "declare", "new", password="another-password")
    assert "ACCESS_REFUSED" in refused.stderr
    consumed = client(host, "sales", "consume", "kept", password="another-password")
    assert consumed.stdout.strip() == "still here"
    assert "ACCESS_REFUSED" in client(host, "payroll").stderr

    again = reconverge(**variables)
    assert "changed=0" in again.stdout, again.stdout

    removal = {**variables, "rabbitmq_remove": ["users", "permissions", "policies", "vhosts"]}
    done = reconverge("--diff", **removal)
    assert "vhost payroll: removed" in done.stdout, done.stdout
