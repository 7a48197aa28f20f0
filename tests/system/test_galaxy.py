"""The collection as other repositories get it: built, installed elsewhere, one role used alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import BIN, ROOT, lab

PROJECT = "st-galaxy"
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "roles": [
            {
                "role": "berth.platform.nginx",
                "nginx_sites": [
                    {
                        "name": "alone",
                        "domains": ["alone.example.com"],
                        "redirect_http": False,
                        "locations": [{"path": "/", "return": {"code": 200, "to": "alone"}}],
                    }
                ],
            }
        ],
    }
]


def run(*command: str, cwd: Path, **environment: str) -> str:
    """A command that has to succeed, in an environment without the project's settings."""
    inherited = {name: value for name, value in os.environ.items() if "ANSIBLE" not in name}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another repository, with nothing but the installed tarball."""
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    source = tmp_path / "source"
    for name in filter(None, files.split("\0")):
        if not name.startswith(("tests/", "extensions/", "lab/", "bench/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), cwd=source)
    (tarball,) = tmp_path.glob("berth-platform-*.tar.gz")
    where = tmp_path / "elsewhere"
    where.mkdir()
    install = ("ansible-galaxy", "collection", "install", "--offline", str(tarball))
    run(*install, "-p", "collections", cwd=where)
    return where


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Path]:
    """A bare host."""
    lab("down", PROJECT)
    lab("up", PROJECT, "web")
    try:
        lab("inventory", PROJECT, "--write", str(tmp_path / "inventory"))
        yield tmp_path / "inventory" / "hosts.yml"
    finally:
        lab("down", PROJECT)


def test_a_role_works_alone_from_the_tarball(elsewhere: Path, inventory: Path) -> None:
    assert not (elsewhere / "collections/ansible_collections/berth/platform/lab").exists()
    (elsewhere / "play.yml").write_text(yaml.safe_dump(PLAY))
    play = ("ansible-playbook", "-i", str(inventory), "play.yml")
    paths = {"ANSIBLE_COLLECTIONS_PATH": "collections"}
    run(*play, cwd=elsewhere, **paths)
    ask = "import urllib.request as u; r = u.Request('http://127.0.0.1/', headers={'Host': 'alone."
    ask += "example.com'}); print(u.urlopen(r).read().decode())"
    assert "alone" in lab("ssh", PROJECT, "web", f'python3 -c "{ask}"')
    assert "changed=0" in run(*play, cwd=elsewhere, **paths)
