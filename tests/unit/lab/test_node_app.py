"""The stand-in for Node.js services does what it says, and stops without losing a request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import load
import pytest

APP = Path(__file__).resolve().parents[3] / "lab" / "apps" / "node"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="Node.js is not installed"
)


def npm(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    return subprocess.run(
        ["npm", *arguments],
        cwd=folder,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a deploy makes it."""
    folder = tmp_path_factory.mktemp("node") / "app"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    for command in (["ci", "--prefer-offline", "--no-audit", "--no-fund"], ["run", "build"]):
        done = npm(folder, *command, RELEASE_VERSION="1.2.3")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """The service as a process."""

    def __init__(
        self, app: Path, name: str, command: Sequence[str] = ("dist/main.js",), **env: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
        own = {"PORT": str(self.port), "SERVICE_NAME": name}
        self.process = subprocess.Popen(
            ["node", *command],
            cwd=app,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | own | env,
        )
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.get("/health/live")
                return
            time.sleep(0.02)
        raise RuntimeError("the service does not come up")

    def request(
        self, method: str, path: str, body: str | None = None
    ) -> tuple[http.client.HTTPResponse, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        answer, body = self.request("GET", path)
        return answer.status, body

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=40)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


@contextlib.contextmanager
def running(app: Path, name: str = "cms-service", **given: Any) -> Iterator[Running]:
    service = Running(app, name, **given)
    try:
        yield service
    finally:
        service.process.kill()
        if service.process.stdout and not service.process.stdout.closed:
            service.process.communicate()


@contextlib.contextmanager
def answering(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TestBuild:
    def test_lock_names_no_place_to_download_from(self) -> None:
        text = (APP / "package-lock.json").read_text()
        packages = json.loads(text)["packages"]
        assert "resolved" not in text
        assert all("integrity" in each for path, each in packages.items() if path)
        wanted = json.loads((APP / "package.json").read_text())["dependencies"]
        assert packages[""]["dependencies"] == wanted
        assert all(packages[f"node_modules/{name}"]["version"] == wanted[name] for name in wanted)

    def test_versions(self, app: Path, tmp_path: Path) -> None:
        assert (app / "dist" / "VERSION").read_text() == "1.2.3\n"
        copy = tmp_path / "app"
        shutil.copytree(APP, copy)
        subprocess.run(["node", "build.js"], cwd=copy, check=True, capture_output=True)
        assert (copy / "dist" / "VERSION").read_text() == "1.0.0\n"
        (copy / "VERSION").write_text("2.0\n")
        subprocess.run(["node", "build.js"], cwd=copy, check=True, capture_output=True)
        assert (copy / "dist" / "VERSION").read_text() == "2.0\n"
        page = (copy / "dist" / "site" / "index.html").read_text()
        assert '<meta name="version" content="2.0">' in page

    def test_broken_releases(self, app: Path, tmp_path: Path) -> None:
        copy = tmp_path / "app"
        shutil.copytree(APP, copy)
        assert npm(copy, "run", "build", BUILD_FAIL="1").returncode != 0
        (copy / "src" / "main.js").write_text("const = 1;\n")
        assert npm(copy, "run", "build").returncode != 0
        assert not (copy / "dist").exists()
        assert npm(app, "run", "migrate", MIGRATE_FAIL="1").returncode != 0
        assert npm(app, "start", START_FAIL="1").returncode != 0

    def test_migration_without_database_and_without_secrets(self, app: Path) -> None:
        assert npm(app, "run", "migrate").returncode == 0
        done = npm(app, "run", "migrate", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/x")
        assert done.returncode != 0
        assert "ECONNREFUSED" in done.stdout
        assert "canary" not in done.stdout + done.stderr


class TestSite:
    def test_assets_are_named_by_their_content_and_all_used(self) -> None:
        pages = "".join(path.read_text() for path in (APP / "site").rglob("*.html"))
        used = set(re.findall(r'(?:src|href)="/_astro/([^"]+)"', pages))
        found = sorted((APP / "site" / "_astro").iterdir())
        assert used == {path.name for path in found}
        for path in found:
            assert path.name.split(".")[1] == hashlib.sha256(path.read_bytes()).hexdigest()[:8]


class TestPages:
    def test_who_it_is(self, app: Path) -> None:
        with running(app) as service:
            for path in ("/", "/version", "/api/version", "/api/"):
                status, body = service.get(path)
                assert status == 200
                assert (body["name"], body["version"]) == ("cms-service", "1.2.3")
                assert (body["port"], body["pid"]) == (service.port, service.process.pid)
            assert service.get("/health/ready") == (
                200,
                {"status": "ok", "failing": [], "checks": {}},
            )
            assert service.get("/work")[1]["saw"] == {}
            assert service.get("/slow?seconds=0.1")[1]["slept"] == 0.1
            for path, status in (("/nowhere", 404), ("/toString", 404), ("/ws", 426)):
                assert service.get(path)[0] == status
            assert service.request("POST", "/work", "x" * 70000)[0].status == 200

    def test_another_prefix(self, app: Path) -> None:
        with running(app, "dashboard", BASE_PATH="/dashboard") as service:
            assert service.get("/dashboard")[0] == 200
            assert service.get("/dashboard/version")[0] == 200
            assert service.get("/dashboards")[0] == 404

    def test_never_ready(self, app: Path) -> None:
        with running(app, READY_FAIL="1") as service:
            assert service.get("/health/ready")[1]["failing"] == ["told to fail"]
            assert service.get("/health/live")[0] == 200


class TestBackends:
    def test_what_fails_is_named_without_secrets(self, app: Path) -> None:
        with running(
            app,
            DATABASE_URL="postgresql://cms:canary@127.0.0.1:1/cms",
            REDIS_URL="redis://cms:canary@127.0.0.1:1/0",
            KAFKA_BROKERS="127.0.0.1:1",
            KAFKA_USER="cms",
            KAFKA_PASSWORD="canary",
            SCHEMA_REGISTRY_URL="http://cms:canary@127.0.0.1:1",
            AI_SERVICE_URL="http://127.0.0.1:1",
        ) as service:
            status, body = service.get("/health/ready")
            assert service.get("/work")[0] == 500
            code, log = service.stop()
        assert status == 503
        names = ["ai-service", "kafka", "postgresql", "redis", "schema-registry"]
        assert body["failing"] == sorted(body["checks"]) == names
        assert "ECONNREFUSED" in body["checks"]["postgresql"]["error"]
        assert "ECONNREFUSED" in body["checks"]["redis"]["error"]
        assert code == 0
        assert "canary" not in json.dumps([body, log])
        assert "ready" not in [line["message"] for line in log]

    def test_schema_registry(self, app: Path) -> None:
        asked: list[tuple[str, str, Any]] = []
        schemas: dict[int, str] = {}

        class Registry(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked.append(("POST", self.path, body))
                schemas[7] = body["schema"]
                self.reply(200, {"id": 7})

            def do_GET(self) -> None:
                asked.append(("GET", self.path, None))
                self.reply(200, {"schema": schemas[7]})

            def reply(self, status: int, body: Any) -> None:
                pair = base64.b64encode(b"cms:p@ss").decode()
                if self.headers["authorization"] != f"Basic {pair}":
                    status, body = 401, {"message": "who are you?"}
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        with answering(Registry) as port:
            url = f"http://cms:p%40ss@127.0.0.1:{port}/"
            with running(app, SCHEMA_REGISTRY_URL=url) as service:
                status, body = service.get("/health/ready")
            assert (status, body["checks"]["schema-registry"]["schema"]) == (200, 7)
            with running(app, SCHEMA_REGISTRY_URL=url.replace("p%40ss", "x")) as service:
                _, body = service.get("/health/ready")
            assert body["checks"]["schema-registry"]["error"] == "who are you?"
        subject = "/subjects/cms-service.events-value/versions"
        assert {each[:2] for each in asked} == {("POST", subject), ("GET", "/schemas/ids/7")}
        schema = json.loads(asked[0][2]["schema"])
        assert [each["name"] for each in schema["fields"]] == ["service", "id"]

    def test_messages_in_avro(self, app: Path) -> None:
        """The length of a string has more than one byte from 64 on."""
        program = """
            const { Registry } = require('./dist/registry');
            const registry = new Registry('http://x', 's');
            registry.number = 258;
            registry.known.set(258, { fields: [{ name: 'service' }, { name: 'id' }] });
            (async () => {
              const data = await registry.encode({ service: 'é', id: 'x'.repeat(100) });
              console.log(data.subarray(0, 10).toString('hex'));
              console.log(JSON.stringify(await registry.decode(data)));
            })();
        """
        done = subprocess.run(
            ["node", "-e", program], cwd=app, capture_output=True, text=True, check=True
        )
        head, body = done.stdout.splitlines()
        assert head == "0000000102" + "04c3a9" + "c801"
        assert json.loads(body) == {"service": "é", "id": "x" * 100}


class TestGateway:
    def test_hands_on(self, app: Path) -> None:
        seen: list[tuple[str, str, str, bytes]] = []

        class Peer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                client = self.headers["x-forwarded-for"]
                seen.append((self.command, self.path, client, body))
                self.send_response(201)
                self.send_header("Content-Length", "2")
                self.send_header("X-Of-Peer", "yes")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        with (
            answering(Peer) as port,
            running(app, "api-gateway", AI_SERVICE_URL=f"http://127.0.0.1:{port}/") as gateway,
        ):
            for method, path, body in (
                ("GET", "a?b=c", ""),
                ("POST", "", "text"),
                ("POST", "", ""),
            ):
                answer, _ = gateway.request(method, f"/api/ai-service/{path}", body or None)
                assert (answer.status, answer.getheader("X-Of-Peer")) == (201, "yes")
                assert seen[-1] == (method, f"/{path}", "127.0.0.1", body.encode())
            assert gateway.get("/api/other/x")[0] == 404

    def test_another_service_and_its_absence(self, app: Path) -> None:
        with (
            running(app) as cms,
            running(app, "api-gateway", CMS_SERVICE_URL=cms.url) as gateway,
        ):
            assert gateway.get("/api/cms-service/version")[1]["name"] == "cms-service"
            assert gateway.get("/health/ready")[0] == 200
            cms.stop()
            status, body = gateway.get("/api/cms-service/version")
            assert (status, "ECONNREFUSED" in body["error"]) == (502, True)
            assert gateway.get("/health/ready")[1]["failing"] == ["cms-service"]
            assert gateway.get("/health/live")[0] == 200

    def test_websockets(self, app: Path) -> None:
        """They are handed on, and so is that the service behind goes away."""
        with (
            running(app) as cms,
            running(app, "api-gateway", CMS_SERVICE_URL=cms.url) as gateway,
        ):
            with loaded(gateway, "/api/cms-service/ws") as found:
                found.begin("drain")
                time.sleep(1.2)
                assert cms.stop()[0] == 0
                time.sleep(0.3)
                summary = found.stop()
            gateway.stop()
        first, second = (phase["websocket"] for phase in summary["phases"])
        assert first["ok"] + second["ok"] > 5
        assert first["ticks"] + second["ticks"] >= 5
        # There is nothing to come back to.
        assert second["lost"] >= 5
        failures = [each["request"] for each in summary["failures"]]
        assert sum("after 1001" in each for each in failures) == 5


@contextlib.contextmanager
def loaded(service: Running, websocket_path: str = "/ws", *more: str) -> Iterator[load.Load]:
    """Five WebSockets and some requests to be counted."""
    options = ["--address", "127.0.0.1", "--port", str(service.port), "--plain", "--rate", "50"]
    options += ["--path", "/version", "--websockets", "5", "--websocket-path", websocket_path]
    with load.load([*options, "--websocket-interval", "0.2", *more]) as found:
        yield found


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_finishes_what_it_began(self, app: Path, number: int) -> None:
        answers: list[tuple[http.client.HTTPResponse, Any]] = []
        with running(app) as service:

            def ask() -> None:
                answers.append(service.request("GET", "/slow?seconds=1.5"))

            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(0.3)
            code, log = service.stop(number)
            thread.join()
        assert code == 0
        ((answer, _),) = answers
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        messages = [line["message"] for line in log]
        assert messages == ["listening", "ready", "stopping", "stopped"]

    def test_kept_connections_are_answered_once_more(self, app: Path) -> None:
        with running(app, LINGER_MILLISECONDS="1000") as service:
            kept = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
            kept.request("GET", "/version")
            assert kept.getresponse().read()
            service.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            kept.request("GET", "/health/ready")
            answer = kept.getresponse()
            assert (answer.status, answer.getheader("Connection")) == (503, "close")
            assert json.loads(answer.read())["failing"] == ["draining"]
            with pytest.raises(OSError):
                service.get("/health/live")
            assert service.process.wait(5) == 0

    def test_idle_connections_do_not_hold_it(self, app: Path) -> None:
        with running(app) as service, contextlib.ExitStack() as stack:
            silent, kept = (
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                for _ in range(2)
            )
            kept.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in kept.recv(4096)
            began = time.monotonic()
            assert service.stop()[0] == 0
            assert time.monotonic() - began < 3
            assert silent.recv(1) == b""

    def test_cuts_what_does_not_end(self, app: Path) -> None:
        with running(app, DRAIN_SECONDS="1") as service:

            def ask() -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    service.get("/slow?seconds=30")

            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(0.3)
            code, log = service.stop()
            thread.join()
        assert code == 1
        assert log[-1]["message"] == "stopped, and cut what did not end"

    def test_websockets_go_away(self, app: Path) -> None:
        with running(app) as service, loaded(service) as found:
            began = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(5) == 0
            assert time.monotonic() - began < 2
            summary = found.stop()
        closed = [each for each in summary["failures"] if each["kind"] == "websocket"]
        assert sum("after 1001" in each["request"] for each in closed) == 5


CLUSTER = """
const cluster = require('cluster');
cluster.setupPrimary({ exec: 'dist/main.js', execArgv: [] });
cluster.on('message', (worker, message) => console.log(JSON.stringify({ message })));
cluster.on('exit', (worker, code) => console.log(JSON.stringify({ message: 'exit', code })));
const workers = [cluster.fork(), cluster.fork()];
process.on('SIGTERM', () => workers.forEach((each) => each.process.kill('SIGINT')));
"""


def test_cluster_as_pm2_has_it(app: Path) -> None:
    """Processes that share a port, each of which says that it is ready, and stops by SIGINT."""
    with running(app, command=["-e", CLUSTER]) as service:
        pids: set[int] = set()
        deadline = time.monotonic() + 15
        while len(pids) < 2 and time.monotonic() < deadline:
            pids.add(service.get("/version")[1]["pid"])
        time.sleep(1)
        code, log = service.stop()
    assert len(pids) == 2
    assert service.process.pid not in pids
    assert code == 0
    messages = [line["message"] for line in log]
    assert messages.count("ready") == 4  # each by its log and by its message
    assert [line["code"] for line in log if line["message"] == "exit"] == [0, 0]
