"""The action of `files` through a real ansible-playbook, on this machine.

It runs in a mount namespace with an empty /var/lib, so that nothing of the machine changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_files_apply import can_mount

ROOT = Path(__file__).resolve().parents[2]
CANARY = "CANARY-3f9c-d41d8cd9"

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs the capability to mount")


class Controller:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.role = directory / "roles/demo"
        self.out = directory / "out"
        for name in ("templates/sub", "files", "tasks"):
            (self.role / name).mkdir(parents=True)
        self.out.mkdir()
        (directory / "ansible.cfg").touch()

    def template(self, name: str, text: str) -> None:
        (self.role / "templates" / name).write_text(text)

    def play(
        self, tasks: list[dict[str, Any]], *arguments: str, variables: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        (self.role / "tasks/main.yml").write_text(yaml.safe_dump(tasks))
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "out": str(self.out),
                **(variables or {}),
            },
            "roles": [{"role": "demo"}],
        }
        (self.directory / "play.yml").write_text(yaml.safe_dump([play]))
        script = 'mount -t tmpfs tmpfs /var/lib && exec "$@"'
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("-i", "localhost,", "play.yml", *arguments),
            ],
            cwd=self.directory,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
                "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_LOCAL_TEMP": str(self.directory / "local-tmp"),
                "ANSIBLE_REMOTE_TEMP": str(self.directory / "remote-tmp"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )

    def files(self, *entries: dict[str, Any], **options: Any) -> dict[str, Any]:
        return {
            "name": "Files",
            "berth.platform.files": {"files": list(entries), **options},
            "register": "result",
        }

    def keep_result(self) -> dict[str, Any]:
        return {
            "name": "Keep",
            "ansible.builtin.copy": {
                "content": "{{ result | to_json }}",
                "dest": "{{ out }}/result.json",
                "mode": "0644",
            },
            "check_mode": False,
            "diff": False,
        }

    def result(self) -> Any:
        return json.loads((self.out / "result.json").read_text())


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_templates_come_out_as_from_the_template_module(controller: Controller) -> None:
    controller.template("sub/part.j2", "part {{ who }}\n")
    cases = {
        "blocks.j2": (
            "{% for n in [0, 1] %}\n  {% if n %}\n  n={{ n }}\n  {% endif %}\n{% endfor %}\nend"
        ),
        "include.j2": "a\n{% include 'part.j2' %}\n{% include 'sub/part.j2' %}\nb\n",
        "managed.j2": "{{ ansible_managed }} {{ template_path }} {{ template_destpath[-9:] }}",
        "meta.j2": "{{ template_fullpath }} {{ template_uid }} {{ template_host }}\n",
        "native.j2": "{{ listing }}",
        "none.j2": "{{ nothing }}",
        "quotes.j2": "{{ who | quote }} {{ listing | to_json }} \\n \\\\ é {# gone #}\n",
        "raw.j2": "{% raw %}{{ keep }}{% endraw %}\n\n\n",
        "macro.j2": "{% macro m(x) %}\n[{{ x }}]\n{% endmacro %}\n{{ m(1) }}{{- m(2) -}}\n  end",
        "crlf.j2": "a\r\nb {{ who }}\r\n",
        "nested.j2": "{{ indirect }} {{ lookup('ansible.builtin.vars', 'who') }}\n",
    }
    controller.template("part.j2", "own part {{ who }}\n")
    tasks: list[dict[str, Any]] = []
    for name, text in cases.items():
        controller.template(name, text)
        tasks.append(
            {
                "name": name,
                "ansible.builtin.template": {
                    "src": name,
                    "dest": f"{{{{ out }}}}/reference/{name}",
                    "mode": "0644",
                },
            }
        )
    ours = [{"path": f"{{{{ out }}}}/ours/{name}", "template": name} for name in cases]
    (controller.out / "reference").mkdir()
    done = controller.play(
        [*tasks, controller.files(*ours)],
        variables={
            "who": "it's me",
            "listing": [1, "two"],
            "nothing": None,
            "indirect": "{{ who }}!",
        },
    )
    assert done.returncode == 0, done.stdout
    for name in cases:
        reference = (controller.out / "reference" / name).read_bytes()
        assert (controller.out / "ours" / name).read_bytes() == reference, name


def test_vars_of_a_file_win_and_stay_with_it(controller: Controller) -> None:
    controller.template("v.j2", "{{ who }}")
    done = controller.play(
        [
            controller.files(
                {"path": "{{ out }}/a", "template": "v.j2", "vars": {"who": "{{ who }}-a"}},
                {"path": "{{ out }}/b", "template": "v.j2"},
            )
        ],
        variables={"who": "task"},
    )
    assert done.returncode == 0, done.stdout
    assert (controller.out / "a").read_text() == "task-a"
    assert (controller.out / "b").read_text() == "task"


def test_secrets_are_nowhere_to_be_seen(controller: Controller) -> None:
    controller.template("s.j2", "key = {{ canary }}\nother = {{ canary }}\n")
    refuse = controller.directory / "refuse"
    refuse.write_text('#!/bin/sh\necho "cannot parse $(cat $1) in $1:1"\nexit 1\n')
    refuse.chmod(0o755)
    secret = [
        {"path": "{{ out }}/a", "template": "s.j2", "mode": "0640", "secret": True},
        {"path": "{{ out }}/b", "content": "{{ canary }}", "mode": "0600"},
        {"path": "{{ out }}/c", "content": "{{ canary * 100000 }}", "mode": "0600"},
    ]
    tasks = [
        controller.files(*secret),
        controller.keep_result(),
        {
            "name": "Shown",
            "ansible.builtin.debug": {"var": "result"},
        },
        {
            **controller.files(
                {
                    "path": "{{ out }}/d",
                    "content": "pass {{ canary }}",
                    "mode": "0600",
                    "validate": f"{refuse} %s",
                }
            ),
            "register": "refused",
            "ignore_errors": True,
        },
        {
            **controller.files({"path": "{{ out }}/e", "content": "{{ canary }}"}),
            "no_log": True,
        },
        {
            **controller.files({"path": "{{ out }}/f", "content": "{{ canary }}"}),
            "diff": False,
        },
    ]
    for arguments in (("--check", "--diff", "-vvv"), ("--diff", "-vvv"), ("--diff", "-vvvv")):
        done = controller.play(tasks, *arguments, variables={"canary": CANARY})
        assert done.returncode == 0, done.stdout
        assert CANARY not in done.stdout + done.stderr
        assert "secret, not shown" in done.stdout or arguments[-1] == "-vvvv"
    assert "pass ********" in done.stdout
    assert CANARY in (controller.out / "a").read_text()
    assert (controller.out / "c").stat().st_size > 1 << 20
    assert CANARY not in (controller.out / "result.json").read_text()
    assert not (controller.out / "d").exists()
    # Temporary files of controller and target are gone, or nobody else's to read.
    for path in controller.directory.glob("*-tmp/**/*"):
        assert not path.is_file() or CANARY not in path.read_text(errors="replace")


def test_what_is_large_is_sent_only_when_it_differs(controller: Controller) -> None:
    blob = os.urandom(1_500_000)
    (controller.role / "files/big.bin").write_bytes(blob)
    (controller.role / "files/small.bin").write_bytes(b"\0small\xff")
    tasks = [
        controller.files(
            {"path": "{{ out }}/big", "source": "big.bin"},
            {"path": "{{ out }}/small", "source": "small.bin"},
            {"path": "{{ out }}/text", "content": "x" * 1_200_000},
        ),
        controller.keep_result(),
    ]
    done = controller.play(tasks, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert controller.result()["changed"] is True
    assert not (controller.out / "big").exists()
    done = controller.play(tasks, "-vvv")
    assert done.returncode == 0, done.stdout
    assert (controller.out / "big").read_bytes() == blob
    assert (controller.out / "small").read_bytes() == b"\0small\xff"
    assert (controller.out / "text").stat().st_size == 1_200_000
    assert done.stdout.count("/content-") >= 2
    done = controller.play(tasks, "-vvv")
    assert controller.result()["changed"] is False
    assert "/content-" not in done.stdout


def test_every_fault_is_told_with_its_path(controller: Controller) -> None:
    controller.template("undefined.j2", "ok\n{{ nowhere.x }}\n")
    controller.template("syntax.j2", "{% if %}\n")
    done = controller.play(
        [
            controller.files(
                {"path": "{{ out }}/u", "template": "undefined.j2"},
                {"path": "{{ out }}/s", "template": "syntax.j2"},
                {"path": "{{ out }}/n", "template": "not-there.j2"},
                {"path": "{{ out }}/d", "source": "{{ out }}"},
            )
        ]
    )
    assert done.returncode == 2
    out = controller.out
    assert f"{out}/u: template undefined.j2: 'nowhere' is undefined\n" in done.stdout
    assert "line 2: {{ nowhere.x }}" in done.stdout
    assert f"{out}/s: template syntax.j2: Syntax error" in done.stdout
    assert f"{out}/n: template not-there.j2: is not there; looked for" in done.stdout
    assert f"{out}/d: source {out}: is a directory" in done.stdout
    assert list(out.iterdir()) == []


def test_bad_options_are_told_before_anything_is_rendered(controller: Controller) -> None:
    done = controller.play(
        [controller.files({"path": "{{ out }}/u", "template": "nope.j2", "content": "x"}, tres=[])]
    )
    assert done.returncode == 2
    assert "got template and content" in done.stdout
    assert "unknown key 'tres', did you mean 'trees'?" in done.stdout
    assert "not-there" not in done.stdout


def test_a_vaulted_source_arrives_open(controller: Controller) -> None:
    password = controller.directory / "password"
    password.write_text("open sesame")
    source = controller.role / "files/v.txt"
    source.write_text("treasure")
    subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-vault"),
            *("encrypt", "--vault-password-file", str(password), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    done = controller.play(
        [controller.files({"path": "{{ out }}/v", "source": "v.txt", "mode": "0600"})],
        *("--vault-password-file", str(password)),
    )
    assert done.returncode == 0, done.stdout
    assert (controller.out / "v").read_text() == "treasure"
