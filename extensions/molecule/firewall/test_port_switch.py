"""A port's new connections go to another process; those that are open stay where they are."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# Says who it is, once when it is connected to and again for every line it gets.
SERVE = """
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"{name}\\n")
        for line in self.rfile:
            self.wfile.write(b"{name}\\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
Server(("0.0.0.0", {port}), Handler).serve_forever()
"""
ASK = """
import socket
with socket.create_connection(("{address}", {port}), 2) as s:
    print(s.makefile().readline().strip())
"""
# Holds one connection and makes others, as fast as it can, until it is told to end.
LOAD = """
import collections, json, pathlib, socket, time
stop = pathlib.Path("/tmp/stop")
stop.unlink(missing_ok=True)
held = socket.create_connection(("{address}", {port}), 2)
answers = held.makefile()
first = answers.readline().strip()
pathlib.Path("/tmp/running").touch()
seen = collections.Counter()
while not stop.exists():
    try:
        with socket.create_connection(("{address}", {port}), 2) as s:
            seen[s.makefile().readline().strip()] += 1
    except OSError as error:
        seen[repr(error)] += 1
held.sendall(b"again\\n")
print(json.dumps([first, answers.readline().strip(), dict(seen)]))
"""

testinfra_hosts = ["ansible://server"]


def play(name: str, *options: str) -> str:
    """A playbook of this scenario; what it said."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
    argv = ["ansible-playbook", str(HERE / name), "-i", inventory, *options]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def switch(*switches: dict[str, Any], check: bool = False) -> bool:
    """Make switches; whether that changed anything."""
    options = ["-e", json.dumps({"switches": switches})] + (["--check"] if check else [])
    return "changed=1" in play("switch.yml", *options)


def ask(host: Any, address: str, port: int = 8000) -> str:
    """Who answers; nobody if the connection does not come about."""
    done = host.run("python3 -c %s", ASK.format(address=address, port=port))
    return str(done.stdout).strip() or "nobody"


@pytest.fixture(scope="module")
def client(hosts: dict[str, Any]) -> Any:
    """Another host."""
    return hosts["client"]


@pytest.fixture(scope="module")
def address(host: Any) -> str:
    """The server's."""
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture(scope="module", autouse=True)
def processes(host: Any) -> Iterator[None]:
    """Two, of which the rules let in only to the first one's port, from everywhere."""
    play("converge.yml")
    host.run("systemctl stop listeners")
    for name, port in ("one", 8000), ("two", 8004):
        host.check_output(
            f"systemd-run --collect --unit=process-{name} python3 -c %s",
            SERVE.format(name=name, port=port),
        )
    time.sleep(0.5)
    yield
    switch({"port": 8000})
    host.check_output("systemctl stop process-one process-two")


class TestSwitch:
    def test_the_first_one_serves(self, host: Any, client: Any, address: str) -> None:
        assert ask(client, address) == "one"
        assert ask(client, address, 8004) == "nobody"

    def test_a_dry_run_says_so_and_does_nothing(self, client: Any, address: str) -> None:
        assert switch({"port": 8000, "to": 8004}, check=True)
        assert ask(client, address) == "one"

    def test_new_connections_go_to_the_second(self, host: Any, client: Any, address: str) -> None:
        assert switch({"port": 8000, "to": 8004})
        assert ask(client, address) == "two"
        assert ask(host, address) == "two"
        assert ask(host, "127.0.0.1") == "two"
        # Which the firewall does not let anybody in to by its own port.
        assert ask(client, address, 8004) == "nobody"
        assert not switch({"port": 8000, "to": 8004})

    def test_a_flush_of_all_tables_is_made_good(self, host: Any, client: Any, address: str) -> None:
        host.check_output("systemctl restart nftables")
        assert ask(client, address) == "two"
        host.check_output("nft delete table inet berth_switch")
        assert ask(client, address) == "one"
        assert switch({"port": 8000, "to": 8004})
        assert ask(client, address) == "two"

    def test_it_is_there_at_boot(self, host: Any) -> None:
        host.check_output("nft delete table inet berth_switch")
        host.check_output("systemctl restart berth-port-switch")
        assert host.check_output("systemctl is-enabled berth-port-switch") == "enabled"
        assert ask(host, "127.0.0.1") == "two"

    def test_one_address_alone(self, host: Any, client: Any, address: str) -> None:
        assert switch({"port": 8000}, {"address": "127.0.0.1", "port": 8000, "to": 8004})
        assert (ask(host, "127.0.0.1"), ask(host, address)) == ("two", "one")
        assert ask(client, address) == "one"
        assert switch({"address": "127.0.0.1", "port": 8000})

    def test_no_connection_is_lost(self, host: Any, client: Any, address: str) -> None:
        """Nor one that is open cut, however often it goes to and fro."""
        client.check_output("rm -f /tmp/running /tmp/stop")
        client.check_output(
            "systemd-run --collect --unit=load --property=StandardOutput=file:/tmp/seen "
            "python3 -c %s",
            LOAD.format(address=address, port=8000),
        )
        for _ in range(50):
            if client.file("/tmp/running").exists:
                break
            time.sleep(0.1)
        for number in range(6):
            assert switch({"port": 8000, **({"to": 8004} if number % 2 == 0 else {})})
        client.check_output("touch /tmp/stop")
        for _ in range(50):
            if client.run("systemctl is-active load").stdout.strip() != "active":
                break
            time.sleep(0.1)
        first, again, seen = json.loads(client.file("/tmp/seen").content_string)
        assert (first, again) == ("one", "one")
        assert set(seen) == {"one", "two"}, seen
        assert min(seen.values()) > 50, seen
