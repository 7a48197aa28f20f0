#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_apps
short_description: The applications that PM2 runs for all users of a host, in one batch
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Compares what the PM2 daemon of each user runs with what is listed, and starts, restarts and
    removes only what differs.
  - Waits until what was started is online, said that it is ready and listens, and fails with its
    last log lines if it is not.
  - Saves the list, so that the daemon's next start brings back exactly what is listed.
  - The daemons are asked at their sockets, which takes milliseconds. Changes go through C(pm2).
options:
  apps:
    description:
      - The applications, as P(berth.platform.pm2_layout#filter) makes them.
      - Their settings are in the ecosystem file of their user.
    type: list
    elements: dict
    required: true
    suboptions:
      user:
        description: The user that runs it.
        type: str
        required: true
      name:
        description: Its name in PM2.
        type: str
        required: true
      hash:
        description: Stands for its settings. One that was started with another is restarted.
        type: str
        required: true
      instances:
        description: Number of its processes.
        type: int
        default: 1
      wait_ready:
        description: Whether it says when it is ready.
        type: bool
        default: false
      timeout:
        description: Milliseconds that it has to come up.
        type: int
        default: 10000
      ports:
        description: TCP ports that it listens on then.
        type: list
        elements: int
        default: []
      logs:
        description: Its log files.
        type: list
        elements: path
        default: []
  lines:
    description: Log lines to show of what does not come up.
    type: int
    default: 15
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - A daemon that does not run yet is taken to run nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Restarting is removing and starting, since PM2 would keep old variables and paths otherwise. For
    one that must not be missed, start another under a second name and port first.
seealso:
  - plugin: berth.platform.pm2_layout
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Applications run as listed
  berth.platform.pm2_apps:
    apps: "{{ (pm2_apps | berth.platform.pm2_layout).apps }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: ["shop/api: restarted, its settings changed"]
saved:
  description: Users whose list was saved.
  returned: success
  type: list
  elements: str
  sample: [shop]
retired:
  description: Users that have a daemon of ours and no application.
  returned: success
  type: list
  elements: str
  sample: []
retired_units:
  description: Their units, for M(berth.platform.units) to stop.
  returned: success
  type: list
  elements: dict
  sample: []
"""

import json
import os
import socket
import stat
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils import pm2, sockets
from ansible_collections.berth.platform.plugins.module_utils.pm2_process import Process, begin
from ansible_collections.berth.platform.plugins.module_utils.service_logs import tail


class NotRunning(Exception):
    """A daemon does not answer."""


def ask(user: str, method: str = "getMonitorData") -> list[pm2.Process]:
    """What the daemon of a user runs."""
    data = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        try:
            connection.connect(f"{pm2.HOMES}/{user}/rpc.sock")
            connection.sendall(pm2.question(method, {}))
            while (told := pm2.answer(data)) is None:
                piece = connection.recv(1 << 16)
                if not piece:
                    raise NotRunning("it closed the connection")
                data += piece
        except (OSError, ValueError) as error:
            raise NotRunning(str(error)) from error
    return pm2.processes(told)


def read_saved(user: str) -> list[pm2.Process] | None:
    """What the daemon's next start brings back; nothing if that cannot be read."""
    lists = []
    for name in ("dump.pm2", "dump.pm2.bak"):
        try:
            # The directory is the user's: what stands there may be a link to what is not.
            handle = os.open(
                f"{pm2.HOMES}/{user}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            )
            with os.fdopen(handle, "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    return None
                lists.append(pm2.processes(json.load(stream)))
        except (OSError, ValueError, AttributeError, TypeError):
            return None
    # The older one would bring back what was removed if the newer one were damaged.
    return lists[0] if by_hash(lists[0]) == by_hash(lists[1]) else None


def by_hash(found: list[pm2.Process]) -> list[tuple[str, str]]:
    return sorted((process.name, process.hash) for process in found)


def retired(users: set[str]) -> list[str]:
    try:
        return sorted(each.name for each in Path(pm2.REGISTRY).iterdir() if each.name not in users)
    except OSError:
        return []


def listening_ports() -> set[int]:
    return {each.port for each in sockets.read_sockets() if each.protocol == "tcp"}


class Host:
    """The daemons of a host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.lines = module.params["lines"]
        self.faults: list[str] = []
        self.failed: list[tuple[str, str]] = []

    def pm2(self, user: str, *arguments: str) -> None:
        code, out, err = self.module.run_command([pm2.PROGRAM, user, *arguments], cwd="/")
        if code != 0:
            self.module.fail_json(
                msg=f"pm2 {arguments[0]} of {user} failed:\n{(err or out)[-2000:]}"
            )

    def apply(self, user: str, apps: list[pm2.Wanted], changes: pm2.Changes) -> None:
        if changes.delete:
            self.pm2(user, "delete", *changes.delete)
        if not changes.start:
            return
        # pm2 waits itself until each says that it is ready; what it waits for is watched meanwhile.
        ecosystem = f"{pm2.REGISTRY}/{user}/ecosystem.json"
        command = [pm2.PROGRAM, user, "start", ecosystem, "--only", ",".join(changes.start)]
        with begin(command) as process:
            try:
                self.wait(user, apps, set(changes.start), process)
                out = process.communicate(timeout=60)[0]
            finally:
                process.kill()
        if process.returncode not in (0, -9):
            self.module.fail_json(msg=f"pm2 start of {user} failed:\n{out[-2000:]}")

    def wait(
        self,
        user: str,
        apps: list[pm2.Wanted],
        started: set[str],
        process: Process[str] | None = None,
    ) -> None:
        """Waits until all are up; what was not started now may have been restarted before."""
        waiting = list(apps)
        before = pm2.by_name(ask(user))
        restarts = {
            app.name: 0
            if app.name in started
            else max((each.restarts for each in before.get(app.name, [])), default=0)
            for app in apps
        }
        began = time.monotonic()
        while waiting:
            named = pm2.by_name(ask(user))
            listening = listening_ports() if any(app.ports for app in waiting) else set()
            now = int(time.time() * 1000)
            late = time.monotonic() - began
            left = []
            for app in waiting:
                running = named.get(app.name, [])
                why = pm2.fault(app, running, restarts[app.name], listening, now)
                # PM2 starts two at a time, and the next when one of them is ready.
                queued = process is not None and process.poll() is None and not running
                if why and (why.startswith("!") or (not queued and late > app.timeout / 1000)):
                    self.give_up(app, why.lstrip("!"))
                elif why:
                    left.append(app)
            waiting = left
            if waiting:
                time.sleep(0.1)

    def launching(self, app: pm2.Wanted) -> bool:
        running = pm2.by_name(ask(app.user)).get(app.name, [])
        return any(process.status == "launching" for process in running)

    def give_up(self, app: pm2.Wanted, why: str) -> None:
        # PM2 calls it online some time after it should have been ready, and so brings back what was
        # stopped or removed before.
        until = time.monotonic() + 2 * pm2.GRACE_MS / 1000
        while self.launching(app) and time.monotonic() < until:
            time.sleep(0.1)
        # Stopped, it is tried again by the next run.
        self.module.run_command([pm2.PROGRAM, app.user, "stop", app.name], cwd="/")
        logs = "".join(f"\n{path}:\n{tail(path, self.lines)}" for path in app.logs)
        self.failed.append((app.user, app.name))
        self.faults.append(f"{app.user}/{app.name} does not come up: {why}{logs}")

    def save(self, user: str) -> None:
        # What is not the user's own PM2 could not overwrite.
        for name in ("dump.pm2", "dump.pm2.bak"):
            Path(pm2.HOMES, user, name).unlink(missing_ok=True)
        # Twice: the first list becomes the second's backup.
        for _time in range(2):
            self.pm2(user, "save", "--force")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "apps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "user": {"type": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "hash": {"type": "str", "required": True, "no_log": True},
                    "instances": {"type": "int", "default": 1},
                    "wait_ready": {"type": "bool", "default": False},
                    "timeout": {"type": "int", "default": 10000},
                    "ports": {"type": "list", "elements": "int", "default": []},
                    "logs": {"type": "list", "elements": "path", "default": []},
                },
            },
            "lines": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    apps: dict[str, list[pm2.Wanted]] = {}
    for each in module.params["apps"]:
        values = {**each, "ports": tuple(each["ports"]), "logs": tuple(each["logs"])}
        apps.setdefault(each["user"], []).append(pm2.Wanted(**values))

    host = Host(module)
    words: list[str] = []
    saved: list[str] = []
    for user, wanted in apps.items():
        try:
            found = ask(user)
        except NotRunning as error:
            if not module.check_mode:
                module.fail_json(
                    msg=f"PM2 of {user} does not answer ({error}): "
                    f"see systemctl status {pm2.unit_of(user)}"
                )
            found = []
        changes = pm2.difference(wanted, found)
        words += [f"{user}/{line}" for line in changes.words]
        stale = not pm2.is_saved(wanted, read_saved(user) or [])
        if changes.words or stale:
            saved.append(user)
        if module.check_mode:
            continue
        try:
            host.apply(user, wanted_of(wanted, changes.start), changes)
            rest = [app for app in wanted if (user, app.name) not in host.failed]
            host.wait(user, rest, set())
        except NotRunning as error:
            module.fail_json(msg=f"PM2 of {user} stopped: {error}")
        if user in saved:
            host.save(user)
    if host.faults:
        module.fail_json(msg="\n".join(host.faults), changes=words)
    gone = retired(set(apps))
    module.exit_json(
        changed=bool(words or saved),
        changes=words,
        saved=saved,
        retired=gone,
        retired_units=[
            {"name": pm2.unit_of(user), "enabled": False, "state": "stopped"} for user in gone
        ],
        diff={"prepared": "".join(f"{line}\n" for line in words)},
    )


def wanted_of(wanted: list[pm2.Wanted], names: list[str]) -> list[pm2.Wanted]:
    return [app for app in wanted if app.name in names]


if __name__ == "__main__":
    main()
