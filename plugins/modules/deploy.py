#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: deploy
short_description: Replace running services without losing a request
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Every instance has two slots, of which one serves. The other is started beside it with the new
    release, unit and environment on its standby port, and probed until it has been ready for a
    while without a break. Then the kernel sends the new connections of the instance's port to it
    (as M(berth.platform.port_switch) does), it is probed through that port, and the old process
    ends when its connections have ended, or are given no more time.
  - Whatever fails, the old process goes on serving or gets its port back, and the instances of the
    service that had been replaced before go back, too. The message names the step, with what the
    probe saw and the last lines of the logs.
  - What does not run yet is started, all of it at once, and waited for.
  - All of it runs in a process of its own on the host, which outlives the connection. What it does
    is written down before it is done, so that the next call cleans up after one that was killed.
  - Releases are in place already, by M(berth.platform.release). The one that was deployed becomes
    the active one at the end, and old ones are removed only then.
options:
  services:
    description: The services, as P(berth.platform.app_contents#filter) gives them in C(deploys).
    type: list
    elements: dict
    default: []
  versions:
    description: The release that each service is to run, by its name.
    type: dict
    default: {}
  retired:
    description:
      - Units, without C(.service), that are gone. The ports of instances that had slots lead to
        themselves again.
    type: list
    elements: str
    default: []
  action:
    description:
      - What is said in the history. With V(rollback) a release that was ready before has to be so
        for a second only.
    type: str
    choices: [converge, deploy, rollback]
    default: converge
  parallel:
    description: How many services are replaced at the same time. Their instances take turns.
    type: int
    default: 4
  who:
    description: Who deploys, for the history. Set by the controller's part.
    type: str
    default: ""
  follow:
    description: Set by the controller's part, to go on listening to a deploy.
    type: str
  seen:
    description: Set by the controller's part, how many lines it has seen.
    type: int
    default: 0
  wait:
    description: Seconds after which a call returns to show the lines there are.
    type: float
    default: 15
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the version of each service, and why it needs a deploy.
  idempotent:
    support: full
requirements:
  - nftables 1.0 or newer and systemd on the host
seealso:
  - module: berth.platform.release
  - module: berth.platform.port_switch
  - module: berth.platform.deploy_info
"""

EXAMPLES = r"""
- name: Services serve their releases
  berth.platform.deploy:
    services: "{{ (app_services | berth.platform.app_contents).deploys }}"
    versions: {shop: v1.4.2}
    action: deploy
"""

RETURN = r"""
services:
  description: What became of each.
  returned: when it ended
  type: list
  elements: dict
  contains:
    name:
      description: Name of the service.
      type: str
      sample: shop
    version:
      description: The release that was wanted.
      type: str
      sample: v1.4.2
    before:
      description: The release that was active.
      type: str
      sample: v1.4.1
    result:
      description: V(unchanged), V(ok), V(failed), or V(due) in check mode.
      type: str
      sample: ok
    reasons:
      description: Why it needed a deploy.
      type: list
      elements: str
      sample: ["shop: it runs v1.4.1"]
    step:
      description: The step that failed.
      type: str
    message:
      description: What failed, what the probe saw, what serves, and the last lines of the logs.
      type: str
    seconds:
      description: How long it took.
      type: float
    slots:
      description: The slot that serves, by instance.
      type: dict
    pruned:
      description: Releases that were removed.
      type: list
      elements: str
retired:
  description: Instances whose slots are gone.
  returned: when it ended
  type: list
  elements: str
lines:
  description: What was done, a line each.
  returned: always
  type: list
  elements: str
running:
  description: Whether it is still at work. Seen by the controller's part alone.
  returned: always
  type: bool
id:
  description: By which O(follow) finds it.
  returned: while it is at work
  type: str
"""

import fcntl
import json
import os
import secrets
import sys
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    STATE_DIRECTORY,
    DeployFailed,
    refused,
    services_from,
)
from ansible_collections.berth.platform.plugins.module_utils.deploy_host import Machine
from ansible_collections.berth.platform.plugins.module_utils.deploy_run import Deploy, Outcome
from ansible_collections.berth.platform.plugins.module_utils.host_files import read, remove, write

RUN_DIRECTORY = "/run/berth/deploy"


def sign(descriptor: int, who: str, version: str) -> None:
    """Who holds a lock, for the one that is refused."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    holder = {"who": who, "since": now, "version": version, "pid": os.getpid()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def lock(service: Any, who: str) -> tuple[int, str]:
    """A descriptor that holds the service as long as a process has it, or why there is none."""
    os.makedirs(STATE_DIRECTORY, mode=0o755, exist_ok=True)
    path = f"{STATE_DIRECTORY}/{service.unit}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            holder = json.loads(read(path) or "{}")
        except ValueError:
            holder = {}
        os.close(descriptor)
        return -1, refused(holder, service.name)
    sign(descriptor, who, service.version)
    return descriptor, ""


def work(deploy: Deploy, services: list[Any], retired: list[str]) -> dict[str, Any]:
    """The deploy itself; what the module returns of it."""
    gone = deploy.retire(retired) if retired else []
    outcomes = deploy.run(services) if services else []
    return {**summary(outcomes), "retired": gone, "changed": bool(gone) or changed(outcomes)}


def changed(outcomes: list[Outcome]) -> bool:
    return any(each.result != "unchanged" for each in outcomes)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    failed = [each.message for each in outcomes if each.result == "failed"]
    found: dict[str, Any] = {
        "services": [asdict(each) for each in outcomes],
        "diff": [
            {
                "before_header": each.name,
                "after_header": each.name,
                "before": f"serves: {each.before or 'nothing'}\n",
                "after": "".join(
                    [f"serves: {each.version}\n", *(f"because {why}\n" for why in each.reasons)]
                ),
            }
            for each in outcomes
            if each.result in ("ok", "due")
        ],
    }
    if failed:
        found.update(failed=True, msg="\n".join(failed))
    return found


def adopt(pid: int, name: str) -> None:
    """A scope of its own: who ends the session of the connection does not end the deploy."""
    Machine().call(
        [
            "busctl",
            "call",
            "--quiet",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            f"berth-deploy-{name}.scope",
            "fail",
            "2",
            "PIDs",
            "au",
            "1",
            str(pid),
            "Description",
            "s",
            "A deploy of Berth's",
            "0",
        ],
        10,
    )


def detach(name: str, held: list[int], do: Any) -> None:
    """A process that goes on without us; its result lies in the directory of runs."""
    log = os.open(f"{RUN_DIRECTORY}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # Held as long as it is at work: what is at work no longer and left no result was killed.
    fcntl.flock(log, fcntl.LOCK_EX)
    if os.fork():
        for descriptor in (log, *held):
            os.close(descriptor)
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        adopt(os.getpid(), name)
        result = do(lambda line: os.write(log, f"{line}\n".encode()))
        write(f"{RUN_DIRECTORY}/{name}.json", json.dumps(result), 0o600)
    except BaseException as error:
        failure = {"failed": True, "msg": f"{type(error).__name__}: {error}", "changed": True}
        write(f"{RUN_DIRECTORY}/{name}.json", json.dumps(failure), 0o600)
    finally:
        os._exit(0)


def at_work(name: str) -> bool:
    try:
        with open(f"{RUN_DIRECTORY}/{name}.log", encoding="utf-8") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def follow(name: str, seen: int, wait: float) -> dict[str, Any]:
    """Lines and result of a deploy, once there are any."""
    path = f"{RUN_DIRECTORY}/{name}"
    deadline = time.monotonic() + wait
    while True:
        running = at_work(name)
        lines = read(f"{path}.log").splitlines()[seen:]
        if not running:
            break
        if lines or time.monotonic() > deadline:
            return {"running": True, "id": name, "lines": lines, "changed": False}
        time.sleep(0.1)
    try:
        result = json.loads(read(f"{path}.json"))
    except ValueError:
        result = {
            "failed": True,
            "changed": True,
            "msg": "The deploy's process on the host was killed. One release of each service goes "
            "on serving; run it again, and it begins with cleaning up.",
        }
    for end in (".log", ".json"):
        remove(path + end)
    return {**result, "running": False, "lines": lines}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # As a whole: it has environments and credentials in it.
            "services": {"type": "list", "elements": "dict", "default": [], "no_log": True},
            "versions": {"type": "dict", "default": {}},
            "retired": {"type": "list", "elements": "str", "default": []},
            "action": {
                "type": "str",
                "choices": ["converge", "deploy", "rollback"],
                "default": "converge",
            },
            "parallel": {"type": "int", "default": 4},
            "who": {"type": "str", "default": ""},
            "follow": {"type": "str"},
            "seen": {"type": "int", "default": 0},
            "wait": {"type": "float", "default": 15},
        },
        supports_check_mode=True,
    )
    params = module.params
    # Ansible would now blank every word of them in what is returned, in which no secret is.
    module.no_log_values.clear()
    invocation = {"module_args": {key: params[key] for key in ("versions", "action", "retired")}}
    if params["follow"]:
        result = follow(params["follow"], params["seen"], params["wait"])
        finish(module, invocation, result)
    try:
        services = services_from(params["services"], params["versions"])
    except (DeployFailed, KeyError, ValueError) as error:
        module.fail_json(msg=f"the services are not right: {error}", invocation=invocation)
    if module.check_mode:
        outcomes = Deploy(Machine(), lambda line: None).predict(services)
        result = {**summary(outcomes), "changed": changed(outcomes), "lines": [], "running": False}
        finish(module, invocation, result)
    held, words = [], []
    for service in services:
        descriptor, why = lock(service, params["who"])
        held += [descriptor] if not why else []
        words += [why] if why else []
    if words:
        module.fail_json(msg="\n".join(words), invocation=invocation)
    os.makedirs(RUN_DIRECTORY, mode=0o700, exist_ok=True)
    name = secrets.token_hex(8)

    def do(say: Any) -> dict[str, Any]:
        for number, descriptor in enumerate(held):
            sign(descriptor, params["who"], services[number].version)
        deploy = Deploy(
            Machine(),
            say,
            who=params["who"],
            action=params["action"],
            parallel=params["parallel"],
        )
        return work(deploy, services, params["retired"])

    sys.stdout.flush()
    detach(name, held, do)
    finish(module, invocation, follow(name, 0, params["wait"]))


def finish(module: AnsibleModule, invocation: dict[str, Any], result: dict[str, Any]) -> None:
    if result.pop("failed", False):
        module.fail_json(invocation=invocation, **result)
    module.exit_json(invocation=invocation, **result)


if __name__ == "__main__":
    main()
