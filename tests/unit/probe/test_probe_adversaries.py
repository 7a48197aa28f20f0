"""Servers that accept and then do everything but serve: no probe outlives them or believes them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import probe_servers as servers
import pytest

SECONDS = 0.6

# Every type that talks, so configured that it must hear something.
TALKING: dict[str, dict[str, Any]] = {
    "http": {"type": "http"},
    "https": {"type": "https", "verify": False},
    "tls": {"type": "tls", "verify": False},
    "tcp": {"type": "tcp", "banner": "^220 "},
    "postgresql": {"type": "postgresql", "user": "u", "password": "canary-pw"},
    "postgresql in the clear": {
        "type": "postgresql",
        "user": "u",
        "password": "canary-pw",
        "sslmode": "disable",
    },
    "postgresql without a user": {"type": "postgresql"},
    "redis": {"type": "redis"},
    "redis with a password": {"type": "redis", "password": "canary-pw"},
    "amqp": {"type": "amqp"},
    "amqp with a user": {"type": "amqp", "user": "u", "password": "canary-pw"},
    "kafka": {"type": "kafka"},
    "kafka over tls": {"type": "kafka", "tls": True, "verify": False},
}

ADVERSARIES = {
    "says nothing": servers.silent,
    "resets": servers.reset,
    "hangs up": servers.hang_up,
    "garbage": servers.garbage,
    "floods": servers.flood,
    "drips zeros": servers.drip(b"\0"),
    "drips ones": servers.drip(b"\1"),
    "drips letters": servers.drip(b"S"),
    "drips http": servers.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100),
    "echoes": lambda connection: [connection.sendall(connection.recv(4096)) for _ in range(99)],
}


@pytest.fixture(scope="module", params=list(ADVERSARIES))
def results(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], float]]:
    """All types at once against one adversary."""
    with servers.serving(ADVERSARIES[request.param]) as port:
        probes = [
            {"name": name, "port": port, "timeout": SECONDS, **keys}
            for name, keys in TALKING.items()
        ]
        started = time.monotonic()
        found = servers.look(*probes)
        yield found, time.monotonic() - started


def test_nobody_is_believed(results: tuple[dict[str, Any], float]) -> None:
    found, _elapsed = results
    assert [probe["name"] for probe in found["probes"] if probe["healthy"]] == []
    assert found["healthy"] is False
    assert found["summary"]["unhealthy"] == len(TALKING)


def test_nobody_is_outlived(results: tuple[dict[str, Any], float]) -> None:
    found, elapsed = results
    assert elapsed < SECONDS + 0.8
    assert max(probe["elapsed"] for probe in found["probes"]) < SECONDS + 0.5


def test_errors_are_short_printable_and_free_of_secrets(
    results: tuple[dict[str, Any], float],
) -> None:
    for probe in results[0]["probes"]:
        error = probe["last_error"]
        assert error and error.isprintable() and len(error) < 400
        assert not error.startswith("unexpected"), error
        assert "canary" not in str(probe)


def test_a_timeout_says_how_far_it_got() -> None:
    with servers.serving(servers.silent) as port:
        found = servers.look_at("http", port, timeout=0.2)
    assert found["last_error"] == "timed out after 0.2 s waiting for the response"
    assert found["latency"] is None


def test_nobody_listens() -> None:
    for name, keys in TALKING.items():
        found = servers.look_at(
            **{"kind": keys["type"], "port": servers.free_port(), **_rest(keys)}
        )
        assert found["last_error"] == "connection refused", name


def _rest(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "type"}


def test_a_name_that_does_not_exist() -> None:
    found = servers.look_at("tcp", 80, address="no-such-host.invalid")
    assert found["last_error"].startswith("cannot resolve no-such-host.invalid: ")


# In a process of its own, so that it does not wait for ours: so many ports, of which the first ones
# never answer. Prints the ports.
THOUSAND = """
import asyncio, json, resource, sys

class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        body = b'{"status": "ok"}'
        head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        self.transport.write(head + body)
        self.transport.close()

async def serve(total, mute):
    loop = asyncio.get_running_loop()
    ports = []
    for number in range(total):
        kind = asyncio.Protocol if number < mute else Answers
        server = await loop.create_server(kind, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.sleep(60)

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
"""


def test_a_thousand_endpoints_of_which_fifty_never_answer() -> None:
    command = [sys.executable, "-c", THOUSAND, "1000", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = json.loads(process.stdout.readline())
            probes = [
                {"name": f"p{number}", "type": "http", "port": port, "timeout": 2,
                 "json": {"status": "ok"}}
                for number, port in enumerate(ports)
            ]  # fmt: skip
            started = time.monotonic()
            found = servers.look(*probes)
            elapsed = time.monotonic() - started
        finally:
            process.kill()
    assert found["summary"]["healthy"] == 950
    assert {probe["last_error"] for probe in found["probes"][:50]} == {
        "timed out after 2 s waiting for the response"
    }
    assert elapsed < 5
