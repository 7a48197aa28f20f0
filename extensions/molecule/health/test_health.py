"""Real servers: well, stopped, stunned, asked with a wrong password; and what is said of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Converge = Callable[..., "subprocess.CompletedProcess[str]"]
POSTGRESQL = {"type": "postgresql", "timeout": 1}
CREDENTIALS = {"user": "scram", "password": "canary-ü-database", "database": "postgres"}
BROKER = {"type": "amqp", "user": "joe", "password": "canary-broker", "vhost": "shop", "timeout": 2}


def probes(*each: dict[str, Any]) -> list[dict[str, Any]]:
    """Named by their number, where they have no name."""
    return [{"name": f"p{number}", **probe} for number, probe in enumerate(each)]


@contextmanager
def stopped(host: Any, unit: str) -> Iterator[None]:
    """The unit does not run inside the block."""
    host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        host.check_output("systemctl start %s", unit)


@contextmanager
def stunned(host: Any, unit: str) -> Iterator[None]:
    """The unit's processes do nothing inside the block; their sockets still accept."""
    host.check_output("systemctl kill --signal=STOP %s", unit)
    try:
        yield
    finally:
        host.check_output("systemctl kill --signal=CONT %s", unit)


def test_the_table_is_for_people(converge: Converge) -> None:
    done = converge()
    assert done.returncode == 0, done.stdout
    lines = [re.sub(r"  +", "|", line.strip()) for line in done.stdout.splitlines()]
    assert "NAME|TYPE|TARGET|STATE|LATENCY|SAYS" in lines
    for line in (
        "page|http|http://127.0.0.1:8080/health|healthy|",
        "md5|postgresql|127.0.0.1:5432|healthy|",
        "nginx|systemd|nginx.service|healthy|",
    ):
        assert [each for each in lines if each.startswith(line)]
    for remark in ("gave 1", "asks for credentials", "RabbitMQ", "master", "30 days left"):
        assert remark in done.stdout
    assert "UNHEALTHY" not in done.stdout


def test_check_mode_probes_too(converge: Converge) -> None:
    done = converge("--check", "--diff")
    assert done.returncode == 0 and "healthy" in done.stdout


def test_a_stopped_service_is_named_with_its_log_and_the_exit_code_tells(
    host: Any, converge: Converge
) -> None:
    with stopped(host, "nginx"):
        done = converge()
        shown = converge(health_fail=False)
    assert done.returncode == 2
    assert "5 of 18 probes are unhealthy:" in done.stdout
    assert (
        "- page (http http://127.0.0.1:8080/health): connection refused (attempt 4);"
        " look at: journalctl -u nginx.service" in done.stdout
    )
    assert (
        "- nginx (systemd nginx.service): inactive (dead); look at: journalctl -u nginx.service"
        in done.stdout
    )
    assert shown.returncode == 0 and "UNHEALTHY" in shown.stdout


@pytest.mark.parametrize(
    ("unit", "probe", "error"),
    [
        ("nginx", {"type": "http", "port": 8080}, "waiting for the response"),
        ("nginx", {"type": "tls", "port": 8443, "verify": False}, "waiting for the TLS handshake"),
        ("postgresql@*", POSTGRESQL, "asking for TLS"),
        (
            "postgresql@*",
            {**POSTGRESQL, **CREDENTIALS, "sslmode": "disable"},
            "authenticating",
        ),
        ("redis-server", {"type": "redis"}, "waiting for the reply to PING"),
        ("rabbitmq-server", BROKER, "waiting for Connection.Start"),
    ],
)
def test_a_stunned_server_accepts_and_is_unhealthy(
    host: Any, converge: Converge, unit: str, probe: dict[str, Any], error: str
) -> None:
    with stunned(host, unit):
        done = converge(health_probes=probes({**probe, "timeout": 1}))
    assert f"timed out after 1 s {error}" in done.stdout


def test_wrong_credentials(converge: Converge) -> None:
    done = converge(
        health_probes=probes(
            {**POSTGRESQL, **CREDENTIALS, "password": "canary-wrong"},
            {**POSTGRESQL, **CREDENTIALS, "database": "nothing"},
            {"type": "redis", "password": "canary-wrong"},
            {**BROKER, "password": "canary-wrong"},
            {**BROKER, "vhost": "other"},
            {**POSTGRESQL, "user": "md5", "password": "canary-wrong", "database": "postgres"},
        )
    )
    for error in (
        'p0 (postgresql 127.0.0.1:5432): 28P01 password authentication failed for user "scram"',
        'p1 (postgresql 127.0.0.1:5432): 3D000 database "nothing" does not exist',
        "p2 (redis 127.0.0.1:6379): AUTH refused: WRONGPASS invalid username-password pair",
        "p3 (amqp 127.0.0.1:5672): refused: 403 ACCESS_REFUSED",
        "p4 (amqp 127.0.0.1:5672): refused: 530 NOT_ALLOWED - vhost other not found",
        'p5 (postgresql 127.0.0.1:5432): 28P01 password authentication failed for user "md5"',
    ):
        assert error in done.stdout
    assert "canary" not in done.stdout


