"""Users: which commands they need, and what is wrong with faulty ones."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.accounts import (
    Account,
    AccountsError,
    Found,
    commands,
    keys_file,
    parse_accounts,
)


def key(kind: str = "ssh-ed25519", body: bytes = b"x" * 36) -> str:
    """A key that is well formed."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + body
    return f"{kind} {base64.b64encode(blob).decode()}"


ALICE = Account("alice", groups=("adm", "sudo"))


@pytest.mark.parametrize(
    ("account", "found", "expected"),
    [
        (
            ALICE,
            None,
            "useradd --home-dir /home/alice --shell /bin/bash --user-group --create-home "
            "--groups adm,sudo alice",
        ),
        (
            Account("svc", system=True),
            None,
            "useradd --home-dir /nonexistent --shell /usr/sbin/nologin --system --user-group "
            "--no-create-home svc",
        ),
        (
            Account("svc", system=True, home="/var/lib/svc", shell="/bin/sh"),
            None,
            "useradd --home-dir /var/lib/svc --shell /bin/sh --system --user-group "
            "--create-home svc",
        ),
        (
            Account("adm"),
            None,
            "useradd --home-dir /home/adm --shell /bin/bash --gid adm --create-home adm",
        ),
        (ALICE, Found("/srv/a", "/bin/zsh", frozenset({"adm", "sudo", "www-data"})), ""),
        (
            ALICE,
            Found("/home/alice", "/bin/bash", frozenset({"adm"})),
            "usermod --append --groups sudo alice",
        ),
        (
            Account("alice", home="/srv/a", shell="/bin/sh"),
            Found("/home/alice", "/bin/bash"),
            "usermod --home /srv/a --shell /bin/sh alice",
        ),
        (Account("bob", present=False), Found("/home/bob", "/bin/bash"), "userdel bob"),
        (Account("bob", present=False), None, ""),
    ],
)
def test_commands(account: Account, found: Found | None, expected: str) -> None:
    lines = [" ".join(command) for command in commands(account, found, ["adm", "sudo"])]
    assert lines == ([expected] if expected else [])


FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"name": "Alice"}, "users[0].name: 'Alice' is no user name"),
    ({"name": "a" * 33}, "32 at most"),
    ({"name": "a; rm"}, "is no user name"),
    ({"name": "-a"}, "beginning with a letter"),
    ({"name": "a", "home": "a"}, "users[0].home: 'a' is no absolute path"),
    ({"name": "a", "home": "/a:b"}, "users[0].home: '/a:b' is no absolute path"),
    ({"name": "a", "shell": "bash"}, "users[0].shell: 'bash' is no absolute path"),
    ({"name": "a", "groups": ["a,b"]}, "users[0].groups: 'a,b' is no group name"),
    ({"name": "a", "ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "this is a private key"),
    ({"name": "a", "ssh_keys": [key(), "AAAA"]}, "users[0].ssh_keys[1]: no public key"),
    ({"name": "a", "ssh_keys": [key() + "\n" + key()]}, "one key per item"),
    ({"name": "a", "ssh_keys": [key()[:-3]]}, "is damaged: it is no base64"),
    ({"name": "a", "ssh_keys": [key().replace("ssh-ed25519", "ssh-rsa")]}, "or of another type"),
    ({"name": "a", "system": True, "ssh_keys": [key()]}, "needs a home for them"),
]


@pytest.mark.parametrize(("raw", "message"), FAULTY)
def test_faults(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(AccountsError) as caught:
        parse_accounts([raw])
    assert len(caught.value.faults) == 1
    assert message in caught.value.faults[0]


def test_all_faults_at_once() -> None:
    with pytest.raises(AccountsError) as caught:
        parse_accounts([*(raw for raw, _ in FAULTY), {"name": "a"}, {"name": "a"}])
    assert len(caught.value.faults) == len(FAULTY) + 1
    assert "'a' is named more than once" in caught.value.faults[-1]


def test_a_private_key_is_not_repeated() -> None:
    secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n"
    with pytest.raises(AccountsError) as caught:
        parse_accounts([{"name": "a", "ssh_keys": [secret]}])
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        key() + " alice@laptop",
        key("ssh-rsa"),
        key("ecdsa-sha2-nistp256"),
        key("sk-ssh-ed25519@openssh.com"),
        'from="10.0.0.0/8",command="/bin/echo hi there" ' + key() + " with options",
    ],
)
def test_keys(text: str) -> None:
    (account,) = parse_accounts([{"name": "a", "ssh_keys": [f" {text}\n", text]}])
    assert account.keys == (text,)
    assert keys_file(account.keys or ()).splitlines()[1:] == [text]


def test_no_keys_and_keys_of_none() -> None:
    assert parse_accounts([{"name": "a"}])[0].keys is None
    assert parse_accounts([{"name": "a", "ssh_keys": []}])[0].keys == ()
