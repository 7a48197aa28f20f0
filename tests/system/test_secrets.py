"""No secret is where it can be read: the run's output, arguments, journal, open files."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable

import pytest
import yaml
from harness import Host, ProcessWatch, System


def canaries(system: System) -> dict[str, str]:
    """Every secret by name, in a form that a search finds: of a key, a line in its midst."""
    found = {name: value.strip() for name, value in system.secrets.items()}
    found = {
        name: value.splitlines()[2] if "\n" in value else value for name, value in found.items()
    }
    found["vault password"] = (system.state / "vault-password").read_text().strip()
    given = system.given_overlay / "group_vars" / "all" / "given.yml"
    found |= yaml.safe_load(given.read_text(encoding="utf-8"))
    assert all(len(value) >= 16 for value in found.values()), "too short to search for"
    return found


def forms(value: str) -> Iterable[str]:
    """The value itself, and what base64 makes of it wherever in a text it begins."""
    yield value
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + value.encode()).decode().rstrip("=")
        # Its first and last characters depend on what is beside it.
        yield coded[4:-4] if shift else coded[:-4]


def search(values: dict[str, str], text: str) -> list[str]:
    """The names of the values that a text has in it."""
    return [name for name, value in values.items() if any(form in text for form in forms(value))]


def leaks(host: Host, values: dict[str, str]) -> list[tuple[str, str]]:
    return [tuple(each) for each in host.script("leaks", values=values)]


@pytest.mark.stage(95)
def test_no_secret_is_in_the_output_at_vvv(converged: System) -> None:
    values = canaries(converged)
    assert "-vvv" in converged.first_run.command
    for play in converged.plays:
        assert search(values, play.output) == [], f"{play.command}: {play.log}"


@pytest.mark.stage(95)
def test_no_secret_was_ever_in_an_argument(converged: System) -> None:
    values = canaries(converged)
    # Both sides were watched: the controller's Ansible, and what it made the hosts do.
    assert any("ansible-playbook" in line for line in converged.processes)
    assert any("/lib/postgresql/" in line for line in converged.processes)
    for line in converged.processes:
        assert search(values, line) == [], line.split()[0]


@pytest.mark.stage(95)
def test_no_secret_can_be_read_on_a_host(converged: System) -> None:
    values = canaries(converged)
    for host in converged.hosts.values():
        assert leaks(host, values) == [], host.name


@pytest.mark.stage(96)
def test_the_searches_find_what_is_there(converged: System) -> None:
    """A test that cannot fail proves nothing: plant one value everywhere, and find it."""
    host = next(iter(converged.hosts.values()))
    planted = {"planted": f"canary{uuid.uuid4().hex}"}
    value = planted["planted"]
    coded = base64.b64encode(f"x={value};".encode()).decode()
    assert search(planted, f"msg: {value}") and search(planted, f"content: {coded}")

    with ProcessWatch() as watch:
        host.out(f"sh -c 'sleep 0.2' {value}")
    assert any(value in line for line in watch.seen)

    unit = f"[Service]\\nEnvironment=X={value}\\nExecStart=/bin/sleep 60\\n"
    host.out(
        f"echo {value} >/var/tmp/planted; install -m 600 /var/tmp/planted /var/log/planted.log;"
        f"install -m 600 /var/tmp/planted /var/tmp/unread; logger {value}; "
        f"printf '{unit}' >/run/systemd/system/planted.service; "
        "chmod 600 /run/systemd/system/planted.service; systemctl daemon-reload; "
        "systemctl start planted; journalctl --sync"
    )
    try:
        with host.background("print('here')\nthreading.Event().wait()", value):
            found = leaks(host, planted)
    finally:
        host.out(
            "systemctl stop planted; rm /run/systemd/system/planted.service /var/tmp/planted "
            "/var/tmp/unread /var/log/planted.log; systemctl daemon-reload"
        )
    places = {place.split(" ")[0] for place, _name in found}
    paths = {place.split(" ")[-1] for place, _name in found}
    assert places == {"journal", "world-readable", "log", "systemctl", "arguments"}
    assert "/var/tmp/planted" in paths and "/var/log/planted.log" in paths
    assert "/var/tmp/unread" not in paths