def test_queries_cannot_write(host: Any, converge: Converge) -> None:
    query = "CREATE TABLE written (n int)"
    done = converge(health_probes=probes({**POSTGRESQL, **CREDENTIALS, "query": query}))
    assert "25006 cannot execute CREATE TABLE in a read-only transaction" in done.stdout


def test_a_query_that_takes_too_long_is_ended_on_the_server(host: Any, converge: Converge) -> None:
    query = "SELECT pg_sleep(60)"
    done = converge(health_probes=probes({**POSTGRESQL, **CREDENTIALS, "query": query}))
    assert "timed out after 1 s" in done.stdout or "57014 canceling statement" in done.stdout
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    host.check_output("sleep 1")
    assert host.check_output(f'runuser -u postgres -- psql -Atc "{running}"') == "0"


def test_a_server_that_takes_nobody_more_is_unhealthy(host: Any, converge: Converge) -> None:
    host.check_output("runuser -u postgres -- psql -c 'ALTER ROLE scram CONNECTION LIMIT 0'")
    try:
        done = converge(health_probes=probes({**POSTGRESQL, **CREDENTIALS}))
    finally:
        host.check_output("runuser -u postgres -- psql -c 'ALTER ROLE scram CONNECTION LIMIT -1'")
    assert '53300 too many connections for role "scram"' in done.stdout


def test_units_that_do_not_stay_up(host: Any, converge: Converge) -> None:
    host.run("systemctl start flapping broken")
    done = converge(
        health_probes=probes(
            {"type": "systemd", "unit": "flapping", "successes": 4, "interval": 0.3},
            {"type": "systemd", "unit": "broken"},
            {"type": "systemd", "unit": "missing"},
        )
    )
    host.check_output("systemctl stop flapping")
    assert "3 of 3 probes are unhealthy" in done.stdout
    flapping = done.stdout.partition("- p0 (systemd flapping.service): ")[2].splitlines()[0]
    assert flapping.startswith(("flapping: restarted", "activating (auto-restart"))
    assert "p1 (systemd broken.service): failed (failed), result exit-code" in done.stdout
    assert "p2 (systemd missing.service): no such unit" in done.stdout


def test_a_service_that_comes_up_late_is_waited_for(host: Any, converge: Converge) -> None:
    host.check_output("systemctl stop redis-server")
    host.check_output("systemd-run sh -c 'sleep 4; systemctl start redis-server'")
    probe = {"type": "redis", "password": "canary-cache", "retries": 40, "interval": 0.5}
    done = converge(health_probes=probes({**probe, "successes": 2}))
    assert done.returncode == 0, done.stdout
    assert "before: connection refused" in done.stdout


def test_secrets_are_nowhere(host: Any, converge: Converge) -> None:
    host.check_output("journalctl --rotate")
    host.check_output("journalctl --vacuum-time=1s")
    echo = {"type": "http", "port": 8080, "path": "/echo?token=canary-query"}
    canaries = {"headers": {"Authorization": "Bearer canary-bearer"}}
    done = converge("-vvv")
    echoed = converge("-vvv", health_probes=probes({**echo, **canaries}))
    assert done.returncode == 0 and "status 500" in echoed.stdout
    journal = host.check_output(
        "journalctl --no-pager --output=cat _TRANSPORT=syslog + _TRANSPORT=journal"
    )
    assert "health_probe" in journal or "probes=" in journal
    for where in (done.stdout, echoed.stdout.replace(str(canaries), ""), journal):
        assert "canary" not in where


def test_servers_are_left_in_good_order(host: Any, converge: Converge) -> None:
    """PostgreSQL logs clients that vanish: ours do not."""
    log = host.file(host.check_output("ls /var/log/postgresql/*.log"))
    before = len(log.content_string)
    assert converge().returncode == 0
    lines = log.content_string[before:]
    assert "connection received" in lines
    for complaint in ("ERROR", "FATAL", "could not receive", "unexpected EOF"):
        assert complaint not in lines


def test_four_hundred_probes_in_one_call(converge: Converge) -> None:
    each = [
        {"type": "http", "port": 8080, "json": {"status": "ok"}, "latency": 2},
        {"type": "https", "port": 8443, "verify": False},
        {"type": "systemd", "unit": "nginx"},
        {"type": "redis", "password": "canary-cache"},
    ]
    done = converge(health_probes=probes(*(each * 100)))
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count(" healthy ") == 400
