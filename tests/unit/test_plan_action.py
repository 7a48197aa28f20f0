"""The plan as a playbook runs it: the lock beside the inventory, check mode, limits, faults."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from catalogs import changed

ROOT = Path(__file__).resolve().parents[2]
PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - berth.platform.plan:
        show: "{{ show | default(false) }}"
      register: berth_plan
      run_once: true
    - ansible.builtin.copy:
        content: "{{ berth_plan.hosts[inventory_hostname].address }}"
        dest: "{{ playbook_dir }}/{{ inventory_hostname }}.touched"
        mode: "0644"
      delegate_to: localhost
"""
HOSTS = {
    "all": {
        "vars": {"ansible_connection": "ssh"},
        "hosts": {
            "web1": {"ansible_host": "192.0.2.1"},
            "db1": {"ansible_host": "name.invalid", "platform_address": "192.0.2.2"},
        },
        "children": {
            group: {"hosts": {host: {}}}
            for group, host in (
                ("edge", "web1"),
                ("apps", "web1"),
                ("postgresql", "db1"),
                ("rabbitmq", "db1"),
            )
        },
    }
}


class Place:
    """An inventory of its own, and the plan over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "inventory" / "ports.lock.yml"
        (path / "inventory" / "group_vars" / "all").mkdir(parents=True)
        (path / "inventory" / "hosts.yml").write_text(yaml.safe_dump(HOSTS))
        (path / "play.yml").write_text(PLAY)
        self.catalog()

    def catalog(self, **changes: object) -> None:
        variables = changed({key.replace("__", "."): value for key, value in changes.items()})
        where = self.path / "inventory" / "group_vars" / "all" / "platform.yml"
        where.write_text(yaml.safe_dump(variables))

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(ROOT / ".work/venv/bin/ansible-playbook"),
            "-i",
            str(self.path / "inventory"),
        ]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
        }
        return subprocess.run(
            [*command, *arguments, "play.yml"],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def touched(self) -> set[str]:
        return {path.stem for path in self.path.glob("*.touched")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_lock_is_written_beside_the_inventory_and_then_stays(place: Place) -> None:
    first = place.play()
    assert first.returncode == 0, first.stdout
    text = place.lock.read_text()
    assert "5001: shop-prod/api/1/a" in text
    second = place.play("--diff")
    assert "ports.lock.yml" not in second.stdout
    assert place.lock.read_text() == text
    assert (place.path / "db1.touched").read_text() == "192.0.2.2"


def test_check_mode_shows_the_lock_and_writes_none(place: Place) -> None:
    done = place.play("--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert "+      5001: shop-prod/api/1/a" in done.stdout
    assert not place.lock.exists()


def test_a_limited_run_plans_the_whole_platform(place: Place) -> None:
    done = place.play("--limit", "db1")
    assert done.returncode == 0, done.stdout
    assert place.touched == {"db1"}
    assert "shop-prod/api/1/a" in place.lock.read_text()


def test_faults_end_the_run_before_any_host(place: Place) -> None:
    place.catalog(platform_services__api__port=70000, platform_services__mail__needs=["nobody"])
    done = place.play()
    assert done.returncode != 0
    assert "The catalog has 2 faults; no host was changed." in done.stdout + done.stderr
    assert place.touched == set() and not place.lock.exists()


def test_a_merge_conflict_in_the_lock_is_refused(place: Place) -> None:
    place.play()
    text = place.lock.read_text().replace("      5001:", "<<<<<<< HEAD\n      5001:")
    place.lock.write_text(text)
    done = place.play()
    assert done.returncode != 0
    assert "an unresolved merge conflict" in done.stdout + done.stderr
    assert place.lock.read_text() == text


def test_templates_in_the_catalog_are_resolved(place: Place) -> None:
    extra = {
        "prefix": "qa.",
        "platform_layer_x": {
            "services": {"api": {"routes": [{"domain": "{{ prefix }}{service}.example.com"}]}}
        },
    }
    done = place.play("-e", json.dumps({**extra, "show": True}))
    assert done.returncode == 0, done.stdout
    assert "certificate qa.api.example.com" in done.stdout


def test_an_address_that_is_none_is_refused(place: Place) -> None:
    done = place.play("-e", "platform_address=db1.example.com")
    assert "write an IP address" in done.stdout + done.stderr


def test_without_a_folder_for_the_lock_the_inventory_is_asked_for(place: Place) -> None:
    done = subprocess.run(
        [str(ROOT / ".work/venv/bin/ansible-playbook"), "-i", "web1,", "play.yml"],
        cwd=place.path,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "none was given as a file or folder" in done.stdout + done.stderr
