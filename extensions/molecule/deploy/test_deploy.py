"""Deploys lose no request, and whatever breaks one leaves the old release serving.

A client on another host asks all services without a break. The tests depend on one another, and run
in the order they stand in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PORTS = {"shop": 5001, "exits": 5011, "never": 5021, "dies": 5031, "elsewhere": 5041}
STATE = "/var/lib/berth/deploy"
GET = """
import json, sys, urllib.request
print(json.load(urllib.request.urlopen(sys.argv[1], timeout=3))["version"])
"""

testinfra_hosts = ["ansible://server"]


@pytest.fixture(scope="module")
def client(hosts: dict[str, Any]) -> Any:
    """Another host."""
    found = hosts["client"]
    found.check_output("printf %%s %s > /root/client.py", (HERE / "client.py").read_text())
    return found


@pytest.fixture(scope="module")
def address(host: Any) -> str:
    """The server's."""
    return str(host.check_output("hostname -I").split()[0])


class Play:
    """The play, with releases of the services as a test wants them."""

    def __init__(self, path: Path, address: str) -> None:
        self.path = path
        text = (HERE / "molecule.yml").read_text()
        text = text.replace("{{ hostvars.server.ansible_host }}", address)
        variables = yaml.safe_load(text)["provisioner"]["inventory"]["group_vars"]["all"]
        # One by one: what they share in the file is one object otherwise.
        self.services = {each["name"]: deepcopy(each) for each in variables["app_services"]}
        for each in self.services.values():
            each["artifact"] = {"path": str(HERE / "app")}

    def release(self, name: str, version: str, mode: str = "good") -> None:
        """The service is to run this version, which behaves so."""
        source = self.path / version
        if not source.exists():
            shutil.copytree(HERE / "app", source)
            (source / "MODE").write_text(f"{mode}\n")
        self.services[name] |= {"version": version, "artifact": {"path": str(source)}}

    def start(self, *arguments: str, action: str = "deploy") -> subprocess.Popen[str]:
        """A run that is not waited for."""
        variables = self.path / f"{time.monotonic_ns()}.json"
        given = {"app_services": list(self.services.values()), "app_deploy_action": action}
        variables.write_text(json.dumps(given))
        inventory = os.environ["MOLECULE_INVENTORY_FILE"].rpartition("/")[0]
        argv = ["ansible-playbook", "-i", inventory, "-e", f"@{variables}", *arguments]
        return subprocess.Popen(
            [*argv, str(HERE / "converge.yml")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        )

    def run(self, *arguments: str, action: str = "deploy") -> tuple[int, str]:
        process = self.start(*arguments, action=action)
        out = process.communicate()[0]
        return process.returncode, out

    def deploy(self, name: str, version: str, mode: str = "good", action: str = "deploy") -> str:
        """It has to go well."""
        self.release(name, version, mode)
        code, out = self.run(action=action)
        assert code == 0, out
        return out


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, address: str) -> Play:
    """One for all, so that what one test deployed is what the next begins with."""
    return Play(tmp_path_factory.mktemp("releases"), address)


@contextmanager
def load(client: Any, address: str) -> Iterator[dict[str, Any]]:
    """Requests without a break; what they met."""
    found: dict[str, Any] = {}
    client.check_output(
        "rm -f /tmp/stop /tmp/result; systemctl reset-failed load 2>/dev/null; true"
    )
    ports = " ".join(map(str, PORTS.values()))
    client.check_output(
        "systemd-run --collect --unit=load "
        f"python3 /root/client.py {address} /tmp/stop /tmp/result {ports}"
    )
    time.sleep(0.5)
    try:
        yield found
    finally:
        client.check_output("touch /tmp/stop")
        for _ in range(100):
            if client.file("/tmp/result").exists:
                break
            time.sleep(0.1)
        found.update(json.loads(client.file("/tmp/result").content_string))
        print({key: found[key] for key in ("rate", "slowest", "seen")}, found["failed"][:5])


def versions(found: dict[str, Any], name: str) -> set[str]:
    """The releases of a service that the client met."""
    return {each.split()[2] for each in found["seen"] if each.startswith(f"{PORTS[name]} ")}


def get(host: Any, name: str) -> str:
    """The release that answers on the host itself."""
    bind = host.check_output("hostname -I").split()[0]
    return str(host.check_output("python3 -c %s http://%s:%s/", GET, bind, str(PORTS[name])))


def state(host: Any, name: str) -> dict[str, Any]:
    return dict(json.loads(host.file(f"{STATE}/{name}.json").content_string))


def history(host: Any, name: str) -> list[dict[str, Any]]:
    text = host.file(f"{STATE}/{name}.history").content_string
    return [json.loads(line) for line in text.splitlines()]


