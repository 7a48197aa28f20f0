"""The stand-ins for applications do what they say, and stop without losing a request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

APPS = Path(__file__).resolve().parents[2] / "lab" / "apps"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """The service as a process."""

    def __init__(self, name: str = "sales", **environment: str) -> None:
        self.port = free_port()
        clean = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "service.py", "--port", str(self.port), "--name", name],
            cwd=APPS / "service",
            stdout=subprocess.PIPE,
            text=True,
            env=clean | environment,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.get("/health")
                return
            time.sleep(0.02)
        raise RuntimeError("the service does not come up")

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        status, text = self.request("GET", path)
        return status, json.loads(text)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@contextlib.contextmanager
def running(name: str = "sales", **environment: str) -> Iterator[Running]:
    service = Running(name, **environment)
    try:
        yield service
    finally:
        service.process.kill()
        if service.process.stdout and not service.process.stdout.closed:
            service.process.communicate()


@pytest.fixture
def service() -> Iterator[Running]:
    with running(ALLOW_FAULTS="1") as found:
        yield found


class TestService:
    @pytest.mark.parametrize("path", ["/health", "/health/live", "/health/startup"])
    def test_alive(self, service: Running, path: str) -> None:
        assert service.get(path) == (200, {"status": "ok"})

    def test_ready_without_dependencies(self, service: Running) -> None:
        assert service.get("/health/ready") == (200, {"status": "ok", "failing": [], "checks": {}})

    def test_index(self, service: Running) -> None:
        status, body = service.get("/")
        assert status == 200
        assert (body["name"], body["port"], body["pid"]) == (
            "sales",
            service.port,
            service.process.pid,
        )
        assert body["version"] == "development"

    def test_metrics(self, service: Running) -> None:
        service.get("/")
        _, text = service.request("GET", "/metrics")
        assert 'service_requests_total{path="/",status="200"} 1\n' in text
        assert re.fullmatch(r"(# TYPE \w+ \w+\n|\w+(\{[^}]*\})? [0-9.]+\n)+", text)

    def test_other_pages(self, service: Running) -> None:
        assert "<h1>" in service.request("GET", "/hangfire")[1]
        assert service.get("/nowhere")[0] == 404
        assert service.get("/items")[0] == 404
        assert service.get("/ws")[0] == 426
        assert service.request("POST", "/", "x" * 70000)[0] == 413
        assert service.request("HEAD", "/health") == (200, "")

    def test_faults_are_for_tests_only(self, service: Running) -> None:
        assert service.get("/fault/write?path=/proc/none")[0] == 403
        with running() as other:
            assert other.get("/fault/crash")[0] == 404

    def test_crash(self, service: Running) -> None:
        with pytest.raises((http.client.HTTPException, OSError)):
            service.get("/fault/crash")
        assert service.process.wait(5) == 70

    def test_one_connection_for_many_requests(self, service: Running) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
        for _ in range(3):
            connection.request("POST", "/health", "ignored")
            assert connection.getresponse().read() == b'{"status": "ok"}\n'
        connection.close()


class TestDependencies:
    def test_what_fails_is_named_without_secrets(self) -> None:
        url = "postgresql://sales:canary@127.0.0.1:1/sales"
        with running(
            DATABASE_URL=url,
            AMQP_URL="amqp://sales:canary@127.0.0.1:1/x",
            COMMON_URL="http://127.0.0.1:1",
        ) as service:
            status, body = service.get("/health/ready")
            _, log = service.stop()
        assert status == 503
        assert body["failing"] == ["postgresql", "rabbitmq", "common"]
        assert "canary" not in json.dumps(body) + log

    def test_other_services_are_asked(self) -> None:
        with running("common") as common:
            url = f"http://127.0.0.1:{common.port}/"
            with running(COMMON_URL=url, S3_URL="http://127.0.0.1:1") as service:
                assert service.get("/health/ready")[1]["checks"]["common"]["status"] == "ok"
                common.stop()
                assert service.get("/health/ready")[1]["failing"] == ["common"]
                assert service.get("/health")[0] == 200


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_finishes_what_it_began(self, service: Running, number: int) -> None:
        answers: list[tuple[int, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(service.get("/slow?seconds=1")))
        thread.start()
        time.sleep(0.3)
        code, log = service.stop(number)
        thread.join()
        assert code == 0
        assert answers[0][0] == 200
        assert '"message": "stopped"' in log

    def test_no_longer_ready_and_refuses_new(self, service: Running) -> None:
        kept = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
        kept.request("GET", "/health")
        kept.getresponse().read()
        slow = threading.Thread(target=service.get, args=("/slow?seconds=1",))
        slow.start()
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.request("GET", "/health/ready")
        answer = kept.getresponse()
        assert answer.status == 503
        assert answer.getheader("Connection") == "close"
        assert json.loads(answer.read())["failing"] == ["draining"]
        with pytest.raises(OSError):
            service.get("/health")
        slow.join()
        assert service.process.wait(5) == 0

    def test_idle_connection_does_not_hold_it(self, service: Running) -> None:
        with socket.create_connection(("127.0.0.1", service.port)):
            began = time.monotonic()
            assert service.stop()[0] == 0
            assert time.monotonic() - began < 3

    def test_log_is_json_lines(self, service: Running) -> None:
        service.get("/")
        lines = [json.loads(line) for line in service.stop()[1].splitlines()]
        messages = [line["message"] for line in lines]
        assert messages == ["listening", "request", "stopping", "stopped"]


class TestWebSocket:
    def connect(self, service: Running) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", service.port), timeout=5)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert b" 101 " in head
        assert base64.b64encode(digest) in head
        return sock

    def send(self, sock: socket.socket, first: int, payload: bytes) -> None:
        mask = os.urandom(4)
        length = len(payload)
        size = (
            struct.pack("!B", 0x80 | length)
            if length < 126
            else struct.pack("!BH", 0x80 | 126, length)
        )
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        sock.sendall(bytes([first]) + size + mask + masked)

    def receive(self, sock: socket.socket) -> tuple[int, bytes]:
        def exactly(number: int) -> bytes:
            data = b""
            while len(data) < number:
                part = sock.recv(number - len(data))
                assert part
                data += part
            return data

        first, length = exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", exactly(2))
        return first, exactly(length)

    def test_echo(self, service: Running) -> None:
        with self.connect(service) as sock:
            self.send(sock, 0x81, b"hello")
            assert self.receive(sock) == (0x81, b"hello")
            self.send(sock, 0x82, b"x" * 1000)
            assert self.receive(sock) == (0x82, b"x" * 1000)
            self.send(sock, 0x01, b"in two ")
            self.send(sock, 0x89, b"ping")
            assert self.receive(sock) == (0x8A, b"ping")
            self.send(sock, 0x80, b"parts")
            assert self.receive(sock) == (0x81, b"in two parts")
            self.send(sock, 0x88, struct.pack("!H", 1000))
            assert self.receive(sock) == (0x88, struct.pack("!H", 1000))

    def test_told_to_go(self, service: Running) -> None:
        with self.connect(service) as sock:
            service.process.send_signal(signal.SIGTERM)
            assert self.receive(sock) == (0x88, struct.pack("!H", 1001))
        assert service.process.wait(5) == 0


class TestMigration:
    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
        return subprocess.run(
            [sys.executable, "migrate.py"],
            cwd=APPS / "service",
            env=clean | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_without_database(self) -> None:
        assert self.run().returncode == 0

    def test_fails_when_told(self) -> None:
        assert self.run(MIGRATE_FAIL="1").returncode == 1

    def test_failure_shows_no_secret(self) -> None:
        done = self.run(DATABASE_URL="postgresql://u:canary@127.0.0.1:1/x")
        assert done.returncode == 1
        assert "canary" not in done.stdout + done.stderr


class TestSpa:
    PAGE = (APPS / "spa" / "index.html").read_text()
    ASSETS = sorted((APPS / "spa" / "assets").iterdir())

    def test_names_have_the_hash_of_their_content(self) -> None:
        hashed = [path for path in self.ASSETS if path.suffix in (".js", ".css")]
        assert len(hashed) == 2
        for path in hashed:
            assert path.name.split(".")[1] == hashlib.sha256(path.read_bytes()).hexdigest()[:8]

    def test_page_uses_every_asset(self) -> None:
        used = set(re.findall(r'(?:src|href)="/assets/([^"]+)"', self.PAGE))
        assert used == {path.name for path in self.ASSETS}
