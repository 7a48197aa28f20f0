"""Applications under PM2: what they answer, what they are given, and what becomes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

testinfra_hosts = ["ansible://server"]

VARIABLES = yaml.safe_load((Path(__file__).parent / "molecule.yml").read_text())["provisioner"][
    "inventory"
]["group_vars"]["all"]
# Molecule takes one of the two dollar signs.
APPS: list[dict[str, Any]] = json.loads(json.dumps(VARIABLES["pm2_apps"]).replace("$$", "$"))
NEXT = {**APPS[0], "name": "api-next", "env": {"PORT": "3051"}, "ports": [3051]}
ALL = {"shop": {"api": 1, "ready": 1}, "cms": {"cluster": 2, "other": 1}}


def ask(host: Any, port: int) -> dict[str, Any]:
    fetch = (
        "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
    )
    done = host.run(f"python3 -c '{fetch}' http://127.0.0.1:{port}/")
    return json.loads(done.stdout) if done.rc == 0 else {}


def listed(host: Any, user: str) -> list[dict[str, Any]]:
    # Another `pm2` may just have printed that it started.
    return list(json.loads(host.check_output(f"berth-pm2 {user} jlist").splitlines()[-1]))


def online(host: Any, user: str) -> dict[str, int]:
    counted: dict[str, int] = {}
    for process in listed(host, user):
        assert process["pm2_env"]["status"] == "online", process["name"]
        counted[process["name"]] = counted.get(process["name"], 0) + 1
    return counted


def pids(host: Any, user: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for process in listed(host, user):
        found.setdefault(process["name"], set()).add(process["pid"])
    return found


def eventually(check: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.3)
    return True


def changed_app(name: str, **values: Any) -> list[dict[str, Any]]:
    return [{**app, **values} if app["name"] == name else app for app in APPS]


def test_applications_answer(host: Any) -> None:
    api = ask(host, 3001)
    assert api["args"] == ["--say", "two words"]
    assert (api["greeting"], api["cwd"]) == ('quoted "$HOME" %n', "/srv/apps")
    assert api["secret"] == "canary-of-the-api"
    assert ask(host, 3002)["name"] == "ready"
    assert ask(host, 3004)["secret"] == "canary-of-the-other"
    # Connections are dealt out among the instances.
    answers = [ask(host, 3003) for _ in range(8)]
    assert len({answer["pid"] for answer in answers}) == 2
    assert {answer["secret"] for answer in answers} == {"canary-of-the-cluster"}
    assert {user: online(host, user) for user in ALL} == ALL


def test_limits_hold_for_the_processes(host: Any) -> None:
    pid = ask(host, 3001)["pid"]
    assert "4096" in host.check_output(f"grep 'open files' /proc/{pid}/limits")
    assert host.check_output("systemctl show -P MemoryMax pm2-shop") == str(400 * 1024 * 1024)
    assert "pm2-shop.service" in host.file(f"/proc/{pid}/cgroup").content_string
    assert host.check_output(f"stat -c %U /proc/{pid}") == "shop"
    assert "NoNewPrivs:\t1" in host.file(f"/proc/{pid}/status").content_string


def test_secrets_are_for_the_user_only(host: Any) -> None:
    # With the environment of what it may see, as another user.
    seen = host.check_output("setpriv --reuid=nobody --clear-groups ps axwwe -o args")
    assert "web.js" in seen and "canary" not in seen + host.check_output("ps axww -o args")
    for user in ALL:
        assert "canary" not in host.check_output(f"berth-pm2 {user} jlist")
    # The pattern does not match itself, where commands are logged.
    places = "/etc /var/lib/pm2 /var/log /usr/local /run/systemd"
    found = host.run(f"grep -rlE 'canary-[o]f' {places}").stdout.split()
    assert sorted(found) == [
        "/etc/berth/pm2/cms/secrets-cluster.json",
        "/etc/berth/pm2/cms/secrets-other.json",
        "/etc/berth/pm2/shop/secrets-api.json",
    ]
    for path in found:
        assert host.file(path).mode == 0o400
    assert host.run("setpriv --reuid=cms --clear-groups cat /etc/berth/pm2/shop/*.json").rc != 0


def test_what_crashes_is_started_again(host: Any) -> None:
    for port in (3001, 3003):
        pid = ask(host, port)["pid"]
        host.check_output(f"kill -9 {pid}")
        assert eventually(lambda port=port, pid=pid: ask(host, port).get("pid") not in (None, pid))
    assert eventually(lambda: {user: online(host, user) for user in ALL} == ALL)


def test_logs_are_rotated_and_written_on(host: Any) -> None:
    log = "/var/log/pm2/shop/api.out.log"
    host.check_output("logrotate -f /etc/logrotate.d/pm2-shop")
    assert "listening" in host.file(f"{log}.1").content_string
    assert host.file(log).size == 0


def test_a_dead_daemon_and_damaged_files_bring_back_what_is_listed(host: Any) -> None:
    for damage in ("dump.pm2", "dump.pm2.bak dump.pm2"):
        for name in damage.split():
            host.check_output(f"echo '[{{' >/var/lib/pm2/shop/{name}")
        before = host.check_output("systemctl show -P MainPID pm2-shop")
        host.check_output(f"kill -9 {before}")
        assert eventually(
            lambda before=before: (
                host.check_output("systemctl show -P MainPID pm2-shop") not in ("0", before)
                and host.run("systemctl is-active pm2-shop").stdout == "active\n"
            )
        )
        assert eventually(lambda: "pid" in ask(host, 3001) and "pid" in ask(host, 3002))
        assert online(host, "shop") == ALL["shop"], damage


def test_what_was_damaged_is_saved_anew(host: Any, converge: Any) -> None:
    done = converge()
    assert done.returncode == 0, done.stdout
    assert len(json.loads(host.file("/var/lib/pm2/shop/dump.pm2").content_string)) == 2


def test_a_change_restarts_that_application_alone_and_another_comes_beside(
    host: Any, converge: Any
) -> None:
    before = {user: pids(host, user) for user in ALL}
    apps = [*changed_app("ready", secret_env={"SECRET": "canary-of-another"}), NEXT]
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, pm2_apps=apps)
        assert done.returncode == 0, done.stdout
        assert "shop/ready: restarted, its settings changed" in done.stdout, done.stdout
        assert "shop/api-next: started" in done.stdout, done.stdout
        assert "canary" not in done.stdout
        if arguments:
            assert {user: pids(host, user) for user in ALL} == before
    assert ask(host, 3002)["secret"] == "canary-of-another"
    assert ask(host, 3051)["name"] == "api-next"
    after = {user: pids(host, user) for user in ALL}
    assert after["cms"] == before["cms"]
    assert after["shop"]["api"] == before["shop"]["api"]
    assert after["shop"]["ready"] != before["shop"]["ready"]


def test_the_first_goes_and_those_that_do_not_come_up_fail_the_run(
    host: Any, converge: Any
) -> None:
    second = next(iter(pids(host, "shop")["api-next"]))
    dies = {"name": "dies", "user": "shop", "cwd": "/srv/apps", "script": "dies.js"}
    mute = {"wait_ready": True, "listen_timeout": 1000, "env": {"PORT": "3009"}}
    done = converge(pm2_apps=[NEXT, dies, {**dies, "name": "mute", "script": "web.js", **mute}])
    assert done.returncode != 0
    for words in (
        "shop/dies does not come up: it ends right after its start",
        "last words: the database is on fire",
        "shop/mute does not come up: it is launching, it has not said that it is ready",
    ):
        assert words in done.stdout, done.stdout
    assert pids(host, "shop")["api-next"] == {second}
    assert ask(host, 3001) == {}


def test_what_was_removed_stays_away(host: Any, converge: Any) -> None:
    # The user cms has none any more, and no daemon.
    done = converge(pm2_apps=[APPS[1], NEXT])
    assert done.returncode == 0, done.stdout
    host.check_output("systemctl restart pm2-shop")
    assert online(host, "shop") == {"api-next": 1, "ready": 1}
    assert eventually(lambda: "pid" in ask(host, 3051))
    assert not host.file("/etc/systemd/system/pm2-cms.service").exists
    assert host.run("systemctl is-active pm2-cms").stdout == "inactive\n"
    assert host.run("pgrep -u cms").stdout == ""
    assert not host.file("/etc/berth/pm2/cms").exists
