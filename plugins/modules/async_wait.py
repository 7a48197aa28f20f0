#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: async_wait
short_description: Wait on the host for a task that was started in the background
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Returns what a task returned that ran with C(async) and C(poll=0), as if it had run just now.
    It fails as that task failed, and removes the result's file.
  - M(ansible.builtin.async_status) asks again and again from the controller, with a round trip and
    a line of output each. This waits on the host, in one.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing runs in the background in check mode, so that there is nothing to wait for.
  diff_mode:
    support: full
    details:
      - Shows what the task that was waited for showed.
  idempotent:
    support: none
    details:
      - A result is there to be read once.
options:
  results_file:
    description: The RV(ignore:results_file) that starting the task returned.
    type: path
    required: true
  timeout:
    description: Seconds to wait. The task's own C(async) ends it earlier if that is less.
    type: float
    default: 3600
seealso:
  - module: ansible.builtin.async_status
"""

EXAMPLES = r"""
- name: Packages begin to be installed
  ansible.builtin.apt:
    name: [nginx, redis-server]
  async: 3600
  poll: 0
  changed_when: false
  register: packages

- name: Packages are installed
  berth.platform.async_wait:
    results_file: "{{ packages.results_file }}"
"""

RETURN = r"""
changed:
  description: Whether the task changed something. All else that it returned is returned, too.
  returned: success
  type: bool
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PAUSE = 0.1


def read_result(path: str) -> dict[str, Any] | None:
    """What the task returned; None while it runs, which until then is all that the file says."""
    with open(path, encoding="utf-8") as file:
        result: dict[str, Any] = json.load(file)
    return None if "started" in result else result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "results_file": {"type": "path", "required": True},
            "timeout": {"type": "float", "default": 3600},
        },
        supports_check_mode=True,
    )
    path: str = module.params["results_file"]
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        try:
            result = read_result(path)
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"the result of the background task cannot be read: {error}")
        if result is not None:
            break
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"the background task still runs after {module.params['timeout']:g} s: {path}"
            )
        time.sleep(PAUSE)
    os.unlink(path)
    # It says how it was called, which is for the task itself to log.
    result.pop("invocation", None)
    if result.pop("failed", False) or result.get("rc"):
        module.fail_json(**{"msg": "the background task failed without a word", **result})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
