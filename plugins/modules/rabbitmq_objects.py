#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_objects
short_description: Virtual hosts, users, permissions, policies and plugins of RabbitMQ in one batch
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Compares the running node with what is listed and makes only the difference, in one call.
  - Reading takes about 0.05 s, through C(erl_call) of the package C(erlang-base), and 0.7 s through
    C(rabbitmqctl) where that is missing. Changes go through C(rabbitmqctl).
  - Exchanges, queues, bindings, parameters and limits are left alone.
options:
  vhosts:
    description:
      - The virtual hosts, as RabbitMQ imports them.
      - P(berth.platform.rabbitmq_definitions#filter) makes this and the next three options.
    type: list
    elements: dict
    default: []
  users:
    description: The users, as RabbitMQ imports them, with hashes in place of passwords.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      password_hash:
        description: The salted hash.
        type: str
        required: true
      hashing_algorithm:
        description: The module of RabbitMQ that made it.
        type: str
        default: rabbit_password_hashing_sha256
      tags:
        description: The tags.
        type: list
        elements: str
        default: []
  permissions:
    description: Who may do what on which virtual host, as RabbitMQ imports it.
    type: list
    elements: dict
    default: []
  policies:
    description: The policies, as RabbitMQ imports them.
    type: list
    elements: dict
    default: []
  plugins:
    description:
      - The plugins that are enabled, without those that they need themselves. Changed while the
        node runs.
      - Untouched when not given.
    type: list
    elements: str
  remove:
    description:
      - What is removed when it is not listed.
      - V(empty_vhosts) are those without a queue. V(vhosts) are all of them, with
        their messages.
    type: list
    elements: str
    choices: [users, permissions, policies, empty_vhosts, vhosts]
    default: [users, permissions, policies, empty_vhosts]
  distribution:
    description: Where the node's Erlang distribution listens, C(address:port).
    type: str
    default: 127.0.0.1:25672
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - A node that does not run has nothing to compare with; no change is predicted then.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Connections that are open stay open when a password or a permission changes; a removed user's
    connections are closed.
seealso:
  - plugin: berth.platform.rabbitmq_definitions
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Users and virtual hosts are as listed
  berth.platform.rabbitmq_objects:
    vhosts: "{{ wanted.vhosts }}"
    users: "{{ wanted.users }}"
    permissions: "{{ wanted.permissions }}"
    plugins: [rabbitmq_management]
  vars:
    wanted: >-
      {{ [{'name': 'sales', 'password': sales_password, 'permissions': [{'vhost': 'sales'}]}]
         | berth.platform.rabbitmq_definitions(vhosts=[{'name': 'sales'}]) }}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: ["user sales: password changed", "user guest: removed"]
kept:
  description: Virtual hosts that are not listed and still there.
  returned: success
  type: list
  elements: str
  sample: []
running:
  description: Whether the node runs. Always V(true) but in check mode.
  returned: success
  type: bool
"""

import json
import os
import pwd
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.rabbitmq import (
    REMOVABLE,
    Changes,
    difference,
    plugins_of,
    unlisted_vhosts,
)

HOME = "/var/lib/rabbitmq"
# As root, Debian's rabbitmqctl would pass its arguments through a shell.
AS_RABBITMQ = ("runuser", "-u", "rabbitmq", "--")
PLUGINS_FILE = Path("/etc/rabbitmq/enabled_plugins")
# What `rabbitmqctl export_definitions` calls, too, without an Elixir machine's start.
READ = (
    "io:put_chars(rabbit_json:encode(maps:with([vhosts, users, permissions, policies], "
    "rabbit_definitions:all_definitions()))).\n"
)


class NotRunning(Exception):
    """The node does not answer."""


class Node:
    """The running node, by its own tools."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def run(self, *command: str, data: str | None = None) -> tuple[int, str, str]:
        code, out, err = self.module.run_command(
            list(command),
            data=data,
            cwd="/",
            environ_update={"HOME": HOME, "LC_ALL": "C.UTF-8"},
            handle_exceptions=False,
        )
        return int(code), str(out), str(err)

    def ctl(self, *arguments: str) -> str:
        code, out, err = self.run(*AS_RABBITMQ, "rabbitmqctl", "-q", *arguments)
        if code != 0:
            words = _words(err or out)
            self.module.fail_json(msg=f"rabbitmqctl {arguments[0]} failed: {words}")
        return out

    def definitions(self) -> dict[str, Any]:
        erl_call = self.module.get_bin_path("erl_call")
        if erl_call:
            address = self.module.params["distribution"]
            command = ["-address", address, "-r", "-timeout", "30", "-no_result_term"]
            try:
                code, out, _err = self.run(erl_call, *command, "-fetch_stdout", "-e", data=READ)
            except OSError:
                # It found no node, and left before it was told what to ask.
                code, out = 1, ""
            if code == 0 and out.startswith("{"):
                return dict(json.loads(out))
        if not self.module.get_bin_path("rabbitmqctl"):
            raise NotRunning("RabbitMQ is not installed")
        code, out, err = self.run(*AS_RABBITMQ, "rabbitmqctl", "-q", "export_definitions", "-")
        if code != 0:
            raise NotRunning(_words(err or out))
        return dict(json.loads(out))

    def queues(self, vhosts: list[str]) -> dict[str, int]:
        # Of queues, not of messages: a broker counts those with a delay of seconds, and one that
        # was just published would be thrown away.
        found = {}
        for vhost in vhosts:
            out = self.ctl("list_queues", "-p", vhost, "--formatter", "json", "name")
            found[vhost] = len(json.loads(out))
        return found

    def apply(self, changes: Changes) -> None:
        if changes.imports:
            self._import(changes.imports)
        for arguments in changes.commands():
            self.ctl(*arguments)

    def _import(self, imports: dict[str, list[dict[str, Any]]]) -> None:
        # The file must be readable for whom rabbitmqctl runs as.
        account = pwd.getpwnam("rabbitmq")
        handle, path = tempfile.mkstemp(dir=HOME, prefix=".berth-", suffix=".json")
        try:
            os.fchown(handle, account.pw_uid, account.pw_gid)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(imports, stream)
            self.ctl("import_definitions", path)
        finally:
            os.unlink(path)

    def plugins(self) -> list[str]:
        try:
            return plugins_of(PLUGINS_FILE.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []

    def set_plugins(self, plugins: list[str]) -> None:
        code, out, err = self.run(*AS_RABBITMQ, "rabbitmq-plugins", "-q", "set", *plugins)
        if code != 0:
            self.module.fail_json(msg=f"rabbitmq-plugins set failed: {_words(err or out)}")


def _words(text: str) -> str:
    return "\n".join(line for line in text.strip().splitlines() if line.strip())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "vhosts": {"type": "list", "elements": "dict", "default": []},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password_hash": {"type": "str", "required": True, "no_log": True},
                    "hashing_algorithm": {
                        "type": "str",
                        "default": "rabbit_password_hashing_sha256",
                    },
                    "tags": {"type": "list", "elements": "str", "default": []},
                },
            },
            "permissions": {"type": "list", "elements": "dict", "default": []},
            "policies": {"type": "list", "elements": "dict", "default": []},
            "plugins": {"type": "list", "elements": "str"},
            "remove": {
                "type": "list",
                "elements": "str",
                "choices": list(REMOVABLE),
                "default": ["users", "permissions", "policies", "empty_vhosts"],
            },
            "distribution": {"type": "str", "default": "127.0.0.1:25672"},
        },
        supports_check_mode=True,
    )
    node = Node(module)
    wanted = {kind: module.params[kind] for kind in ("vhosts", "users", "permissions", "policies")}
    remove = module.params["remove"]
    try:
        actual = node.definitions()
    except NotRunning as error:
        if module.check_mode:
            module.exit_json(changed=False, changes=[], kept=[], running=False)
        module.fail_json(msg=f"RabbitMQ does not answer: {error}")

    unlisted = unlisted_vhosts(wanted, actual)
    ask = unlisted if "empty_vhosts" in remove and "vhosts" not in remove else []
    queues = node.queues(ask)
    changes = difference(wanted, actual, remove, queues)
    words = list(changes.words)

    plugins = module.params["plugins"]
    if plugins is not None and sorted(plugins) != node.plugins():
        words.append(f"plugins: {', '.join(sorted(plugins)) or 'none'} enabled")
    for vhost, count in queues.items():
        if count:
            module.warn(
                f"vhost {vhost} is not listed and has queues ({count}): it is kept. "
                "List it, or remove it by `rabbitmqctl delete_vhost`"
            )
    if words and not module.check_mode:
        node.apply(changes)
        if plugins is not None and sorted(plugins) != node.plugins():
            node.set_plugins(plugins)
        left = difference(wanted, node.definitions(), remove, queues)
        if left.changed:
            module.fail_json(
                msg="RabbitMQ took the changes and has not made them:\n" + "\n".join(left.words)
            )
    module.exit_json(
        changed=bool(words),
        changes=words,
        kept=[vhost for vhost in unlisted if vhost not in changes.vhosts],
        running=True,
        diff={"prepared": "".join(f"{line}\n" for line in words)},
    )


if __name__ == "__main__":
    main()
