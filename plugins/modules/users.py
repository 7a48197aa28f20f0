#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: users
short_description: Any number of users, their groups and SSH keys in one round trip
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Creates, changes and removes users. A new user has no password; it comes in with its SSH key.
  - All users are checked before any is changed.
options:
  users:
    description: The users.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      state:
        description: V(absent) removes the user. Its home stays.
        type: str
        choices: [present, absent]
        default: present
      system:
        description: Whether a new user gets a number of the system's range and no login shell.
        type: bool
        default: false
      home:
        description:
          - Home directory, which is made. Files are not moved when it changes.
          - A new user has C(/home/NAME) by default; a system user has none.
        type: path
      shell:
        description: Login shell. A new user has C(/bin/bash), a system user none by default.
        type: path
      groups:
        description: Groups that the user is a member of, beside others. They have to exist.
        type: list
        elements: str
        default: []
      ssh_keys:
        description:
          - Public keys with which the user comes in; all others are removed. Untouched when not
            given.
        type: list
        elements: str
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Groups that are not there yet are predicted to be there.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: ansible.builtin.user
"""

EXAMPLES = r"""
- name: People and services
  berth.platform.users:
    users:
      - name: alice
        groups: [adm, systemd-journal]
        ssh_keys: ["ssh-ed25519 AAAAC3Nza... alice@laptop"]
      - {name: exporter, system: true}
      - {name: bob, state: absent}
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, by user.
  returned: success
  type: dict
  sample: {alice: [useradd, authorized_keys]}
"""

import contextlib
import grp
import os
import pwd
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.accounts import (
    Account,
    AccountsError,
    Found,
    commands,
    keys_file,
    new_home,
    parse_accounts,
)

NO_FOLLOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def found(name: str) -> Found | None:
    """A user as the host knows it."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = {group.gr_name for group in grp.getgrall() if name in group.gr_mem}
    with contextlib.suppress(KeyError):
        groups.add(grp.getgrgid(entry.pw_gid).gr_name)
    return Found(entry.pw_dir, entry.pw_shell, frozenset(groups))


def read_keys(home: str) -> tuple[str, os.stat_result | None]:
    """The keys and who owns them. As root, nothing is read through a link."""
    path = os.path.join(home, ".ssh", "authorized_keys")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return "", None
    with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
        return file.read(), os.fstat(file.fileno())


def keys_differ(home: str, uid: int, text: str) -> bool:
    """Whether the file, or its owner or mode, is not as it should be."""
    present, status = read_keys(home)
    return (
        present != text
        or status is None
        or status.st_uid not in (uid, 0)
        or bool(status.st_mode & 0o022)
    )


def write_keys(home: str, text: str, uid: int, gid: int) -> None:
    """Replace the file. The user owns the way there, so no link on it is followed."""
    home_handle = os.open(home, NO_FOLLOW)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(".ssh", 0o700, dir_fd=home_handle)
            os.chown(".ssh", uid, gid, dir_fd=home_handle, follow_symlinks=False)
        directory = os.open(".ssh", NO_FOLLOW, dir_fd=home_handle)
        try:
            os.fchmod(directory, 0o700)
            temporary = f".authorized_keys.{os.getpid()}"
            handle = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory
            )
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchown(file.fileno(), uid, gid)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, "authorized_keys", src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
    finally:
        os.close(home_handle)


class Users:
    """The users of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for its parameters and for failing."""
        self.module = module
        self.actions: dict[str, list[str]] = {}
        self.before: list[str] = []
        self.after: list[str] = []

    def note(self, account: Account, action: str, before: str, after: str) -> None:
        """Remember what is done, for the result and the diff."""
        self.actions.setdefault(account.name, []).append(action)
        self.before.append(f"{account.name}: {before}\n")
        self.after.append(f"{account.name}: {after}\n")

    def must(self, account: Account, command: list[str]) -> None:
        """Run a command that has to succeed."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.module.fail_json(
                msg=f"{account.name}: {command[0]} failed: {done.stderr.strip()}", cmd=command
            )

    def account(self, account: Account, groups: set[str]) -> None:
        """Bring one user to its state."""
        before = found(account.name)
        for command in commands(account, before, groups):
            there = f"{before.home} {before.shell}" if before else "absent"
            self.note(account, command[0], there, " ".join(command))
            if not self.module.check_mode:
                self.must(account, command)
        if account.present and account.keys is not None:
            self.keys(account, before)

    def keys(self, account: Account, before: Found | None) -> None:
        """Bring a user's keys to their state."""
        text = keys_file(account.keys or ())
        home = account.home or (before.home if before else new_home(account))
        entry = pwd.getpwnam(account.name) if found(account.name) else None
        if entry and not keys_differ(home, entry.pw_uid, text):
            return
        if not account.keys and not read_keys(home)[0]:
            return
        lines = len(read_keys(home)[0].splitlines())
        number = len(account.keys or ())
        self.note(account, "authorized_keys", f"{lines} lines of keys", f"{number} keys")
        if self.module.check_mode or entry is None:
            return
        try:
            if not os.path.isdir(home):
                os.makedirs(os.path.dirname(home), exist_ok=True)
                os.mkdir(home, 0o700)
                os.chown(home, entry.pw_uid, entry.pw_gid)
            write_keys(home, text, entry.pw_uid, entry.pw_gid)
        except OSError as error:
            self.module.fail_json(msg=f"{account.name}: its keys cannot be written: {error}")

    def run(self) -> dict[str, Any]:
        """Check all users, then bring each to its state."""
        try:
            accounts = parse_accounts(self.module.params["users"])
        except AccountsError as error:
            self.module.fail_json(msg="\n".join(error.faults))
        groups = {group.gr_name for group in grp.getgrall()}
        unknown = [
            f"{account.name}: there is no group {group!r}"
            for account in accounts
            for group in account.groups
            if account.present and group not in groups
        ]
        if unknown and not self.module.check_mode:
            self.module.fail_json(msg="\n".join(unknown))
        for account in accounts:
            self.account(account, groups)
        result: dict[str, Any] = {"changed": bool(self.actions), "actions": self.actions}
        if self.actions:
            result["diff"] = {"before": "".join(self.before), "after": "".join(self.after)}
        return result


def main() -> None:
    """Run the module."""
    options = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "system": {"type": "bool", "default": False},
        "home": {"type": "path"},
        "shell": {"type": "path"},
        "groups": {"type": "list", "elements": "str", "default": []},
        "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
    }
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "dict", "required": True, "options": options}
        },
        supports_check_mode=True,
    )
    module.exit_json(**Users(module).run())


if __name__ == "__main__":
    main()
