#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: redis_objects
short_description: Users and settings of a host's running Redis instances in one batch
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Compares each running instance with what is listed and makes only the difference, without a
    restart, by C(CONFIG SET) and C(ACL LOAD) over the instance's socket.
  - Returns the instances that have to be restarted, because Redis takes a setting only at its
    start. What the engine itself has decided, such as whom it follows, is written down by
    C(CONFIG REWRITE) before.
  - Remembers in O(instances[].state) what it has loaded, to see what was changed by hand and by
    which password it can still come in after a new one was written.
options:
  instances:
    description: The instances.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      socket:
        description: Path of its socket.
        type: path
        required: true
      state:
        description: File of the module's own, readable by root only.
        type: path
        required: true
      main:
        description: The file that the engine rewrites.
        type: path
        required: true
      settings:
        description: Settings, as C(CONFIG SET) takes them.
        type: dict
        default: {}
      masterauth:
        description: The password by which it follows a primary.
        type: str
        default: ""
      users:
        description: All users. They stand in the instance's C(aclfile) already.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The name.
            type: str
            required: true
          rules:
            description: The rules, with hashes in place of passwords.
            type: str
            required: true
  user:
    description: The user who may do all this.
    type: str
    default: admin
  password:
    description: Its password.
    type: str
    required: true
  restart:
    description: Units that are restarted afterwards anyway.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - An instance that does not run has nothing to compare with; no change is predicted then.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - C(ACL LOAD) closes the connections of users that changed, in Redis 7.0 those of all users.
seealso:
  - plugin: berth.platform.redis_layout
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Users and settings are as listed
  berth.platform.redis_objects:
    password: "{{ redis_admin_password }}"
    instances:
      - name: cache
        socket: /run/redis-cache/redis.sock
        state: /etc/redis/berth/cache.state
        main: /var/lib/redis/cache/redis.conf
        settings: {maxmemory: "268435456"}
        users: "{{ users }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: ["cache: maxmemory changed from 67108864 to 134217728", "queue: user sales: changed"]
restart:
  description: Units that have to be restarted.
  returned: success
  type: list
  elements: str
  sample: [redis-server@queue.service]
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.redis_objects import (
    AT_START,
    Client,
    Refused,
    changed_settings,
    changed_users,
    listed_users,
    remembered,
    without_keys,
)


class Failed(Exception):
    """With a sentence for the user."""


def replace(path: Path, text: str, like: Path | None = None) -> None:
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=".berth-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            if like is not None:
                status = like.stat()
                os.fchown(stream.fileno(), status.st_uid, status.st_gid)
                os.fchmod(stream.fileno(), status.st_mode & 0o777)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, path)
    except BaseException:
        os.unlink(staged)
        raise


