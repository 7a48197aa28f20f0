"""Sites as browsers get them, before, while and after they are switched."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

testinfra_hosts = ["ansible://server"]
RELEASES = "/var/www/app/current.releases"


@pytest.fixture
def app() -> Iterator[Path]:
    """The directory that the site is made of; as it was when the test is over."""
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "app")
    yield directory
    write(directory, "one")


def write(directory: Path, word: str) -> None:
    (directory / "index.html").write_text(f"<title>{word}</title>\n")
    (directory / "assets/app.js").write_text(f"{word}\n")


def ask(host: Any, domain: str, path: str = "/") -> tuple[int, bytes]:
    address = host.check_output("hostname -I").split()[0]
    return ask_address(address, domain, path)


def ask_address(address: str, domain: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": domain})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def releases(host: Any) -> set[str]:
    return set(host.check_output(f"ls {RELEASES}").split())


def test_they_are_served(host: Any) -> None:
    assert ask(host, "app.test") == (200, b"<title>one</title>\n")
    assert ask(host, "app.test", "/any/route") == (200, b"<title>one</title>\n")
    assert ask(host, "app.test", "/assets/app.js") == (200, b"one\n")
    assert ask(host, "docs.test") == (200, b"docs\n")


def test_the_web_server_cannot_change_them(host: Any) -> None:
    assert host.file("/srv/docs").linked_to == "/srv/releases/docs/1.0.0"
    for path in ("/var/www/app/current/", "/srv/docs/", "/srv/docs/index.html"):
        assert host.run("runuser -u www-data -- test -r %s", path).rc == 0
        assert host.run("runuser -u www-data -- test -w %s", path).rc == 1
        assert host.run("runuser -u nobody -- test -r %s", path).rc == 1


def test_a_switch_that_nobody_notices(host: Any, app: Path, converge: Callable[..., Any]) -> None:
    address = host.check_output("hostname -I").split()[0]
    answers: set[tuple[int, bytes]] = set()
    done = threading.Event()

    def browse() -> None:
        while not done.is_set():
            answers.add(ask_address(address, "app.test", "/"))

    thread = threading.Thread(target=browse)
    thread.start()
    try:
        write(app, "two")
        assert "changed=1" in converge().stdout
    finally:
        done.set()
        thread.join()
    assert ask(host, "app.test", "/assets/app.js") == (200, b"two\n")
    assert answers == {(200, b"<title>one</title>\n"), (200, b"<title>two</title>\n")}


def test_old_releases_go(host: Any, app: Path, converge: Callable[..., Any]) -> None:
    for word in ("three", "four", "five"):
        write(app, word)
        assert "changed=1" in converge().stdout
    assert len(releases(host)) == 2
    assert "changed=0" in converge().stdout


def test_check_mode_predicts(host: Any, app: Path, converge: Callable[..., Any]) -> None:
    converge()
    before = releases(host)
    write(app, "next")
    assert "changed=1" in converge("--check", "--diff").stdout
    assert releases(host) == before
    assert b"one" in ask(host, "app.test")[1]


def test_another_archive_than_promised_is_refused(host: Any, converge: Callable[..., Any]) -> None:
    bad = {
        "name": "docs",
        "root": "/srv/docs",
        "releases": "/srv/releases/docs",
        "version": "2.0.0",
        "artifact": {"url": "http://127.0.0.1:8099/docs.tar.gz", "checksum": f"sha256:{'0' * 64}"},
    }
    done = converge(static_site_sites=[bad])
    assert done.returncode != 0
    assert "0000000" in done.stdout
    assert ask(host, "docs.test") == (200, b"docs\n")
    assert host.check_output("ls /srv/releases/docs") == "1.0.0"
