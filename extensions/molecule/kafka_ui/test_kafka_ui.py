"""The UI's unit, configuration, credentials and probe, with a stand-in for Kafdrop itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from shlex import quote
from typing import Any

BASE = "http://127.0.0.1:8090/kafka-ui"
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode())"


def fetch(host: Any, url: str) -> Any:
    return host.run(f"python3 -c {quote(FETCH)} {url}")


def topics(host: Any, base: str = BASE) -> list[str]:
    done = fetch(host, f"{base}/topic")
    assert done.rc == 0, done.stderr
    return list(json.loads(done.stdout))


def eventually(ask: Callable[[], bool], seconds: float = 180) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def pid(host: Any) -> str:
    return str(host.check_output("systemctl show -P MainPID kafka-ui"))


def test_it_signs_in_and_lists_the_brokers_topics(host: Any) -> None:
    assert {"orders", "payslips"} <= set(topics(host))


def test_it_answers_probes(host: Any) -> None:
    done = fetch(host, f"{BASE}/actuator/health")
    assert json.loads(done.stdout)["status"] == "UP", done.stderr


def test_it_is_below_its_path_only(host: Any) -> None:
    assert fetch(host, "http://127.0.0.1:8090/topic").rc != 0


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output(f"ss -Hltnp | grep pid={pid(host)},").splitlines()
    listening = {line.split()[3].replace("[::ffff:", "").replace("]", "") for line in lines}
    assert listening == {"127.0.0.1:8090"}


def test_limits_are_those_of_the_process(host: Any) -> None:
    assert host.check_output(f"ps -o user= -p {pid(host)}") == "kafka-ui"
    assert "8192" in host.check_output(f"grep 'open files' /proc/{pid(host)}/limits")
    shown = host.check_output("systemctl show -P MemoryMax kafka-ui")
    assert shown == str(500 * 1024 * 1024)


def test_the_password_is_for_root_only(host: Any) -> None:
    file = host.file("/etc/kafka-ui/kafka.properties")
    assert (file.mode, file.user, file.group) == (0o600, "root", "root")
    assert "ui-password" not in host.check_output("journalctl --no-pager -b")
    assert "ui-password" not in host.check_output("ps axww -o args")
    found = host.run("grep -rl 'ui-[p]assword' /etc /opt/kafka-ui /var/log")
    assert found.stdout.split() == ["/etc/kafka-ui/kafka.properties"]


def test_it_is_there_again_after_a_crash(host: Any) -> None:
    before = pid(host)
    host.check_output(f"kill -9 {before}")
    assert eventually(lambda: bool(fetch(host, f"{BASE}/topic").rc == 0))
    assert pid(host) != before


# --- what changes later ---------------------------------------------------------------------------


def test_bad_input_is_told_at_once(host: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(kafka_ui_kafka_brokers=["broker"], kafka_ui_path="kafka")
    assert done.returncode != 0
    folded = " ".join(done.stdout.split())
    assert "'broker': write address:port" in folded, done.stdout
    assert "kafka_ui_path 'kafka'" in folded
    assert pid(host) == before


def test_path_and_password_change_as_predicted(host: Any, converge: Any) -> None:
    before = pid(host)
    changed = {"kafka_ui_path": "/k", "kafka_ui_kafka_password": "another-password"}
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, **changed)
        assert done.returncode == 0, done.stdout
        # Kafka's user, the UI's two files, and its start.
        assert "changed=3" in done.stdout, done.stdout
        assert "another-password" not in done.stdout
        assert (pid(host) == before) == bool(arguments)
    assert "orders" in topics(host, "http://127.0.0.1:8090/k")
    again = converge(**changed)
    assert "changed=0" in again.stdout, again.stdout
