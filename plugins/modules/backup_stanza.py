#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: backup_stanza
short_description: Every backup repository is ready and holds a first backup
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Has the program that the role C(backup) installs look at the repositories, make what pgBackRest
    needs there, prove that WAL arrives, and take a first full backup where there is none.
  - A repository that holds the backups of another cluster is an error and stays as it is.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where the program or the server is not there yet, everything is predicted to be made.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  program:
    description: The program.
    type: path
    default: /usr/local/lib/berth/berth-backup
  initial:
    description:
      - What a repository without a backup gets.
      - V(wait) takes a full one before it goes on, V(background) starts one and goes on.
    type: str
    choices: [wait, background, none]
    default: wait
"""

EXAMPLES = r"""
- name: Repositories are ready
  berth.platform.backup_stanza:
    initial: background
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [stanza main is made, first full backup goes to local]
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/local/lib/berth/berth-backup"},
            "initial": {
                "type": "str",
                "choices": ["wait", "background", "none"],
                "default": "wait",
            },
        },
        supports_check_mode=True,
    )
    program = module.params["program"]
    if module.check_mode and not os.path.exists(program):
        module.exit_json(changed=True, actions=["repositories are made ready"])
    command = [program, "prepare", f"--initial={module.params['initial']}"]
    if module.check_mode:
        command.append("--dry-run")
    rc, out, err = module.run_command(command)
    if rc != 0:
        words = (err.strip().splitlines() or ["it says nothing"])[-1]
        if not module.check_mode:
            module.fail_json(msg=words, rc=rc, stderr=err)
        # Earlier tasks may mend what it complains of; here they changed nothing.
        module.warn(f"as things are now, {words}")
        module.exit_json(changed=True, actions=["repositories are made ready"])
    actions = json.loads(out)["actions"]
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
