"""The load client counts every request that a server drops, and none that it answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import json
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import load
import pytest
from ansible_collections.berth.platform.plugins.module_utils import certificates

NAME = "www.example.com"


class Server:
    """A server that counts, and misbehaves as it is told."""

    def __init__(self, tls: Path | None = None) -> None:
        self.version = "1.0"
        # What becomes of a request, by its number.
        self.fault: Callable[[int], str] = lambda number: ""
        self.requests = 0
        # How many the connection of the latest request had before.
        self.before = 0
        self.connections = 0
        self.faults = 0
        self.chunked = False
        self.seen: list[str] = []
        self.peers: set[str] = set()
        self.websockets: dict[asyncio.StreamWriter, None] = {}
        self.refuse_websockets = False
        self.mute = False
        self.loop = asyncio.new_event_loop()
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "fullchain.pem", tls / "privkey.pem")
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        )
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self) -> None:
        async def end() -> None:
            self.server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.add(writer.get_extra_info("peername")[0])
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            before = 0
            while await self.answer(reader, writer, before):
                before += 1
        with contextlib.suppress(OSError):
            writer.close()

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: int
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "Upgrade: websocket" in head:
            await self.websocket(head, reader, writer)
            return False
        self.requests += 1
        self.before = before
        self.seen.append(head.partition(" HTTP")[0])
        fault = self.fault(self.requests)
        self.faults += bool(fault)
        body = json.dumps({"name": "x", "version": self.version}).encode()
        status = "503 Service Unavailable" if fault == "status" else "200 OK"
        if fault == "drop":
            writer.transport.abort()
            return False
        if fault == "garbage":
            writer.write(b"hello\r\n\r\n")
            return False
        if fault == "hang":
            await asyncio.sleep(60)
        last = "Connection: close" in head or fault == "last"
        more = "Connection: close\r\n" if last else ""
        if self.chunked:
            halves = (body[:5], body[5:])
            body = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
            more += "Transfer-Encoding: chunked\r\n"
        else:
            more += f"Content-Length: {len(body)}\r\n"
        data = f"HTTP/1.1 {status}\r\n{more}\r\n".encode() + body
        if fault == "half":
            writer.write(data[:-5])
            return False
        # In two packets: an answer need not come in one.
        writer.write(data[:30])
        await writer.drain()
        writer.write(data[30:])
        await writer.drain()
        return not last and fault != "silently last"

    async def websocket(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.refuse_websockets:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        (key,) = [each.split(": ")[1] for each in head.split("\r\n") if "WebSocket-Key" in each]
        accept = base64.b64encode(hashlib.sha1(key.encode() + load.GUID).digest()).decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self.websockets[writer] = None
        tick = b'{"tick": 1}'
        writer.write(struct.pack("!BB", 0x81, len(tick)) + tick)
        try:
            while True:
                first, size = await reader.readexactly(2)
                mask = await reader.readexactly(4)
                size &= 0x7F
                payload = bytes(
                    byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(size))
                )
                if first == 0x88:
                    return
                if not self.mute:
                    writer.write(struct.pack("!BB", first, size) + payload)
        finally:
            self.websockets.pop(writer)

    def close_websockets(self, code: int) -> int:
        """With a code, or with none and at once."""

        def close() -> int:
            found = list(self.websockets)
            for writer in found:
                if code:
                    writer.write(struct.pack("!BBH", 0x88, 2, code))
                else:
                    writer.transport.abort()
            return len(found)

        async def closed() -> int:
            return close()

        return asyncio.run_coroutine_threadsafe(closed(), self.loop).result(10)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = certificates.load_authority(certificates.new_authority("test"))
    now = datetime.datetime.now(datetime.timezone.utc)
    material = certificates.issue(certificates.Wanted("web", (NAME,), ()), authority, now)
    for part in ("fullchain", "privkey", "ca"):
        (folder / f"{part}.pem").write_text(getattr(material, part))
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def secure(tls: Path) -> Iterator[Server]:
    found = Server(tls)
    yield found
    found.close()


def run(
    server: Server,
    seconds: float = 1.0,
    during: Callable[[load.Client], Any] | None = None,
    enough: Callable[[load.Client], bool] = lambda client: True,
    **options: Any,
) -> dict[str, Any]:
    """Load for a while, and until it is enough; *during* runs half way, in a thread of its own."""

    async def whole() -> dict[str, Any]:
        given = {"address": "127.0.0.1", "port": server.port, "tls": False, **options}
        client = load.Client(load.Options(**given))

        async def until(condition: Callable[[], bool]) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while not condition():
                        await asyncio.sleep(0.01)

        async def steer() -> None:
            await until(lambda: client.running or bool(client.failures))
            await asyncio.sleep(seconds / 2)
            if during:
                await asyncio.to_thread(during, client)
            await asyncio.sleep(seconds / 2)
            await until(lambda: enough(client))
            client.stopping.set()

        summary, _ = await asyncio.gather(client.run(), steer())
        return summary

    return asyncio.run(whole())


def reasons(summary: dict[str, Any]) -> dict[str, int]:
    return {key: number for phase in summary["phases"] for key, number in phase["reasons"].items()}


def test_nothing_is_lost_by_a_good_server(server: Server) -> None:
    summary = run(server, paths=["/a", "/b"])
    assert (summary["lost"], summary["unsent"]) == (0, 0)
    assert summary["failures"] == []
    assert summary["ok"] == summary["sent"] == server.requests >= 150
    (phase,) = summary["phases"]
    assert abs(phase["kept"]["sent"] - phase["fresh"]["sent"]) <= 1
    # As many connections as are kept, and one for each other request; some more if it was slow.
    assert phase["fresh"]["sent"] + 20 <= server.connections < summary["sent"]
    assert set(server.seen) == {"GET /a", "GET /b"}
    assert 0 < phase["kept"]["p50"] <= phase["kept"]["p99"] <= phase["kept"]["max"]


@pytest.mark.parametrize("fault", ["drop", "status", "half", "garbage"])
def test_one_in_a_hundred_is_counted(server: Server, fault: str) -> None:
    server.fault = lambda number: fault if number % 100 == 50 else ""
    summary = run(server, enough=lambda client: server.faults >= 4, paths=["/x"])
    assert server.faults >= 4
    assert summary["lost"] == server.faults
    assert summary["ok"] == summary["sent"] - server.faults
    assert len(summary["failures"]) == sum(reasons(summary).values()) == server.faults
    expected = {
        "drop": "before the answer",
        "status": "status 503",
        "half": "ended in the middle of the answer",
        "garbage": "not an answer of HTTP",
    }[fault]
    for failure in summary["failures"]:
        assert expected in failure["reason"]
        assert (failure["phase"], failure["request"]) == ("start", "GET /x")
        assert failure["second"] > 0
        assert failure["kind"] in ("kept", "fresh")


def test_one_in_a_hundred_is_counted_through_tls(secure: Server, tls: Path) -> None:
    secure.fault = lambda number: "drop" if number % 100 == 50 else ""
    options: dict[str, Any] = {"tls": True, "name": NAME, "ca": str(tls / "ca.pem")}
    summary = run(secure, enough=lambda client: secure.faults >= 4, **options)
    assert secure.faults >= 4
    assert summary["lost"] == secure.faults
    secure.fault = lambda number: ""
    assert run(secure, 1, **options)["lost"] == 0


def test_another_name_or_authority_loses_all(secure: Server, tls: Path) -> None:
    ca = str(tls / "ca.pem")
    for name, trusted in (("other.example.com", ca), (NAME, "")):
        summary = run(secure, 0.3, tls=True, rate=50, name=name, ca=trusted)
        assert summary["lost"] == summary["sent"] > 0
        assert all("connect: certificate: " in key for key in reasons(summary))


def test_a_timeout_is_counted(server: Server) -> None:
    server.fault = lambda number: "hang" if number == 50 else ""
    summary = run(server, 0.5, timeout=2, enough=lambda client: server.faults == 1)
    assert summary["lost"] == 1
    assert list(reasons(summary)) in (["kept: timeout"], ["fresh: timeout"])
    assert summary["failures"][0]["second"] > 2


def test_no_server_at_all(server: Server) -> None:
    server.server.close()
    summary = run(server, 0.3, rate=50, websockets=2, websocket_interval=0.1)
    assert summary["ok"] == 0
    assert summary["lost"] >= summary["sent"] + 2
    assert set(reasons(summary)) == {
        f"{kind}: connect: connection refused" for kind in ("kept", "fresh", "websocket")
    }


def test_a_connection_that_ends_after_an_answer_is_no_loss(server: Server) -> None:
    server.fault = lambda number: "last" if number % 3 == 0 else ""
    summary = run(server, paths=["/x", "POST /y"])
    assert server.faults > 50
    assert summary["lost"] == 0
    assert "POST /y" in server.seen


def test_one_that_ends_without_a_word_is_replaced(server: Server) -> None:
    server.fault = lambda number: "silently last" if number % 10 == 0 else ""
    # With --resend, since it may end just when the next request leaves.
    summary = run(server, resend=True, enough=lambda client: client.phase.idle_closed > 2)
    assert summary["lost"] == 0
    assert summary["phases"][0]["idle_closed"] > 2


def test_sends_again_only_what_may_be(server: Server) -> None:
    """On a kept connection that has answered before, and a GET."""

    def fault(number: int) -> str:
        return "drop" if server.before and server.faults < 2 else ""

    def twice(client: load.Client) -> bool:
        return server.faults == 2

    server.fault = fault
    options: dict[str, Any] = {"kept": 1.0, "connections": 5, "rate": 100.0, "enough": twice}
    summary = run(server, 0.3, paths=["/x"], resend=True, **options)
    assert (summary["lost"], summary["resent"]) == (0, 2)
    for more in ({"paths": ["POST /x"], "resend": True}, {"paths": ["/x"]}):
        server.faults = 0
        summary = run(server, 0.3, **more, **options)
        assert (summary["lost"], summary["resent"]) == (2, 0)


def test_a_server_that_stalls_cannot_hide_it(server: Server) -> None:
    """Requests go on being due, and each counts from when it was."""

    def stall(client: load.Client) -> None:
        async def hold() -> None:
            # All of the server, on purpose.
            threading.Event().wait(0.4)

        asyncio.run_coroutine_threadsafe(hold(), server.loop).result(5)

    summary = run(server, 1, stall)
    (phase,) = summary["phases"]
    assert summary["sent"] >= 150
    assert summary["lost"] == 0
    assert 350 < phase["kept"]["max"] > 1.5 * phase["kept"]["p50"]


def test_what_could_not_be_sent_is_told_apart(server: Server) -> None:
    server.fault = lambda number: "hang"
    summary = run(server, 0.5, timeout=1, most=10)
    assert summary["lost"] == summary["sent"] >= 10
    assert summary["unsent"] > 30


def test_phases_and_what_answers_in_them(server: Server) -> None:
    server.chunked = True

    def deploy(client: load.Client) -> None:
        client.loop.call_soon_threadsafe(client.mark, "deploy")
        server.version = "2.0"

    summary = run(server, 1, deploy, tally="version")
    assert summary["lost"] == 0
    first, second = summary["phases"]
    assert (first["name"], second["name"]) == ("start", "deploy")
    assert first["tally"]["1.0"] > 30
    assert second["tally"]["2.0"] > 30
    total = sum(sum(phase["tally"].values()) for phase in summary["phases"])
    assert total == summary["ok"]
    assert first["seconds"] + second["seconds"] >= 0.99


def test_sources(server: Server) -> None:
    assert run(server, 0.5, sources=["127.0.0.8/29", "127.0.1.1"])["lost"] == 0
    assert server.peers == {*(f"127.0.0.{each}" for each in range(9, 15)), "127.0.1.1"}


def all_back(client: load.Client) -> bool:
    return client.phase.drained == client.open_websockets == 8


class TestWebSockets:
    OPTIONS: dict[str, Any] = {"rate": 20.0, "websockets": 8, "websocket_interval": 0.1}

    def test_echoes(self, server: Server) -> None:
        summary = run(server, 1, **self.OPTIONS)
        assert (summary["lost"], summary["open_websockets"]) == (0, 8)
        assert summary["echoes"] > 50
        phase = summary["phases"][0]["websocket"]
        assert phase["ticks"] == 8
        assert 0 < phase["p50"] <= phase["max"]

    def test_going_away_is_drained(self, server: Server) -> None:
        def close(client: load.Client) -> None:
            server.close_websockets(1001)

        summary = run(server, 1, close, all_back, **self.OPTIONS)
        assert (summary["lost"], summary["drained"], summary["open_websockets"]) == (0, 8, 8)
        assert 0 < summary["phases"][0]["websocket"]["longest_gap"] < 5000

    def test_going_away_before_the_echo_is_drained(self, server: Server) -> None:
        def close(client: load.Client) -> None:
            server.mute = True
            threading.Event().wait(0.15)
            server.mute = False
            server.close_websockets(1001)

        summary = run(server, 1, close, all_back, **self.OPTIONS)
        assert (summary["lost"], summary["drained"]) == (0, 8)

    @pytest.mark.parametrize(("code", "told"), [(0, 1006), (1011, 1011), (1000, 1000)])
    def test_another_end_is_lost(self, server: Server, code: int, told: int) -> None:
        def close(client: load.Client) -> None:
            server.close_websockets(code)

        def lost_and_back(client: load.Client) -> bool:
            return client.phase.websocket.lost == client.open_websockets == 8

        summary = run(server, 1, close, lost_and_back, **self.OPTIONS)
        assert (summary["lost"], summary["drained"]) == (8, 0)
        assert reasons(summary) == {f"websocket: closed with {told}": 8}
        # They try again.
        assert summary["open_websockets"] == 8

    def test_no_way_back_is_lost(self, server: Server) -> None:
        def close(client: load.Client) -> None:
            server.refuse_websockets = True
            server.close_websockets(1001)

        def lost(client: load.Client) -> bool:
            return client.phase.websocket.lost >= 8

        summary = run(server, 0.8, close, lost, **self.OPTIONS)
        assert (summary["lost"] >= 8, summary["drained"]) == (True, 0)
        assert set(reasons(summary)) == {"websocket: status 502 instead of 101"}
        requests = [each["request"].partition(", ")[2] for each in summary["failures"]]
        assert requests.count("coming back after 1001") == 8

    def test_no_echo_is_lost(self, server: Server) -> None:
        def mute(client: load.Client) -> None:
            server.mute = True

        def lost(client: load.Client) -> bool:
            return client.phase.websocket.lost >= 8

        summary = run(server, 1, mute, lost, timeout=1, **self.OPTIONS)
        assert set(reasons(summary)) == {"websocket: timeout"}


class TestProgram:
    def arguments(self, server: Server, *more: str) -> Sequence[str]:
        return ["--address", "127.0.0.1", "--port", str(server.port), "--plain", *more]

    def test_steered_from_outside(self, server: Server) -> None:
        with load.load(self.arguments(server, "--websockets", "3", "--tally", "version")) as found:
            found.begin("deploy")
            server.version = "2.0"
            threading.Event().wait(0.3)
            found.begin("after")
            threading.Event().wait(0.3)
            summary = found.stop()
        assert summary["lost"] == 0
        assert [phase["name"] for phase in summary["phases"]] == ["start", "deploy", "after"]
        assert set(summary["phases"][2]["tally"]) == {"2.0"}
        assert found.process.returncode == 0

    def test_on_a_host_by_its_shell(self, server: Server) -> None:
        server.fault = lambda number: "status" if number == 30 else ""
        with load.load(self.arguments(server), ["sh", "-c"]) as found:
            threading.Event().wait(1)
            assert found.stop()["lost"] == 1
        assert found.process.returncode == 1

    def test_ends_with_its_input_or_by_itself(self, server: Server) -> None:
        command = [sys.executable, load.__file__, *self.arguments(server)]
        for more in ([], ["--seconds", "0.4"]):
            done = subprocess.run(
                [*command, *more],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
            summary = json.loads(done.stdout.splitlines()[-1])
            assert (summary["event"], summary["lost"]) == ("summary", 0)
            assert (summary["seconds"] >= 0.4) == bool(more)
        assert done.stderr == ""

    def test_says_when_it_cannot_begin(self, server: Server) -> None:
        server.refuse_websockets = True
        arguments = self.arguments(server, "--websockets", "1", "--seconds", "1")
        with (
            pytest.raises(AssertionError, match="status 502 instead of 101"),
            load.load(arguments),
        ):
            pass
