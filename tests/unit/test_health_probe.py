"""The module as Ansible runs it: its documentation, its result, and what it must never say."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.berth.platform.plugins.module_utils.probe.model import Probe
from ansible_collections.berth.platform.plugins.module_utils.probe.spec import (
    KEYS,
    REQUIRED,
    SSLMODES,
    TYPES,
)
from ansible_collections.berth.platform.plugins.modules import health_probe

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = yaml.safe_load(health_probe.DOCUMENTATION)["options"]
SUBOPTIONS = DOCUMENTED["probes"]["suboptions"]


def test_every_key_is_documented() -> None:
    assert set(SUBOPTIONS) == set(KEYS)
    assert SUBOPTIONS["type"]["choices"] == list(TYPES)
    assert SUBOPTIONS["sslmode"]["choices"] == list(SSLMODES)
    assert {name for name, spec in SUBOPTIONS.items() if spec.get("required")} == {"name", "type"}
    assert set(REQUIRED) <= set(TYPES)


def test_documented_defaults_are_the_real_ones() -> None:
    probe = Probe(name="p", type="http")
    defaults = {name: spec["default"] for name, spec in SUBOPTIONS.items() if "default" in spec}
    assert defaults == {name: getattr(probe, name) for name in defaults}
    assert {"timeout", "retries", "interval", "successes"} == set(defaults)


def test_documented_results_are_the_real_ones() -> None:
    from ansible_collections.berth.platform.plugins.module_utils.probe.scheduler import run_probes

    found = run_probes([Probe(name="p", type="command", argv=("/bin/true",))])
    documented = yaml.safe_load(health_probe.RETURN)
    assert set(found) == set(documented)
    assert set(found["probes"][0]) == set(documented["probes"]["contains"])
    assert set(found["summary"]) == set(documented["summary"]["sample"])


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with everything that it was sent."""

    def do_GET(self) -> None:
        body = f"{self.path} {dict(self.headers)}".encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    # Clients that do not speak HTTP hang up on it: that is no news.
    server.handle_error = lambda *_args: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def ansible(options: dict[str, Any], *more: str) -> tuple[str, dict[str, Any]]:
    """Run the module on this machine; everything that was printed, and the result."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")),
            "localhost,",
            "--connection=local",
            "--inventory=localhost,",
            "--module-name=berth.platform.health_probe",
            f"--args={json.dumps(options)}",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
            *more,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_LOG_PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    printed = done.stdout + done.stderr
    _status, brace, rest = done.stdout.partition("=> {")
    assert brace, printed
    found, _end = json.JSONDecoder().raw_decode("{" + rest)
    return printed, found


def test_secrets_stay_out_of_everything_that_is_printed(echo: int) -> None:
    secret = {
        "user": "joe",
        "password": "canary-password",
        "timeout": 1,
        "retries": 1,
        "interval": 0,
    }
    probes = [
        {"name": "echo", "type": "http", "port": echo, "path": "/?token=canary-query", **secret},
        {
            "name": "headers",
            "type": "http",
            "port": echo,
            "headers": {"Authorization": "Bearer canary-bearer", "X-Api-Key": "canary-key"},
        },
        {"name": "database", "type": "postgresql", "port": echo, **secret},
        {"name": "broker", "type": "amqp", "port": echo, **secret},
        {"name": "cache", "type": "redis", "port": echo, **secret},
        {"name": "program", "type": "command", "argv": ["/bin/false", "--password=canary-argv"]},
    ]
    printed, found = ansible({"probes": probes}, "-vvv")
    assert found["changed"] is False and found["healthy"] is False
    assert found["summary"]["unhealthy"] == 6
    assert "canary" not in printed
    # Basic credentials, too.
    assert "am9lOmNhbmFyeS1wYXNzd29yZA==" not in printed
    assert "(hidden)" in found["probes"][0]["last_error"]
    assert [probe["name"] for probe in found["probes"]] == [probe["name"] for probe in probes]


def test_faults_name_the_probe_and_print_no_secret() -> None:
    options = {
        "probes": [
            {"name": "api", "type": "http", "prot": 80, "headers": {"X": "canary\n"}},
            {"name": "db", "type": "postgresql", "password": "canary", "port": 0},
        ],
        "parallel": 0,
    }
    printed, found = ansible(options, "-vvv")
    assert found["msg"].splitlines() == [
        "the probes are not right:",
        "- parallel is 0: write a whole number from 1 to 10000",
        "- probes[0] (api).headers: write the value of X as a single line",
        "- probes[0] (api).prot: is not a known key; did you mean 'port'?",
        "- probes[1] (db).port is 0: write a port from 1 to 65535",
        "- probes[1] (db).user: is required beside password",
    ]
    assert "canary" not in printed


def test_what_ansible_itself_refuses_prints_no_secret() -> None:
    options = {
        "probes": [{"name": "db", "type": "redis", "password": "canary"}],
        "deadline": "soon",
    }
    printed, found = ansible(options, "-vvv")
    assert "deadline" in found["msg"]
    assert "canary" not in printed


def test_runs_in_check_mode(echo: int) -> None:
    options = {"probes": [{"name": "api", "type": "http", "port": echo, "status": [500]}]}
    _printed, found = ansible(options, "--check")
    assert found["healthy"] is True and found["changed"] is False
