"""What is generated, what stays, what is shown, and what the file survives."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.berth.platform.plugins.module_utils.secrets import (
    KINDS,
    Outcome,
    SecretError,
    Spec,
    check,
    forget,
    generate,
    needs_store,
    settle,
    with_secrets,
)
from ansible_collections.berth.platform.plugins.plugin_utils import vault_file
from ansible_collections.berth.platform.plugins.plugin_utils.vault_file import (
    VaultFile,
    parse,
    render,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FILE = "prod/secrets.vault.yml"
PASSWORD = VaultSecret(b"correct horse")


def authority(common_name: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{common_name}\n-----END CERTIFICATE-----\n"


def run(
    specs: list[Spec], stored: dict[str, str] | None = None, rotate: list[str] | None = None
) -> Outcome:
    return settle(specs, stored or {}, rotate or [], authority, FILE)


# --- generation ---------------------------------------------------------------------------------


def test_every_kind_is_what_its_specification_says() -> None:
    password = generate(Spec("a", length=48), authority)
    assert len(password) == 48 and password.isalnum()
    assert set(generate(Spec("a", alphabet="0123456789", length=500), authority)) == set(
        "0123456789"
    )
    assert generate(Spec("a", alphabet="digits"), authority).isdigit()
    assert len(bytes.fromhex(generate(Spec("a", "hex", bits=512), authority))) == 64
    assert len(generate(Spec("a", "base64", bytes=32), authority)) == 44
    assert generate(Spec("a", "authority", common_name="Dhanman CA"), authority) == authority(
        "Dhanman CA"
    )


def test_an_alphabet_with_a_repeated_character_does_not_prefer_it() -> None:
    assert Spec("a", alphabet="aaaaab0123456789").characters == "0123456789ab"


def test_no_two_values_are_alike() -> None:
    assert len({generate(Spec("a"), authority) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec("bad name"), "a name is letters"),
        (Spec("a}"), "a name is letters"),
        (Spec("a|b"), "a name is letters"),
        (Spec("a", "pasword"), "did you mean password?"),
        (Spec("a", length=4), "length 4 is too short, 8 is the least"),
        (Spec("a", alphabet="abc"), "3 different characters, 10 is the least"),
        (Spec("a", alphabet="0123456789\n"), "unprintable"),
        (Spec("a", "hex", bits=100), "bits 100 must be a multiple of 8"),
        (Spec("a", "hex", bits=32), "64 or more"),
        (Spec("a", "base64", bytes=4), "bytes 4 is too short"),
        (Spec("a", "authority"), "needs a common_name"),
        (Spec("a", value=""), "the given value is empty"),
    ],
)
def test_a_faulty_specification_is_refused(spec: Spec, message: str) -> None:
    with pytest.raises(SecretError, match=message.replace("?", r"\?")):
        check([spec])


def test_all_faults_are_told_at_once_and_no_value_with_them() -> None:
    with pytest.raises(SecretError) as error:
        check([Spec("a", length=1), Spec("b", "what", value="hunter2"), Spec("b", "given")])
    assert "secret a:" in str(error.value)
    assert "secret b:" in str(error.value)
    assert "secret b is specified twice" in str(error.value)
    assert "hunter2" not in str(error.value)


# --- what stays, what changes -------------------------------------------------------------------


def test_a_stored_value_stays_though_its_specification_changed() -> None:
    outcome = run([Spec("a", "hex", bits=512)], {"a": "short"})
    assert outcome.values == {"a": "short"}
    assert not outcome.changed


def test_what_nothing_names_is_kept_and_reported() -> None:
    outcome = run([Spec("a")], {"a": "1", "gone": "2"})
    assert outcome.stored == {"a": "1", "gone": "2"}
    assert outcome.unused == ["gone"]
    assert outcome.values == {"a": "1"}


def test_a_given_value_is_used_and_not_stored() -> None:
    outcome = run([Spec("a", value="mine"), Spec("g", "given", value="too")], {"a": "old"})
    assert outcome.values == {"a": "mine", "g": "too"}
    assert outcome.stored == {"a": "old"}
    assert not outcome.changed
    assert outcome.unused == []


def test_a_given_secret_may_be_put_into_the_file_by_hand() -> None:
    assert run([Spec("g", "given")], {"g": "by hand"}).values == {"g": "by hand"}


def test_every_given_secret_that_is_missing_is_named() -> None:
    with pytest.raises(SecretError) as error:
        run([Spec("jwt", "given"), Spec("smtp", "given")])
    assert "secret jwt is named and not provided" in str(error.value)
    assert "secret smtp is named and not provided" in str(error.value)
    assert "ansible-vault edit" in str(error.value) and FILE in str(error.value)


def test_a_value_blanked_by_hand_is_generated_again() -> None:
    outcome = run([Spec("a")], {"a": ""})
    assert outcome.generated == ["a"] and outcome.values["a"]


def test_rotation_replaces_the_named_value_only() -> None:
    outcome = run([Spec("a"), Spec("b")], {"a": "1", "b": "2"}, ["a"])
    assert outcome.rotated == ["a"] and outcome.generated == []
    assert outcome.values["a"] != "1" and outcome.values["b"] == "2"
    assert outcome.stored["a"] == outcome.values["a"]


def test_rotating_what_is_not_there_yet_generates_it() -> None:
    outcome = run([Spec("a")], {}, ["a"])
    assert outcome.generated == ["a"] and outcome.rotated == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sales_databse", "did you mean sales_database?"),
        ("xyzzy", "secret xyzzy is unknown: it cannot be rotated"),
        ("old", "nothing uses it"),
        ("smtp", "change the value it is given"),
        ("stored_given", "change the value it is given"),
        ("cipher", "what is kept was encrypted with it"),
    ],
)
def test_what_cannot_be_rotated_is_said(name: str, message: str) -> None:
    specs = [
        Spec("sales_database"),
        Spec("smtp", value="x"),
        Spec("stored_given", "given"),
        Spec("cipher", rotatable=False),
    ]
    with pytest.raises(SecretError) as error:
        run(specs, {"old": "1", "stored_given": "2"}, [name])
    assert message in str(error.value)


def test_the_diff_has_names_only() -> None:
    outcome = run([Spec("b"), Spec("a")], {"b": "1"}, ["b"])
    assert outcome.diff() == "+ a\n~ b\n"
    assert outcome.changed
    assert forget(["b", "c"], {"a": "1", "b": "2"}).diff() == "- b\n"


def test_given_values_alone_need_no_file() -> None:
    assert not needs_store([Spec("a", value="x"), Spec("g", "given", value="y")], [])
    assert needs_store([Spec("a")], [])
    assert needs_store([Spec("g", "given")], [])
    assert needs_store([Spec("a", value="x")], ["a"])


NAMES = st.from_regex(r"[a-z0-9_]([a-z0-9_./@-]{0,10}[a-z0-9_])?", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
SPECS = st.lists(
    st.builds(
        Spec,
        name=NAMES,
        kind=st.sampled_from([kind for kind in KINDS if kind != "given"]),
        common_name=st.just("CA"),
    ),
    unique_by=lambda spec: spec.name,
    max_size=8,
)


@settings(deadline=None)
@given(SPECS, st.dictionaries(NAMES, TEXTS.filter(bool), max_size=8), st.data())
def test_any_second_run_changes_nothing(
    specs: list[Spec], stored: dict[str, str], data: st.DataObject
) -> None:
    rotate = [spec.name for spec in specs if data.draw(st.booleans())]
    first = run(specs, stored, rotate)
    assert set(first.values) == {spec.name for spec in specs} and all(first.values.values())
    assert {n: v for n, v in first.stored.items() if n not in first.values} == {
        n: v for n, v in stored.items() if n not in first.values
    }
    for name in set(stored) - set(first.rotated):
        assert first.stored[name] == stored[name]
    # Through the file, and in any order.
    second = run(data.draw(st.permutations(specs)), parse(render(first.stored)))
    assert not second.changed and second.values == first.values


# --- markers ------------------------------------------------------------------------------------


def test_markers_are_replaced_wherever_they_stand() -> None:
    data = {
        "url": "postgres://sales:{secret:db}@127.0.0.1/x?p={secret:db|urlencode}",
        "list": ["{secret:key}", 5, None, True, {"deep": "{secret:key}{secret:key}"}],
        "tuple": ("{secret:key}",),
        "plain": "{not a marker} {{ nor: this }}",
    }
    assert with_secrets(data, {"db": "a/b c", "key": "K"}) == {
        "url": "postgres://sales:a/b c@127.0.0.1/x?p=a%2Fb%20c",
        "list": ["K", 5, None, True, {"deep": "KK"}],
        "tuple": ["K"],
        "plain": "{not a marker} {{ nor: this }}",
    }


def test_a_value_is_not_looked_into_again() -> None:
    assert with_secrets("{secret:a}", {"a": "{secret:b}", "b": "no"}) == "{secret:b}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{secret:sales_databse}",
            "secret 'sales_databse' is unknown, did you mean sales_database?",
        ),
        ("{secret:}", "secret '' is unknown"),
        ("{secret:sales_database|upper}", "urlencode"),
        ("{secret:sales_database", "is not closed"),
    ],
)
def test_a_faulty_marker_is_an_error(text: str, message: str) -> None:
    with pytest.raises(SecretError) as error:
        with_secrets([{"x": text}], {"sales_database": "hunter2"})
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


@given(TEXTS, TEXTS, TEXTS)
def test_a_value_arrives_as_it_is(before: str, value: str, after: str) -> None:
    before, after = before.replace("{secret:", ""), after.replace("{secret:", "")
    text = before + "{secret:x}" + after
    assert with_secrets(text, {"x": value}) == before + value + after
    encoded = with_secrets("{secret:x|urlencode}", {"x": value})
    assert urllib.parse.unquote(encoded) == value
    assert not set(encoded) & set("/@:?#&= ")


# --- the file -----------------------------------------------------------------------------------


def vault(path: Path, *secrets: tuple[str, VaultSecret]) -> VaultFile:
    return VaultFile(path, list(secrets or [("default", PASSWORD)]))


@given(st.dictionaries(NAMES, TEXTS, max_size=8))
def test_any_text_survives_the_file(values: dict[str, str]) -> None:
    assert parse(render(values)) == values


def test_what_looks_like_a_number_or_nothing_stays_a_text() -> None:
    values = {"a": "0123", "b": "null", "c": "true", "d": "1e5", "e": "", "1": "x", "f": "a\nb\n"}
    assert parse(render(values)) == values
    assert parse("a: 0123\nb: null\nc: yes\n") == {"a": "0123", "b": "null", "c": "yes"}


def test_one_new_value_is_one_new_line() -> None:
    before, after = render({"a": "1", "c": "3"}), render({"c": "3", "b": "2", "a": "1"})
    assert after.splitlines()[1:] == ["a: '1'", "b: '2'", "c: '3'"]
    assert set(before.splitlines()) < set(after.splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "not a mapping"),
        ("hunter2", "not a mapping"),
        ("a: hunter2\na: y\n", "secret a is there twice"),
        ("a: {b: hunter2}\nc: [hunter2]\n", "the value of a, c"),
        ("ok: 1\na: 'hunter2\n", "not YAML, line"),
    ],
)
def test_a_file_spoilt_by_hand_is_told_without_its_content(text: str, message: str) -> None:
    with pytest.raises(SecretError) as error:
        parse(text)
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


def test_what_is_written_is_encrypted_private_and_read_by_ansible(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secrets.vault.yml"
    file = vault(path)
    assert file.read() == {}
    old = os.umask(0)
    try:
        file.write({"db": "hunter2", "ca": authority("x")})
    finally:
        os.umask(old)
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert b"hunter2" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loader = DataLoader()
    loader.set_vault_secrets([("default", PASSWORD)])
    assert loader.load_from_file(str(path)) == {"db": "hunter2", "ca": authority("x")}
    assert vault(path).read() == {"db": "hunter2", "ca": authority("x")}
    assert list(path.parent.iterdir()) == [path]


def test_the_command_ansible_vault_views_and_edits_it(tmp_path: Path) -> None:
    path, password = tmp_path / "secrets.vault.yml", tmp_path / "password"
    password.write_text("correct horse\n")
    vault(path).write({"a": "1"})
    command = [sys.executable, "-m", "ansible.cli.vault"]
    options = ["--vault-password-file", str(password), str(path)]
    view = subprocess.run(
        [*command, "view", *options], capture_output=True, text=True, check=True, timeout=60
    )
    assert yaml.safe_load(view.stdout) == {"a": "1"}
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho 'smtp: by hand' >>\"$1\"\n")
    editor.chmod(0o755)
    subprocess.run(
        [*command, "edit", *options],
        env={**os.environ, "EDITOR": str(editor)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert vault(path).read() == {"a": "1", "smtp": "by hand"}


def test_a_file_keeps_its_vault_id(tmp_path: Path) -> None:
    path = tmp_path / "f"
    prod, dev = ("prod", VaultSecret(b"p")), ("dev", VaultSecret(b"d"))
    vault(path, prod).write({"a": "1"})
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;prod\n")
    file = vault(path, dev, prod)
    file.read()
    file.write({"a": "2"})
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;prod\n")
    assert vault(path, prod).read() == {"a": "2"}
    with pytest.raises(SecretError, match=r"wrong \(tried: dev\)"):
        vault(path, dev).read()


def test_a_new_file_takes_the_configured_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_file.constants, "DEFAULT_VAULT_ENCRYPT_IDENTITY", "dev")
    vault(tmp_path / "f", ("prod", VaultSecret(b"p")), ("dev", VaultSecret(b"d"))).write({})
    assert (tmp_path / "f").read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;dev\n")


def test_a_file_in_the_clear_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a: hunter2\n")
    with pytest.raises(SecretError) as error:
        vault(path).read()
    assert f"ansible-vault encrypt {path}" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_without_a_password_it_is_told_how_to_give_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    vault(path).write({"a": "1"})
    for secrets in (None, []):
        file = VaultFile(path, secrets)
        with pytest.raises(SecretError, match="--vault-password-file"):
            file.read()
        with pytest.raises(SecretError, match="ANSIBLE_VAULT_PASSWORD_FILE"):
            file.write({})


def test_a_damaged_or_unreadable_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    vault(path).write({"a": "1"})
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2])
    with pytest.raises(SecretError, match="cannot be decrypted"):
        vault(path).read()
    with pytest.raises(SecretError, match="cannot be read: Is a directory"):
        vault(tmp_path).read()
    path.write_bytes(VaultLib([("default", PASSWORD)]).encrypt(b"\xff\xfe"))
    with pytest.raises(SecretError, match="not UTF-8"):
        vault(path).read()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yml", tmp_path / "link.yml"
    vault(real).write({"a": "1"})
    link.symlink_to(real)
    vault(link).write({"a": "2"})
    assert link.is_symlink() and vault(real).read() == {"a": "2"}


def _write_and_die(path: Path, moment: str) -> None:
    if moment == "before the rename":
        os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
    else:
        replace = os.replace

        def replace_and_die(*args: Any) -> None:
            replace(*args)
            os._exit(9)

        os.replace = replace_and_die  # type: ignore[assignment]
    vault(path).write({"a": "new"})


@pytest.mark.parametrize(
    ("moment", "left"), [("before the rename", "old"), ("after the rename", "new")]
)
def test_a_run_killed_while_writing_leaves_a_whole_file(
    tmp_path: Path, moment: str, left: str
) -> None:
    path = tmp_path / "secrets.vault.yml"
    vault(path).write({"a": "old"})
    process = multiprocessing.get_context("fork").Process(
        target=_write_and_die, args=(path, moment)
    )
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert vault(path).read() == {"a": left}
    vault(path).write({"a": "later"})
    assert list(tmp_path.iterdir()) == [path], "what the killed run staged is gone"
    assert vault(path).read() == {"a": "later"}


def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    vault(path).write({"a": "old"})

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SecretError, match="No space left on device"):
        vault(path).write({"a": "new"})
    assert list(tmp_path.iterdir()) == [path] and vault(path).read() == {"a": "old"}


def _generate(path: Path, name: str) -> None:
    file = vault(path)
    with file.locked():
        file.write(run([Spec(name)], file.read()).stored)


def test_runs_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_generate, args=(path, f"s{number}")) for number in range(8)]
    for process in runs:
        process.start()
    for process in runs:
        process.join(60)
    assert [process.exitcode for process in runs] == [0] * 8
    assert sorted(vault(path).read()) == [f"s{number}" for number in range(8)]


def test_waiting_for_another_run_ends(tmp_path: Path) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with (
            pytest.raises(SecretError, match="written by another run"),
            vault(tmp_path / "f").locked(seconds=0.2),
        ):
            pass
    finally:
        os.close(holder)
    with vault(tmp_path / "f").locked(seconds=0.2):
        pass


# --- the action, as a playbook runs it ----------------------------------------------------------

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Secrets
      berth.platform.secrets:
        file: secrets.vault.yml
        specs:
          - {name: db}
          - {name: ca, kind: authority, common_name: Test CA}
          - {name: smtp, kind: given, value: "{{ smtp }}"}
        rotate: "{{ rotate | default([]) }}"
      run_once: true
      register: got
    - name: Elsewhere
      ansible.builtin.copy:
        content: "{{ {'hosts': ansible_play_hosts, 'v': '{secret:db} {secret:smtp}'
          | berth.platform.with_secrets(got.secret_values), 'ca': got.secret_values.ca,
          'generated': got.generated} | to_json }}"
        dest: "{{ out }}"
        mode: "0600"
      delegate_to: localhost
      connection: local
      run_once: true
      diff: false
      no_log: true
      check_mode: false
"""


