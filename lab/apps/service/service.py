#!/usr/bin/env python3
"""Stands in for a service of a platform, and really uses what it is given.

    service.py --bind 127.0.0.1 --port 5006 --name sales

DATABASE_URL, AMQP_URL and the addresses of other services (COMMON_URL=http://…) come from the
environment; what is not there is not used. /health/ready writes and reads a row, sends and
receives a message and asks the other services, and names what fails. Python's standard library,
python3-psycopg2 and python3-pika.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NOT_SERVICES = ("DATABASE_URL", "AMQP_URL", "REDIS_URL", "KAFKA_URL", "S3_URL", "DATABASE_READ_URL")
TIMEOUT = 3.0
BODY_LIMIT = 64 * 1024
SCHEMA = """
CREATE TABLE IF NOT EXISTS readiness (
    instance text PRIMARY KEY, looks bigint NOT NULL, seen timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    id bigserial PRIMARY KEY, name text NOT NULL, made timestamptz NOT NULL DEFAULT now()
);
"""


def log(level: str, message: str, **fields: Any) -> None:
    """One line of JSON on the standard output; callers give no secrets to it."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
    line = json.dumps({"time": stamp, "level": level, "message": message, **fields})
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def short(error: BaseException) -> str:
    """What went wrong, without the connection string that some drivers repeat."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split("dsn", 1)[0][:200]


class Database:
    """PostgreSQL, one short connection for each use: nothing to go stale in a restart."""

    def __init__(self, url: str, instance: str) -> None:
        self.url = url
        self.instance = instance
        self.has_schema = False
        self.lock = threading.Lock()

    def run(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        import psycopg2

        link = psycopg2.connect(self.url, connect_timeout=int(TIMEOUT))
        try:
            with link, link.cursor() as cursor:
                cursor.execute("SET statement_timeout = '3s'")
                self._make_schema(cursor)
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error:
            # The database may be another one than before: one that was restored.
            self.has_schema = False
            raise
        finally:
            link.close()

    def _make_schema(self, cursor: Any) -> None:
        with self.lock:
            if self.has_schema:
                return
            # Two instances may start at once, and CREATE … IF NOT EXISTS races with itself.
            cursor.execute("SELECT pg_advisory_xact_lock(72616)")
            cursor.execute(
                "SELECT to_regclass('items') IS NOT NULL AND to_regclass('readiness') IS NOT NULL"
            )
            if not cursor.fetchone()[0]:
                cursor.execute(SCHEMA)
                cursor.connection.commit()
            self.has_schema = True

    def check(self) -> str:
        rows = self.run(
            "INSERT INTO readiness VALUES (%s, 1, now()) ON CONFLICT (instance) "
            "DO UPDATE SET looks = readiness.looks + 1, seen = now() RETURNING looks",
            (self.instance,),
        )
        read = self.run("SELECT looks FROM readiness WHERE instance = %s", (self.instance,))
        if not rows or not read or read[0][0] < rows[0][0]:
            raise RuntimeError("a row that was written cannot be read")
        return f"{read[0][0]} looks"


class Broker:
    """RabbitMQ: a message makes the round through a queue of the service's own."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name

    def check(self) -> str:
        import pika

        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = TIMEOUT
        parameters.blocked_connection_timeout = TIMEOUT
        parameters.connection_attempts = 1
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            queue = f"{self.name}.ready.{uuid.uuid4().hex}"
            channel.queue_declare(queue, exclusive=True, auto_delete=True)
            channel.confirm_delivery()
            body = uuid.uuid4().hex.encode()
            channel.basic_publish("", queue, body)
            deadline = time.monotonic() + TIMEOUT
            while time.monotonic() < deadline:
                _method, _properties, received = channel.basic_get(queue, auto_ack=True)
                if received == body:
                    return "a message came back"
                time.sleep(0.01)
            raise RuntimeError("a message that was sent did not come back")
        finally:
            connection.close()


