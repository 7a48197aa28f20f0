#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: service_logs
short_description: The last lines that services wrote
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Reads the last lines of the journal of units and of the files that they log to, for a message
    that says why a service failed.
  - Only reads. A file that cannot be read is no error; its text says why.
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
options:
  units:
    description: The units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit.
        type: str
        required: true
      files:
        description: Files that it logs to.
        type: list
        elements: path
        default: []
  lines:
    description: How many lines of each.
    type: int
    default: 15
seealso:
  - module: berth.platform.health_probe
"""

EXAMPLES = r"""
- name: What the shop said last is known
  berth.platform.service_logs:
    units:
      - name: shop.service
        files: [/var/log/shop/shop.log]
"""

RETURN = r"""
logs:
  description: Each file and each journal, in the order of the units.
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: Path of the file, or name of the unit whose journal it is.
      type: str
      sample: shop.service
    text:
      description: The last lines.
      type: str
text:
  description: All of it, with a heading for each.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.service_logs import as_text, collect


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "default": []},
                },
            },
            "lines": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    logs = collect(module.params["units"], module.params["lines"])
    module.exit_json(changed=False, logs=logs, text=as_text(logs))


if __name__ == "__main__":
    main()