def units(host: Any, name: str) -> list[str]:
    """Those of a service that run."""
    shown = host.check_output(
        "systemctl list-units --plain --no-legend --state=active %s", f"{name}*"
    )
    return sorted(line.split()[0] for line in shown.splitlines())


class TestFirst:
    def test_serves(self, host: Any) -> None:
        for name in PORTS:
            assert get(host, name) == "v1"
            assert units(host, name) == [f"{name}.service"]
            assert host.file(f"/srv/{name}/slots/{name}").linked_to.endswith("/releases/v1")
        assert "berth_switch" not in host.run("nft list tables").stdout

    def test_secrets(self, host: Any) -> None:
        for path in ("/etc/berth/services/shop.env", "/etc/berth/credentials/shop/key"):
            entry = host.file(path)
            assert (entry.user, entry.mode) == ("root", 0o600)
        assert "canary" not in host.check_output("journalctl --quiet --no-pager -o cat")
        assert host.run(f"grep -r [c]anary {STATE} /run/berth").stdout == ""


class TestDeploys:
    def test_no_request_is_lost(self, host: Any, client: Any, address: str, play: Play) -> None:
        with load(client, address) as found:
            for version in ("v2", "v3", "v4"):
                out = play.deploy("shop", version)
                assert f"server: shop: {version} serves, what served before has ended" in out
            play.deploy("shop", "v3", action="rollback")
            code, out = play.run(action="converge")
            assert (code, "changed=0" in out) == (0, True), out
        assert found["failed"] == []
        assert found["rate"] > 100
        assert versions(found, "shop") == {"v1", "v2", "v3", "v4"}
        assert versions(found, "exits") == {"v1"}
        assert get(host, "shop") == "v3"
        assert history(host, "shop")[-1]["seconds"] < 10
        assert len(units(host, "shop")) == 1

    def test_history(self, host: Any) -> None:
        past = [(each["action"], each["version"], each["result"]) for each in history(host, "shop")]
        assert past == [
            ("converge", "v1", "ok"),
            ("deploy", "v2", "ok"),
            ("deploy", "v3", "ok"),
            ("deploy", "v4", "ok"),
            ("rollback", "v3", "ok"),
        ]
        assert "@" in history(host, "shop")[-1]["who"]

    def test_old_releases_are_gone(self, host: Any) -> None:
        assert host.check_output("ls /srv/shop/releases").split() == ["v2", "v3", "v4"]
        assert host.file("/srv/shop/current").linked_to.endswith("/releases/v3")

    def test_a_secret_changes_without_a_loss(
        self, host: Any, client: Any, address: str, play: Play
    ) -> None:
        before = state(host, "shop")["live"]
        play.services["shop"]["secret_environment"]["SECRET"] = "canary-three"
        with load(client, address) as found:
            code, out = play.run("--diff", "-v")
        assert code == 0, out
        assert "canary" not in out
        assert found["failed"] == []
        live = state(host, "shop")["live"]
        assert live != before
        unit = {"a": "shop", "b": "shop-b"}[live]
        assert "canary-three" in host.file(f"/etc/berth/services/{unit}.env").content_string

    def test_the_client_counts_what_fails(self, host: Any, client: Any, address: str) -> None:
        """Its port leads to where nobody listens."""
        host.check_output("nft -f /etc/berth/port-switch.nft")
        with load(client, address) as found:
            host.check_output("nft flush map inet berth_switch addressed")
            lead = f"{{ {address} . 5001 : {address} . 5999 }}"
            host.check_output("nft add element inet berth_switch addressed %s", lead)
            time.sleep(0.5)
            host.check_output("nft -f /etc/berth/port-switch.nft")
        assert found["failed"]


class TestBroken:
    def test_each_in_its_way(self, host: Any, client: Any, address: str, play: Play) -> None:
        before = deepcopy(play.services)
        for name in ("exits", "never", "dies", "elsewhere"):
            play.release(name, f"{name}-2", name)
        with load(client, address) as found:
            code, out = play.run()
        play.services = before
        assert code != 0
        assert found["failed"] == []
        for name in ("exits", "never", "dies", "elsewhere"):
            assert versions(found, name) == {"v1"}
            assert get(host, name) == "v1"
            assert units(host, name) == [f"{name}.service"]
            assert history(host, name)[-1]["result"] == "failed"
        words = " ".join(out.split())
        assert "exits exits-2: the step 'start' failed" in words
        assert "it exits as told" in words
        assert "never never-2: the step 'probe' failed: never: is not ready after 4 s: " in words
        assert "status 503" in words
        assert "dies dies-2: the step 'probe' failed: dies: was ready for" in words
        assert "it has to listen on port 5042, and listens on 0.0.0.0:6042" in words
        assert "; v1 serves on" in words
        code, out = play.run()
        assert (code, "changed=0" in out) == (0, True), out

    @pytest.mark.parametrize(
        ("mode", "words"),
        [
            ("unbuilt", "it is not built as told"),
            ("unmigrated", "it does not migrate as told"),
        ],
    )
    def test_before_it_is_started(
        self, host: Any, client: Any, address: str, play: Play, mode: str, words: str
    ) -> None:
        before = deepcopy(play.services)
        play.release("shop", mode, mode)
        with load(client, address) as found:
            code, out = play.run()
        play.services = before
        assert code != 0
        assert words in out
        assert found["failed"] == []
        assert get(host, "shop") == "v3"