class Peer:
    """Another service."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def check(self) -> str:
        request = urllib.request.Request(f"{self.url}/health", headers={"Connection": "close"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if json.loads(answer.read(BODY_LIMIT)).get("status") != "ok":
                raise RuntimeError("it does not say that it is ok")
        return "ok"


class Service:
    """What the process is, what it depends on and what it is doing."""

    def __init__(self, name: str, bind: str, port: int, environment: dict[str, str]) -> None:
        self.name = name
        self.bind = bind
        self.port = port
        self.version = environment.get("RELEASE_VERSION") or release_version()
        self.started = time.time()
        self.draining = threading.Event()
        self.faults_allowed = environment.get("ALLOW_FAULTS") == "1"
        self.lock = threading.Lock()
        self.active = 0
        self.sockets: set[socket.socket] = set()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds = 0.0
        instance = f"{name}@{socket.gethostname()}:{port}"
        self.database = (
            Database(environment["DATABASE_URL"], instance)
            if environment.get("DATABASE_URL")
            else None
        )
        self.dependencies: dict[str, Any] = {}
        if self.database:
            self.dependencies["postgresql"] = self.database
        if environment.get("AMQP_URL"):
            self.dependencies["rabbitmq"] = Broker(environment["AMQP_URL"], name)
        for key, value in sorted(environment.items()):
            if key.endswith("_URL") and key not in NOT_SERVICES and value.startswith("http"):
                self.dependencies[key[:-4].lower().replace("_", "-")] = Peer(value)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Every dependency at once, so that one that hangs does not hide the others."""
        outcomes: dict[str, dict[str, Any]] = {}

        def look(key: str, dependency: Any) -> None:
            began = time.monotonic()
            try:
                outcome = {"status": "ok", "detail": dependency.check()}
            except Exception as error:
                outcome = {"status": "failed", "error": short(error)}
            outcome["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
            outcomes[key] = outcome

        threads = [
            threading.Thread(target=look, args=each, daemon=True)
            for each in self.dependencies.items()
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2 * TIMEOUT
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        checks = {
            key: outcomes.get(key, {"status": "failed", "error": "no answer"})
            for key in self.dependencies
        }
        failing = [key for key, outcome in checks.items() if outcome["status"] != "ok"]
        if self.draining.is_set():
            failing.append("draining")
        body = {"status": "failed" if failing else "ok", "failing": failing, "checks": checks}
        return (503 if failing else 200), body

    def count(self, path: str, status: int, seconds: float) -> None:
        with self.lock:
            self.requests[path, status] += 1
            self.seconds += seconds

    def metrics(self) -> str:
        with self.lock:
            requests = sorted(self.requests.items())
            seconds, active = self.seconds, self.active
        labels = f'service="{self.name}",version="{self.version}"'
        lines = [
            "# TYPE service_info gauge",
            f"service_info{{{labels}}} 1",
            "# TYPE service_requests_total counter",
            *[
                f'service_requests_total{{path="{path}",status="{status}"}} {number}'
                for (path, status), number in requests
            ],
            "# TYPE service_request_seconds_total counter",
            f"service_request_seconds_total {seconds:.6f}",
            "# TYPE service_requests_active gauge",
            f"service_requests_active {active}",
            "# TYPE service_start_time_seconds gauge",
            f"service_start_time_seconds {self.started:.3f}",
        ]
        return "\n".join(lines) + "\n"


def release_version() -> str:
    """The name of the release's directory, which is the working directory behind the link."""
    directory = Path.cwd().resolve()
    return directory.name if directory.parent.name == "releases" else "development"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "stand-in"
    sys_version = ""
    timeout = 75
    wbufsize = 64 * 1024  # head and body in one packet
    service: Service

    def setup(self) -> None:
        super().setup()
        with self.service.lock:
            self.service.sockets.add(self.connection)

    def finish(self) -> None:
        with self.service.lock:
            self.service.sockets.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Requests are logged by answer()."""

    def do_GET(self) -> None:
        self.handle_request()

    do_HEAD = do_POST = do_GET

    def handle_request(self) -> None:
        self.began = time.monotonic()
        with self.service.lock:
            self.service.active += 1
        try:
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            log("error", "request failed", path=urlsplit(self.path).path, error=short(error))
            with contextlib.suppress(OSError):
                self.answer(500, {"error": short(error)})
        finally:
            with self.service.lock:
                self.service.active -= 1

    def route(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        body = self.read_body()
        pages = {
            "/": self.page_index,
            "/health": self.page_alive,
            "/health/live": self.page_alive,
            "/health/startup": self.page_alive,
            "/health/ready": self.page_ready,
            "/metrics": self.page_metrics,
            "/items": self.page_items,
            "/slow": self.page_slow,
            "/ws": self.page_websocket,
            "/hangfire": self.page_hangfire,
        }
        if self.service.faults_allowed:
            pages |= {
                "/fault/allocate": self.fault_allocate,
                "/fault/crash": self.fault_crash,
                "/fault/write": self.fault_write,
            }
        page = pages.get(address.path)
        if body is None:
            self.answer(413, {"error": f"more than {BODY_LIMIT} bytes"})
        elif page is None:
            self.answer(404, {"error": "there is no such page"}, path="other")
        else:
            page(query, body)

    def read_body(self) -> bytes | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_LIMIT:
            self.close_connection = True
            return None
        return self.rfile.read(length) if length else b""

    def answer(
        self, status: int, body: Any, kind: str = "application/json", path: str = ""
    ) -> None:
        data = body.encode() if isinstance(body, str) else (json.dumps(body) + "\n").encode()
        if self.service.draining.is_set():
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        # Before the answer leaves and its client can ask what was counted.
        self.account(status, path or urlsplit(self.path).path)

    def account(self, status: int, path: str) -> None:
        seconds = time.monotonic() - self.began
        self.service.count(path, status, seconds)
        if not path.startswith("/health"):
            log(
                "info",
                "request",
                method=self.command,
                path=path,
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )

    # ---------------------------------------------------------------- pages

    def page_index(self, query: dict[str, str], body: bytes) -> None:
        service = self.service
        self.answer(
            200,
            {
                "name": service.name,
                "version": service.version,
                "host": socket.gethostname(),
                "port": service.port,
                "pid": os.getpid(),
            },
        )

    def page_alive(self, query: dict[str, str], body: bytes) -> None:
        self.answer(200, {"status": "ok"})

    def page_ready(self, query: dict[str, str], body: bytes) -> None:
        self.answer(*self.service.readiness())

    def page_metrics(self, query: dict[str, str], body: bytes) -> None:
        self.answer(200, self.service.metrics(), "text/plain; version=0.0.4")

    def page_items(self, query: dict[str, str], body: bytes) -> None:
        database = self.service.database
        if database is None:
            self.answer(404, {"error": "this service has no database"})
        elif self.command == "POST":
            name = str(json.loads(body or b"{}").get("name") or uuid.uuid4())
            ((number, made),) = database.run(
                "INSERT INTO items (name) VALUES (%s) RETURNING id, made", (name,)
            )
            self.answer(201, {"id": number, "name": name, "made": made.isoformat()})
        else:
            rows = database.run("SELECT id, name, made FROM items ORDER BY id DESC LIMIT 1000")
            self.answer(
                200,
                {
                    "items": [
                        {"id": number, "name": name, "made": made.isoformat()}
                        for number, name, made in rows
                    ]
                },
            )

    def page_slow(self, query: dict[str, str], body: bytes) -> None:
        seconds = min(60.0, float(query.get("seconds", "1")))
        time.sleep(seconds)
        self.answer(200, {"slept": seconds, "version": self.service.version})

    def page_hangfire(self, query: dict[str, str], body: bytes) -> None:
        page = f"<!doctype html><title>Jobs</title><h1>Jobs of {self.service.name}</h1>\n"
        self.answer(200, page, "text/html; charset=utf-8")

    def page_websocket(self, query: dict[str, str], body: bytes) -> None:
        key = self.headers.get("Sec-WebSocket-Key")
        if "websocket" not in self.headers.get("Upgrade", "").lower() or not key:
            self.answer(426, {"error": "a WebSocket is expected here"})
            return
        digest = hashlib.sha1((key + WEBSOCKET_GUID).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        self.account(101, "/ws")
        self.connection.settimeout(0.5)
        websocket_echo(self.connection, self.service.draining)

    # ---------------------------------------------------------------- what tests break

    def fault_allocate(self, query: dict[str, str], body: bytes) -> None:
        held = []
        for _ in range(int(query.get("megabytes", "100"))):
            held.append(bytearray(os.urandom(1024)) * 1024)
        self.answer(200, {"megabytes": len(held)})

    def fault_crash(self, query: dict[str, str], body: bytes) -> None:
        log("error", "crashing as told")
        os._exit(70)

    def fault_write(self, query: dict[str, str], body: bytes) -> None:
        try:
            Path(query["path"]).write_text("written\n", encoding="utf-8")
        except OSError as error:
            self.answer(403, {"error": error.strerror})
        else:
            self.answer(200, {"written": query["path"]})


# -------------------------------------------------------------------- WebSocket (RFC 6455)


class Gone(Exception):
    """The other side has left, or is asked to."""


def receive(connection: socket.socket, number: int, draining: threading.Event) -> bytes:
    data = b""
    while len(data) < number:
        if draining.is_set():
            raise Gone
        try:
            part = connection.recv(number - len(data))
        except TimeoutError:
            continue
        if not part:
            raise Gone
        data += part
    return data


def send_frame(connection: socket.socket, opcode: int, payload: bytes) -> None:
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, length)
    connection.sendall(head + payload)


def websocket_echo(connection: socket.socket, draining: threading.Event) -> None:
    """Echoes messages until the client closes, or the service stops (1001, going away)."""
    message, kind = b"", 0
    try:
        while True:
            first, second = receive(connection, 2, draining)
            opcode, length = first & 0x0F, second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", receive(connection, 2, draining))
            elif length == 127:
                (length,) = struct.unpack("!Q", receive(connection, 8, draining))
            if not second & 0x80 or length > 1024 * 1024:
                send_frame(connection, 0x8, struct.pack("!H", 1002))
                return
            mask = receive(connection, 4, draining)
            data = receive(connection, length, draining)
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
            if opcode == 0x8:
                send_frame(connection, 0x8, payload[:2])
                return
            if opcode == 0x9:
                send_frame(connection, 0xA, payload)
            elif opcode in (0x0, 0x1, 0x2):
                kind = opcode or kind
                message += payload
                if first & 0x80:
                    send_frame(connection, kind, message)
                    message = b""
    except Gone:
        if draining.is_set():
            with contextlib.suppress(OSError):
                send_frame(connection, 0x8, struct.pack("!H", 1001))
    except OSError:
        pass


# -------------------------------------------------------------------- running


class Server(ThreadingHTTPServer):
    """The listener; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no event."""


class ServerV6(Server):
    address_family = socket.AF_INET6


def drain(service: Service, seconds: float) -> None:
    """Waits for requests to end, then closes the connections that only idle."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with service.lock:
            if service.active == 0:
                break
        time.sleep(0.02)
    with service.lock:
        idle = list(service.sockets)
    for connection in idle:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bind", default=os.environ.get("BIND", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    parser.add_argument("--name", default=os.environ.get("SERVICE_NAME", "service"))
    parser.add_argument("--drain", type=float, default=20.0, help="seconds to finish requests")
    options = parser.parse_args()

    service = Service(options.name, options.bind, options.port, dict(os.environ))
    handler = type("BoundHandler", (Handler,), {"service": service})
    server_type = ServerV6 if ":" in options.bind else Server
    server = server_type((options.bind, options.port), handler)

    def stop(number: int, _frame: Any) -> None:
        if not service.draining.is_set():
            service.draining.set()
            log("info", "stopping", signal=signal.Signals(number).name)
            threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    log(
        "info",
        "listening",
        name=service.name,
        version=service.version,
        bind=options.bind,
        port=options.port,
        dependencies=sorted(service.dependencies),
    )
    server.serve_forever(poll_interval=0.05)
    server.socket.close()
    drain(service, options.drain)
    log("info", "stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
