# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users: what is wanted, what there is, and the commands between; pure functions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What useradd of Debian accepts, without the dollar of Samba's machines.
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
KEY_TYPE = re.compile(
    r"(?:^|\s)((?:sk-)?(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521))(?:@openssh\.com)?)"
    r"\s+(\S+)"
)
NO_HOME = "/nonexistent"
KEYS_HEADER = "# Managed by berth.platform.users: changes here are lost.\n"


class AccountsError(ValueError):
    """Accounts that cannot be used, with every fault that was found."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep all faults; the message lists them."""
        super().__init__("; ".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True)
class Account:
    """A user as wanted; what is None is left as it is, or chosen for a new one."""

    name: str
    present: bool = True
    system: bool = False
    home: str | None = None
    shell: str | None = None
    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Found:
    """A user as it is on the host."""

    home: str
    shell: str
    groups: frozenset[str] = field(default_factory=frozenset)


def check_key(text: str) -> str:
    """A public key on one line; raise ValueError with what is wrong, never with the key."""
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise ValueError("this is a private key; the public one (.pub) is needed")
    if "\n" in line:
        raise ValueError("one key per item, each on a single line")
    match = KEY_TYPE.search(line)
    if not match:
        raise ValueError("no public key (ssh-ed25519 AAAA... comment)")
    kind, blob = match[1], match[2]
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        raise ValueError(f"the {kind} key is damaged: it is no base64") from None
    # RFC 4253, 6.6: the blob begins with the length and the name of its type.
    if data[4 : 4 + int.from_bytes(data[:4], "big")].decode(errors="replace") != kind:
        raise ValueError(f"the {kind} key is damaged: it is cut, or of another type")
    return line


def parse_account(where: str, raw: Mapping[str, Any]) -> tuple[Account | None, list[str]]:
    """Read one user and collect its faults."""
    faults: list[str] = []
    name = str(raw.get("name") or "")
    if not NAME.fullmatch(name):
        faults.append(
            f"{where}.name: {name!r} is no user name: lower-case letters, digits, - and _, "
            "beginning with a letter, 32 at most"
        )
    for key in ("home", "shell"):
        path = raw.get(key)
        if path is not None and (not str(path).startswith("/") or re.search(r"[:\s]", str(path))):
            faults.append(f"{where}.{key}: {path!r} is no absolute path without blanks and colons")
    groups = [str(group) for group in raw.get("groups") or ()]
    faults += [
        f"{where}.groups: {group!r} is no group name"
        for group in groups
        if not NAME.fullmatch(group)
    ]
    keys: tuple[str, ...] | None = None
    if raw.get("ssh_keys") is not None:
        checked = []
        for number, key in enumerate(raw["ssh_keys"]):
            try:
                checked.append(check_key(str(key)))
            except ValueError as error:
                faults.append(f"{where}.ssh_keys[{number}]: {error}")
        keys = tuple(dict.fromkeys(checked))
    if keys and raw.get("system") and not raw.get("home"):
        faults.append(f"{where}.home: a system user with ssh_keys needs a home for them")
    if faults:
        return None, faults
    return (
        Account(
            name=name,
            present=raw.get("state", "present") != "absent",
            system=bool(raw.get("system")),
            home=raw.get("home"),
            shell=raw.get("shell"),
            groups=tuple(dict.fromkeys(groups)),
            keys=keys,
        ),
        [],
    )


def parse_accounts(raw: Iterable[Mapping[str, Any]], where: str = "users") -> list[Account]:
    """Read all users; raise AccountsError with every fault."""
    accounts: list[Account] = []
    faults: list[str] = []
    seen: set[str] = set()
    for number, item in enumerate(raw):
        account, found = parse_account(f"{where}[{number}]", item)
        faults += found
        if account is None:
            continue
        if account.name in seen:
            faults.append(f"{where}[{number}].name: {account.name!r} is named more than once")
        seen.add(account.name)
        accounts.append(account)
    if faults:
        raise AccountsError(faults)
    return accounts


def new_home(account: Account) -> str:
    """Home of a user that is made."""
    return account.home or (NO_HOME if account.system else f"/home/{account.name}")


def commands(account: Account, found: Found | None, groups: Iterable[str]) -> list[list[str]]:
    """The commands that turn what is found into what is wanted; none if it is that already.

    C(groups) are those of the host: a user joins the group of its own name if there is one.
    """
    if not account.present:
        # Its files stay: what a person leaves behind is not this program's to delete.
        return [["userdel", account.name]] if found else []
    if found is None:
        shell = account.shell or ("/usr/sbin/nologin" if account.system else "/bin/bash")
        create = ["useradd", "--home-dir", new_home(account), "--shell", shell]
        if account.system:
            create.append("--system")
        own = ["--gid", account.name] if account.name in set(groups) else ["--user-group"]
        made = new_home(account) != NO_HOME
        create += [*own, "--create-home" if made else "--no-create-home"]
        if account.groups:
            create += ["--groups", ",".join(account.groups)]
        return [[*create, account.name]]
    change: list[str] = []
    if account.home and account.home != found.home:
        change += ["--home", account.home]
    if account.shell and account.shell != found.shell:
        change += ["--shell", account.shell]
    missing = [group for group in account.groups if group not in found.groups]
    if missing:
        change += ["--append", "--groups", ",".join(missing)]
    return [["usermod", *change, account.name]] if change else []


def keys_file(keys: Iterable[str]) -> str:
    """The text of authorized_keys."""
    return KEYS_HEADER + "".join(f"{key}\n" for key in keys)
