#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: listeners
short_description: Who listens on a host, and whether that is who was planned to
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Lists the TCP and UDP sockets that wait for others, with process and systemd unit, as
    RV(ansible_facts.berth_listeners).
  - Compares them with the planned owners of ports. A listener on a planned port that is
    none of the expected units or processes is a conflict. It is for the caller to decide
    that a conflict is a failure.
  - Only sockets of the network namespace that the module runs in are seen. A port that a
    container publishes shows as its proxy process or, where that is done by rules of the
    firewall, not at all.
  - Of a command line nothing but the name of the program is read.
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
  - berth.platform.planned
notes:
  - Without root only the own processes have a name.
"""

EXAMPLES = r"""
- name: Planned ports are free or held by their owners
  berth.platform.listeners:
    planned:
      - port: 5006
        units: [dhanman-prod-sales.service]
        owner: sales
  register: __ports
  failed_when: __ports.conflicts | length > 0
"""

RETURN = r"""
ansible_facts:
  description: Facts added to C(ansible_facts).
  returned: always
  type: dict
  contains:
    berth_listeners:
      description: The listening sockets. A process is empty where it cannot be seen.
      returned: always
      type: list
      elements: dict
      sample:
        - {protocol: tcp, address: 0.0.0.0, port: 22, pid: 80, process: sshd, unit: ssh.service}
conflicts:
  description: Listeners on planned ports that are not those who were planned there.
  returned: always
  type: list
  elements: dict
  sample:
    - port: 5006
      protocol: tcp
      address: 0.0.0.0
      planned_owner: sales
      pid: 4711
      process: node
      unit: other.service
      message: >-
        tcp port 5006 is planned for sales, but node (pid 4711, unit other.service) listens
        on 0.0.0.0
msg:
  description: The conflicts in words.
  returned: when there are conflicts
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.sockets import (
    PLANNED_OPTION,
    compare,
    plain,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"planned": PLANNED_OPTION},
        supports_check_mode=True,
    )
    listeners, compared = compare(module.params["planned"])
    module.exit_json(
        changed=False,
        ansible_facts={"berth_listeners": [plain(item) for item in listeners]},
        **compared,
    )


if __name__ == "__main__":
    main()
