"""The registry as its services meet it: schemas are registered, fetched, and refused."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from shlex import quote
from typing import Any

API = "http://127.0.0.1:8081/apis/ccompat/v7"
CLIENT = """
import sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(
    url, body.encode() or None, {"Content-Type": "application/vnd.schemaregistry.v1+json"},
    method=method)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(0, error)
"""


def call(host: Any, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """Status and what was answered, as a client on this host gets it; 0 if nobody answers."""
    sent = "" if body is None else json.dumps(body)
    arguments = " ".join(map(quote, (method, url if "://" in url else API + url, sent)))
    status, _space, text = host.check_output(f"python3 -c {quote(CLIENT)} {arguments}").partition(
        " "
    )
    try:
        return int(status), json.loads(text)
    except ValueError:
        return int(status), text


def record(*fields: tuple[str, str]) -> dict[str, str]:
    """An Avro schema of an order, as the API takes one."""
    names = [{"name": name, "type": kind} for name, kind in fields]
    return {"schema": json.dumps({"type": "record", "name": "Order", "fields": names})}


def eventually(ask: Callable[[], bool], seconds: float = 180) -> bool:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def pid(host: Any) -> str:
    return str(host.check_output("systemctl show -P MainPID schema-registry"))


FIRST = record(("id", "long"))
# Another one in each run: what is registered stays.
SUBJECT = f"orders-{uuid.uuid4().hex[:8]}"
VERSIONS = f"/subjects/{SUBJECT}/versions"


def test_a_schema_is_registered_and_fetched(host: Any) -> None:
    status, answer = call(host, "POST", VERSIONS, FIRST)
    assert status == 200, answer
    status, fetched = call(host, "GET", f"/schemas/ids/{answer['id']}")
    assert (status, json.loads(fetched["schema"])) == (200, json.loads(FIRST["schema"]))
    assert SUBJECT in call(host, "GET", "/subjects")[1]
    assert call(host, "GET", f"{VERSIONS}/latest")[1]["version"] == 1
    again = call(host, "POST", VERSIONS, FIRST)
    assert again[1]["id"] == answer["id"], "the same schema is the same id"


def test_an_incompatible_schema_is_refused(host: Any) -> None:
    # Without a default, a reader of this one could not read what was written before.
    changed = record(("id", "long"), ("customer", "string"))
    status, answer = call(host, "POST", VERSIONS, changed)
    assert status == 409, answer
    url = f"/compatibility{VERSIONS}/latest"
    assert call(host, "POST", url, changed)[1]["is_compatible"] is False
    assert call(host, "GET", VERSIONS) == (200, [1])


def test_what_is_no_schema_is_refused(host: Any) -> None:
    broken = {"schema": '{"type": "record"'}
    assert call(host, "POST", VERSIONS, broken)[0] == 422


def test_health_and_metrics_answer(host: Any) -> None:
    status, answer = call(host, "GET", "http://127.0.0.1:8082/health/ready")
    assert (status, answer["status"]) == (200, "UP"), answer
    assert call(host, "GET", "http://127.0.0.1:8082/metrics")[0] == 200


def test_it_listens_where_it_should(host: Any) -> None:
    lines = host.check_output(f"ss -Hltnp | grep pid={pid(host)},").splitlines()
    listening = {line.split()[3].replace("[::ffff:", "").replace("]", "") for line in lines}
    assert listening == {"127.0.0.1:8081", "127.0.0.1:8082"}


def test_limits_are_those_of_the_process(host: Any) -> None:
    assert host.check_output(f"ps -o user:20= -p {pid(host)}") == "schema-registry"
    assert "16384" in host.check_output(f"grep 'open files' /proc/{pid(host)}/limits")
    shown = host.check_output("systemctl show -P MemoryMax schema-registry")
    assert shown == str(1500 * 1024 * 1024)


def test_the_password_is_for_root_only(host: Any) -> None:
    file = host.file("/etc/schema-registry/application.properties")
    assert (file.mode, file.user, file.group) == (0o600, "root", "root")
    assert "registry-password" not in host.check_output("journalctl --no-pager -b")
    assert "registry-password" not in host.check_output("ps axww -o args")
    # The pattern does not match itself, where commands are logged.
    found = host.run("grep -rl 'registry-[p]assword' /etc /opt /var/lib/schema-registry /var/log")
    assert found.stdout.split() == ["/etc/schema-registry/application.properties"]


def test_schemas_are_there_after_a_crash(host: Any) -> None:
    before = pid(host)
    host.check_output(f"kill -9 {before}")
    assert eventually(lambda: call(host, "GET", f"{VERSIONS}/latest")[0] == 200)
    assert pid(host) != before
    changed = record(("id", "long"), ("customer", "string"))
    assert call(host, "POST", VERSIONS, changed)[0] == 409


# --- what changes later ---------------------------------------------------------------------------


def test_bad_input_is_told_at_once(host: Any, converge: Any) -> None:
    before = pid(host)
    done = converge(schema_registry_kafka_brokers=["broker"], schema_registry_heap="512")
    assert done.returncode != 0
    folded = " ".join(done.stdout.split())
    assert "'broker': write address:port" in folded, done.stdout
    assert "schema_registry_heap '512'" in folded
    assert pid(host) == before


def test_settings_restart_it_as_predicted_and_schemas_stay(host: Any, converge: Any) -> None:
    before = pid(host)
    changed: dict[str, Any] = {
        "schema_registry_compatibility": "NONE",
        "schema_registry_settings": {"quarkus.http.access-log.enabled": True},
    }
    for arguments in (["--check"], []):
        done = converge("--diff", *arguments, **changed)
        assert done.returncode == 0, done.stdout
        assert "changed=2" in done.stdout, done.stdout
        assert "registry-password" not in done.stdout
        assert (pid(host) == before) == bool(arguments)
    assert SUBJECT in call(host, "GET", "/subjects")[1]
    changed_schema = record(("id", "string"))
    assert call(host, "POST", VERSIONS, changed_schema)[0] == 200
    again = converge(**changed)
    assert "changed=0" in again.stdout, again.stdout


def test_what_is_changed_by_hand_comes_back(host: Any, converge: Any) -> None:
    path = "/etc/schema-registry/application.properties"
    host.check_output(f"sed -i s/8081/8083/ {path}")
    done = converge()
    assert done.returncode == 0, done.stdout
    assert "=8081" in host.file(path).content_string
    assert call(host, "GET", "/subjects")[0] == 200
