"""Waiting on the host for a task in the background: what it returned, and how it failed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.shell: {command}
      async: 60
      poll: 0
      register: begun
    - berth.platform.async_wait:
        results_file: "{{{{ begun.results_file }}}}"
        timeout: {timeout}
      register: done
      ignore_errors: true
    - ansible.builtin.stat:
        path: "{{{{ begun.results_file }}}}"
      register: file
    - ansible.builtin.copy:
        content: "{{{{ {{'done': done, 'left': file.stat.exists}} | to_json }}}}"
        dest: "{answer}"
"""


@pytest.fixture
def wait(tmp_path: Path) -> Any:
    def call(command: str, timeout: float = 30) -> tuple[dict[str, Any], bool]:
        answer = tmp_path / "answer.json"
        play = tmp_path / "play.yml"
        play.write_text(
            PLAY.format(command=json.dumps(command), timeout=timeout, answer=answer.as_posix())
        )
        subprocess.run(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", str(play)],
            env={**os.environ, "ANSIBLE_ASYNC_DIR": str(tmp_path / "async")},
            check=True,
            capture_output=True,
            timeout=120,
        )
        found = json.loads(answer.read_text())
        return found["done"], found["left"]

    return call


def test_the_task_s_own_answer_is_returned_and_its_file_is_gone(wait: Any) -> None:
    done, left = wait("sleep 1; echo one; echo two >&2")
    assert done["changed"] is True
    assert (done["stdout"], done["stderr"], done["rc"]) == ("one", "two", 0)
    assert not done.get("failed")
    assert not left


def test_a_task_that_fails_fails_here_with_its_words(wait: Any) -> None:
    done, left = wait("echo no room >&2; exit 7")
    assert done["failed"] is True
    assert (done["rc"], done["stderr"]) == (7, "no room")
    assert "non-zero return code" in done["msg"]
    assert not left


def test_one_that_goes_on_is_not_waited_for_without_end(wait: Any) -> None:
    done, left = wait("sleep 5", timeout=0.3)
    assert done["failed"] is True
    assert "still runs after 0.3 s" in done["msg"]
    assert left
