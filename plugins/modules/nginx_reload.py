#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_reload
short_description: Reload nginx and make sure that the new configuration serves
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Tests the configuration, reloads nginx, and waits until new workers have taken over from all old
    ones. A plain reload keeps the old configuration silently when the new one cannot be applied,
    as when a port is taken or a certificate cannot be read.
  - On failure the old configuration goes on serving, and the message has nginx's own words.
options:
  service:
    description: The systemd service.
    type: str
    default: nginx.service
  status_socket:
    description: Unix socket on which nginx answers C(/checksum), to be compared with O(checksum).
    type: path
  checksum:
    description: What the new configuration answers.
    type: str
  error_log:
    description: Where nginx says why it keeps the old configuration.
    type: path
    default: /var/log/nginx/error.log
  wait:
    description: Seconds to wait for the new workers.
    type: float
    default: 30
  applied:
    description:
      - Name of a marker of M(berth.platform.files) (its O(ignore:pending)), which is removed when
        everything succeeded.
    type: str
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Predicts the reload, and asks nginx for nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - A reload is an order and always changes something.
seealso:
  - module: berth.platform.units
"""

EXAMPLES = r"""
- name: Nginx is reloaded
  berth.platform.nginx_reload:
    applied: nginx
"""

RETURN = r"""
workers:
  description: Process ids of the workers that serve now.
  returned: success, unless in check mode
  type: list
  elements: int
seconds:
  description: How long the new workers took.
  returned: success, unless in check mode
  type: float
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.nginx_workers import (
    ask,
    children_titles,
    gave_up,
    sort_workers,
    took_over,
)
from ansible_collections.berth.platform.plugins.module_utils.units_run import remove_marker

INTERVAL = 0.05
LOG_LINES = 10


def master_of(module: AnsibleModule, service: str) -> int:
    command = ["systemctl", "show", "--property=MainPID", "--value", service]
    _rc, out, _err = module.run_command(command)
    return int(out.strip() or 0)


def size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def text_from(path: str, start: int) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            handle.seek(start)
            return handle.read()
    except OSError:
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "default": "nginx.service"},
            "status_socket": {"type": "path"},
            "checksum": {"type": "str"},
            "error_log": {"type": "path", "default": "/var/log/nginx/error.log"},
            "wait": {"type": "float", "default": 30},
            "applied": {"type": "str"},
        },
        required_by={"checksum": "status_socket"},
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    params = module.params

    rc, out, err = module.run_command(["nginx", "-t"])
    if rc != 0:
        words = (out + err).strip()
        module.fail_json(
            msg=f"nginx refuses its configuration, the old one goes on serving:\n{words}"
        )
    master = master_of(module, params["service"])
    if not master:
        module.fail_json(msg=f"{params['service']} does not run, so there is nothing to reload")

    started = time.monotonic()
    before = sort_workers(children_titles(master))
    log_size = size_of(params["error_log"])
    rc, out, err = module.run_command(["systemctl", "reload", params["service"]])
    if rc != 0:
        module.fail_json(msg=f"{params['service']} cannot be reloaded: {(err or out).strip()}")

    while True:
        now = sort_workers(children_titles(master))
        taken_over = took_over(before, now)
        answer = ""
        if taken_over and params["checksum"]:
            answer = ask(params["status_socket"], "/checksum")
        if taken_over and answer == (params["checksum"] or ""):
            break
        log = text_from(params["error_log"], log_size)
        seconds = time.monotonic() - started
        if seconds > params["wait"] or (not taken_over and gave_up(log)):
            what = (
                f"answers {answer or 'nothing'} in place of {params['checksum']}"
                if taken_over
                else "keeps its old workers"
            )
            words = "".join(log.splitlines(keepends=True)[-LOG_LINES:])
            module.fail_json(
                msg=f"after {seconds:.1f} s nginx {what}: the new configuration does not serve."
                f" {params['error_log']} says:\n{words}"
            )
        time.sleep(INTERVAL)
    if params["applied"]:
        remove_marker(params["applied"])
    module.exit_json(
        changed=True,
        workers=sorted(now.serving),
        seconds=round(time.monotonic() - started, 2),
    )


if __name__ == "__main__":
    main()
