"""Retries, successes in a row, latency, the deadline, and many at once."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from typing import Any

import probe_servers as servers
import pytest
from ansible_collections.berth.platform.plugins.module_utils.probe import scheduler
from ansible_collections.berth.platform.plugins.module_utils.probe.connection import Resolver
from probe_servers import http, look, look_at, serving


def script(*answers: bytes) -> servers.Handler:
    """Answers in turn, the last one ever after."""
    turn = itertools.count()

    def handler(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answers[min(next(turn), len(answers) - 1)])

    return handler


GOOD, BAD, WORSE = http("ok"), http("bad", "503 no"), http("worse", "500 no")


@pytest.mark.parametrize(
    ("answers", "keys", "healthy", "attempts"),
    [
        ((GOOD,), {}, True, 1),
        ((BAD,), {}, False, 1),
        ((BAD, GOOD), {}, False, 1),
        ((BAD, GOOD), {"retries": 1}, True, 2),
        ((BAD, BAD, GOOD), {"retries": 1}, False, 2),
        ((GOOD,), {"successes": 3}, True, 3),
        ((GOOD, GOOD, BAD), {"successes": 3}, False, 3),
        ((GOOD, BAD, GOOD, GOOD, GOOD), {"successes": 3, "retries": 1}, True, 5),
        ((GOOD, BAD, GOOD, BAD), {"successes": 2, "retries": 1}, False, 4),
    ],
)
def test_retries_and_successes(
    answers: tuple[bytes, ...], keys: dict[str, Any], healthy: bool, attempts: int
) -> None:
    with serving(script(*answers)) as port:
        found = look_at("http", port, interval=0.01, **keys)
    assert (found["healthy"], found["attempts"]) == (healthy, attempts)


def test_first_and_last_error() -> None:
    with serving(script(BAD, WORSE)) as port:
        found = look_at("http", port, retries=1, interval=0.01)
    assert found["first_error"] == "status 503, not 200: bad"
    assert found["last_error"] == "status 500, not 200: worse"
    with serving(script(BAD, GOOD)) as port:
        found = look_at("http", port, retries=1, interval=0.01)
    assert found["healthy"] and found["last_error"] == "status 503, not 200: bad"
    assert found["detail"] == {"status": 200, "bytes": 2}


def test_interval_is_between_attempts() -> None:
    with serving(script(GOOD)) as port:
        found = look_at("http", port, successes=3, interval=0.2)
    assert 0.4 <= found["elapsed"] < 0.8


def test_latency_bound() -> None:
    def slow(connection: socket.socket) -> None:
        connection.recv(65536)
        time.sleep(0.2)
        connection.sendall(GOOD)

    with serving(slow) as port:
        found = look_at("http", port, latency=0.1)
        fine = look_at("http", port, latency=1)
    assert not found["healthy"] and fine["healthy"]
    assert found["last_error"].endswith("s, more than the 0.1 s allowed")
    assert found["latency"] >= 0.2 and found["detail"]["status"] == 200


def test_deadline_ends_everything() -> None:
    with (
        serving(servers.silent) as mute,
        serving(script(GOOD)) as good,
        serving(script(BAD)) as bad,
    ):
        started = time.monotonic()
        found = look(
            {"name": "good", "type": "http", "port": good},
            {"name": "mute", "type": "http", "port": mute, "timeout": 60},
            {"name": "bad", "type": "http", "port": bad, "retries": 1000, "interval": 0.05},
            {"name": "patient", "type": "http", "port": good, "successes": 99, "interval": 30},
            {"name": "command", "type": "command", "argv": ["sleep", "60"], "timeout": 60},
            deadline=0.5,
        )
        elapsed = time.monotonic() - started
    assert elapsed < 1.5
    probes = {probe["name"]: probe for probe in found["probes"]}
    assert probes.pop("good")["healthy"]
    assert {probe["last_error"] for probe in probes.values()} == {"deadline"}
    assert not any(probe["healthy"] for probe in probes.values())
    assert probes["mute"]["first_error"] == "deadline"
    assert probes["bad"]["first_error"] == "status 503, not 200: bad"
    assert found["summary"] == {
        "total": 5, "healthy": 1, "unhealthy": 4, "elapsed": found["summary"]["elapsed"],
    }  # fmt: skip


def test_a_probe_that_never_got_its_turn() -> None:
    with serving(servers.silent) as mute:
        found = look(
            {"name": "first", "type": "http", "port": mute, "timeout": 60},
            {"name": "second", "type": "http", "port": mute},
            deadline=0.3,
            parallel=1,
        )
    second = found["probes"][1]
    assert (second["attempts"], second["elapsed"], second["last_error"]) == (0, 0.0, "deadline")


def test_parallel_is_a_limit() -> None:
    now, most = itertools.count(), []
    gate = threading.Lock()
    inside: list[int] = []

    def handler(connection: socket.socket) -> None:
        number = next(now)
        with gate:
            inside.append(number)
            most.append(len(inside))
        connection.recv(65536)
        time.sleep(0.05)
        with gate:
            inside.remove(number)
        connection.sendall(GOOD)

    with serving(handler) as port:
        found = look(
            *[{"name": f"p{n}", "type": "http", "port": port} for n in range(12)], parallel=3
        )
    assert found["healthy"] and max(most) == 3


def test_waiting_for_the_next_attempt_takes_no_turn_from_others() -> None:
    with serving(script(BAD)) as bad, serving(script(GOOD)) as good:
        started = time.monotonic()
        found = look(
            {"name": "bad", "type": "http", "port": bad, "retries": 1, "interval": 1},
            *[{"name": f"p{n}", "type": "http", "port": good} for n in range(5)],
            parallel=1,
        )
    assert max(probe["elapsed"] for probe in found["probes"][1:]) < 0.5
    assert time.monotonic() - started < 2


def test_no_probes_are_healthy() -> None:
    found = look()
    assert found["healthy"] is True and found["probes"] == []


def test_a_surprise_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def surprise(_attempt: Any) -> dict[str, Any]:
        raise KeyError("x")

    monkeypatch.setitem(scheduler.CHECKS, "tcp", surprise)  # type: ignore[arg-type]
    with serving(script(GOOD)) as port:
        found = look(
            {"name": "a", "type": "tcp", "port": 1}, {"name": "b", "type": "http", "port": port}
        )
    assert found["probes"][0]["last_error"] == "unexpected KeyError: 'x'"
    assert found["probes"][1]["healthy"]


def test_descriptors_bound_what_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(scheduler.resource, "getrlimit", lambda _which: (256, 400))
    monkeypatch.setattr(scheduler.resource, "setrlimit", lambda _which, new: limits.append(new))
    assert scheduler._descriptors(10) == 10 and limits == []
    assert scheduler._descriptors(1000) == (400 - 64) // 6
    assert limits == [(400, 400)]


def test_a_name_server_that_does_not_answer_outlives_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()

    def stuck(*_args: Any, **_kwargs: Any) -> Any:
        released.wait(10)
        raise OSError("late")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    started = time.monotonic()
    found = look_at("tcp", 80, address="slow.example.com", timeout=0.3)
    assert found["last_error"] == "timed out after 0.3 s resolving the name"
    assert time.monotonic() - started < 1
    released.set()


def test_a_name_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(name: str, *_args: Any, **_kwargs: Any) -> Any:
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with serving(script(GOOD)) as port:
        found = look(
            *[{"name": f"p{n}", "type": "http", "port": port, "address": "host.example.com"}
              for n in range(20)]
        )  # fmt: skip
    assert found["healthy"] and asked == ["host.example.com"]


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def two(_self: Resolver, _name: str) -> list[str]:
        # TEST-NET-1 is routed nowhere (RFC 5737).
        return ["192.0.2.1", "127.0.0.1"]

    monkeypatch.setattr(Resolver, "addresses", two)
    with serving(script(GOOD)) as port:
        found = look_at("http", port, address="two.example.com", timeout=1)
    assert found["healthy"], found["last_error"]