class Instance:
    """One running instance."""

    def __init__(self, wanted: dict[str, Any], user: str, password: str) -> None:
        self.name = wanted["name"]
        self.unit = f"redis-server@{self.name}.service"
        self.wanted = wanted
        self.login = (user, password)
        self.state_path = Path(wanted["state"])
        self.state: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.state = dict(json.loads(self.state_path.read_text(encoding="utf-8")))
        self.settings = {key: str(value) for key, value in wanted["settings"].items()}
        if wanted["masterauth"]:
            self.settings["masterauth"] = wanted["masterauth"]
        self.users = {user["name"]: user["rules"] for user in wanted["users"]}
        self.changes: list[str] = []
        self.restart = False
        self.client = self.connect()

    def connect(self) -> Client:
        """By the password, or the one before: the new one may be what is to be loaded."""
        user, password = self.login
        client = Client(self.wanted["socket"])
        try:
            client.call("AUTH", user, password)
        except Refused as error:
            before = self.state.get("password")
            try:
                if not before:
                    raise error
                client.call("AUTH", user, before)
            except Refused:
                client.close()
                raise Failed(
                    f"it refuses the user {user}: {error}. Its users are not those that were "
                    f"written; `systemctl restart {self.unit}` loads these"
                ) from None
        return client

    def bring(self, check: bool, restart: bool) -> None:
        self.restart = restart
        self.bring_settings(check)
        self.bring_users(check)
        if self.restart and not check:
            self.write_down()
        state = {
            "password": self.login[1],
            "settings": sorted(self.settings),
            "users": remembered(self.users, self.listed()),
        }
        if state != self.state and not check:
            replace(self.state_path, json.dumps(state))
        self.client.close()

    def read_settings(self) -> dict[str, str]:
        return self.client.pairs("CONFIG", "GET", *self.settings) if self.settings else {}

    def bring_settings(self, check: bool) -> None:
        before = self.read_settings()
        set_live = []
        for key in changed_settings(self.settings, before):
            if key in AT_START:
                self.restart = True
                self.tell(key, before)
            elif check:
                self.tell(key, before)
            else:
                self.set(key, before)
                set_live.append(key)
        after = self.read_settings() if set_live else before
        for key in set_live:
            if before[key] != after[key]:
                self.tell(key, before)
        for key in self.gone():
            self.changes.append(f"{key} is no longer set")
            self.restart = True

    def gone(self) -> list[str]:
        return [key for key in self.state.get("settings", []) if key not in self.settings]

    def set(self, key: str, before: dict[str, str]) -> None:
        try:
            self.client.call("CONFIG", "SET", key, self.settings[key])
        except Refused as error:
            if "immutable" in str(error) or "protected" in str(error):
                self.restart = True
                self.tell(key, before)
            else:
                raise Failed(f"it refuses {key}: {error}") from None

    def tell(self, key: str, before: dict[str, str]) -> None:
        if key == "masterauth" or "pass" in key:
            self.changes.append(f"{key} changed")
        else:
            self.changes.append(f"{key} changed from {before[key]!r} to {self.settings[key]!r}")

    def bring_users(self, check: bool) -> None:
        actual = self.listed()
        memory = self.state.get("users", {})
        words = changed_users(self.users, actual, memory)
        if check or not words:
            # Without a memory nothing but names can be compared.
            self.changes += words if memory else [w for w in words if not w.endswith(": changed")]
            return
        try:
            self.client.call("ACL", "LOAD")
        except Refused as error:
            raise Failed(f"it refuses the users: {error}") from None
        self.client.close()
        self.client = self.connect()
        there = self.listed()
        if set(there) != set(self.users):
            raise Failed("it has loaded other users than those that are listed")
        if memory:
            self.changes += words
        elif changed_users(self.users, actual, remembered(self.users, there)):
            self.changes.append("users loaded")

    def listed(self) -> dict[str, str]:
        return listed_users(self.client.call("ACL", "LIST"))

    def write_down(self) -> None:
        """Before a restart: whom it follows, which may never have been written."""
        self.client.call("CONFIG", "REWRITE")
        gone = self.gone()
        if gone:
            # Redis has written what the role once set, too, and would read it again.
            path = Path(self.wanted["main"])
            replace(path, without_keys(path.read_text(encoding="utf-8"), gone), like=path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "socket": {"type": "path", "required": True},
                    "state": {"type": "path", "required": True},
                    "main": {"type": "path", "required": True},
                    "settings": {"type": "dict", "default": {}},
                    "masterauth": {"type": "str", "default": "", "no_log": True},
                    "users": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "name": {"type": "str", "required": True},
                            "rules": {"type": "str", "required": True, "no_log": True},
                        },
                    },
                },
            },
            "user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "required": True, "no_log": True},
            "restart": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    changes: list[str] = []
    restart = []
    for wanted in module.params["instances"]:
        try:
            instance = Instance(wanted, module.params["user"], module.params["password"])
            instance.bring(module.check_mode, instance.unit in module.params["restart"])
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if module.check_mode:
                continue
            module.fail_json(msg=f"Redis {wanted['name']} does not answer: {error}")
        except (Failed, Refused, OSError) as error:
            module.fail_json(msg=f"Redis {wanted['name']}: {error}", changes=changes)
        changes += [f"{instance.name}: {words}" for words in instance.changes]
        if instance.restart:
            restart.append(instance.unit)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        restart=restart,
        diff={"prepared": "".join(f"{line}\n" for line in changes)},
    )


if __name__ == "__main__":
    main()