def wait_for(host: Any, step: str) -> None:
    """Until a deploy of the shop is at a step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done = host.run("grep -q %s %s/shop.json", f'"step": "{step}"', STATE)
        if done.rc == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"the deploy never came to the step {step}")


def deploying(host: Any) -> str:
    """The process that deploys the shop; empty if there is none."""
    pid = json.loads(host.file(f"{STATE}/shop.lock").content_string)["pid"]
    return str(pid) if host.run(f"kill -0 {pid}").rc == 0 else ""


class TestKilled:
    @pytest.mark.parametrize(("step", "version"), [("probe", "v5"), ("drain", "v6")])
    def test_on_the_host(
        self, host: Any, client: Any, address: str, play: Play, step: str, version: str
    ) -> None:
        """As if it ran out of memory in the middle."""
        play.release("shop", version)
        play.services["shop"]["drain_seconds"] = 4
        with load(client, address) as found:
            process = play.start()
            wait_for(host, step)
            host.check_output(f"kill -9 {deploying(host)}")
            out = process.communicate()[0]
            assert "The deploy's process on the host was killed" in out
            assert len(units(host, "shop")) == 2
            out = play.deploy("shop", version)
            assert f"a deploy of {version} was interrupted at the step {step}" in out
        assert found["failed"] == []
        assert get(host, "shop") == version
        assert len(units(host, "shop")) == 1
        assert history(host, "shop")[-2]["result"] == "interrupted"

    def test_on_the_controller(self, host: Any, client: Any, address: str, play: Play) -> None:
        """The deploy goes on, and one that comes meanwhile is refused."""
        play.release("shop", "v7")
        # Long enough for another run to begin meanwhile.
        play.services["shop"]["stable_seconds"] = 15
        with load(client, address) as found:
            process = play.start()
            wait_for(host, "probe")
            process.kill()
            process.wait()
            code, out = play.run()
            assert code != 0
            words = " ".join(out.split())
            assert "shop is being deployed already: v7 by " in words
            for _ in range(300):
                if not deploying(host):
                    break
                time.sleep(0.1)
        assert found["failed"] == []
        assert get(host, "shop") == "v7"
        code, out = play.run()
        assert (code, "changed=0" in out) == (0, True), out


class TestReboot:
    def test_the_slot_that_served_serves(self, host: Any, play: Play) -> None:
        play.deploy("exits", "v2")
        before = {name: state(host, name)["live"] for name in PORTS}
        assert set(before.values()) == {"a", "b"}
        subprocess.run(
            [str(ROOT / "lab" / "lab"), "restart", "molecule-deploy", "server"], check=True
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                found = {name: get(host, name) for name in PORTS}
                break
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
        assert (found["shop"], found["exits"], found["never"]) == ("v7", "v2", "v1")
        for name, live in before.items():
            assert units(host, name) == [f"{name}{'-b' if live == 'b' else ''}.service"]
        code, out = play.run()
        assert (code, "changed=0" in out) == (0, True), out


class TestWithoutSlots:
    def test_back_to_restarts_and_gone(self, host: Any, play: Play) -> None:
        """The port leads to itself again, and nothing of the other slot stays."""
        for name in ("never", "dies", "elsewhere", "shop"):
            del play.services[name]
        play.services["exits"]["deploy"] = "restart"
        code, out = play.run()
        assert code == 0, out
        assert get(host, "exits") == "v2"
        assert units(host, "exits") == ["exits.service"]
        assert host.check_output("ls /etc/berth/services").split() == ["exits.env"]
        assert host.run(f"ls {STATE}/*.json").stdout == ""
        assert "5011" not in host.check_output("nft list table inet berth_switch")
        assert host.run("ls /etc/systemd/system/shop*").rc != 0
        code, out = play.run()
        assert (code, "changed=0" in out) == (0, True), out