def test_a_playbook_gets_values_and_shows_none(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "password").write_text("correct horse\n")
    encrypted = VaultLib([("default", PASSWORD)]).encrypt(b"by-hand-4711").decode()
    smtp = "\n".join(f"      {line}" for line in encrypted.splitlines())
    # Addresses for documentation: nothing answers there, and nothing is to ask.
    (tmp_path / "hosts.yml").write_text(
        "all:\n  hosts:\n    a: {ansible_host: 192.0.2.1}\n    b: {ansible_host: 192.0.2.2}\n"
        f"  vars:\n    smtp: !vault |\n{smtp}\n"
    )
    (tmp_path / "none.cfg").write_text("")
    out, file = tmp_path / "out.json", tmp_path / "secrets.vault.yml"

    def play(*options: str) -> tuple[str, dict[str, Any]]:
        out.unlink(missing_ok=True)
        process = subprocess.run(
            [sys.executable, "-m", "ansible.cli.playbook", "-i", "hosts.yml", "play.yml",
             "-e", f"out={out}", "-vvv", "--diff", *options],
            cwd=tmp_path,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(root / ".work" / "collections"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
        shown = process.stdout + process.stderr
        return shown, json.loads(out.read_text()) if out.exists() else {}

    password = ("--vault-password-file", "password")

    shown, got = play(*password, "--check")
    assert "+ ca\n+ db\n" in shown and not file.exists(), shown
    assert got["generated"] == ["ca", "db"]

    shown, first = play(*password)
    assert "+ ca\n+ db\n" in shown and "changed=2" in shown, shown
    db, smtp = first["v"].split()
    assert first["hosts"] == ["a", "b"] and smtp == "by-hand-4711"
    assert "BEGIN CERTIFICATE" in first["ca"]
    stored = vault(file).read()
    assert stored == {"db": db, "ca": first["ca"]}
    assert db not in shown and smtp not in shown and first["ca"].splitlines()[3] not in shown

    before = file.read_bytes()
    shown, second = play(*password)
    assert second["v"] == first["v"] and file.read_bytes() == before
    assert second["generated"] == []

    shown, rotated = play(*password, "-e", '{"rotate": ["db"]}')
    assert "~ db\n" in shown, shown
    assert rotated["v"] != first["v"] and rotated["ca"] == first["ca"]

    shown, got = play("-e", "smtp=given")
    assert "cannot be read without a vault password: give" in shown, shown
    assert not got and "failed=1" in shown
