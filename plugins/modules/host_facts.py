#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Everything the roles need to know of a host, in one quick call
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Gathers installed packages, systemd units, users, groups, usable cores and memory,
    addresses and unfinished work in one round trip, as RV(ansible_facts.berth_host).
  - Roles compare what they want with these facts and skip the tasks that would find
    nothing to do, so that a run that changes nothing costs one or two calls.
  - Only reads. Facts that the host cannot give (no dpkg, no systemd, no C(ip)) are empty.
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
  - berth.platform.planned
options:
  expected:
    description:
      - Packages that are taken to be installed, with an empty version, whether they are or not.
      - For check mode, after a task that would have installed them.
    type: list
    elements: str
    default: []
seealso:
  - module: berth.platform.files
  - module: berth.platform.units
"""

EXAMPLES = r"""
- name: Host facts are known
  berth.platform.host_facts:
  when: ansible_facts.berth_host is not defined

- name: Nginx is installed
  ansible.builtin.apt:
    name: nginx
  when: "'nginx' not in ansible_facts.berth_host.packages"
"""

RETURN = r"""
conflicts:
  description: Listeners on O(planned) ports that are not those who were planned there.
  returned: always
  type: list
  elements: dict
msg:
  description: The conflicts in words.
  returned: when there are conflicts
  type: str
ansible_facts:
  description: Facts added to C(ansible_facts).
  returned: always
  type: dict
  contains:
    berth_host:
      description: What is known of the host.
      returned: always
      type: dict
      contains:
        distribution:
          description: The distribution's C(id), C(version) and C(codename).
          returned: always
          type: dict
          sample: {id: debian, version: "13", codename: trixie}
        architecture:
          description: Debian's name of the machine's architecture.
          returned: always
          type: str
          sample: amd64
        cores:
          description: Cores that may be used, the smaller of online CPUs and cgroup quota.
          returned: always
          type: int
          sample: 4
        memory_mb:
          description: Memory that may be used in MiB, the smaller of MemTotal and cgroup limit.
          returned: always
          type: int
          sample: 7951
        packages:
          description:
            - Version of each installed package by name.
            - A package of O(expected) that is not there has an empty version.
            - A package of a foreign architecture is named C(name:architecture).
          returned: always
          type: dict
          sample: {nginx: 1.26.3-3+deb13u1}
        units:
          description:
            - The loaded units and the unit files, by name and by alias.
            - C(enabled) is the state of the unit file and is empty for a unit without one.
            - C(load) is empty for a unit file that systemd has not loaded. It is V(not-found)
              for a unit that others mention and that does not exist.
          returned: always
          type: dict
          sample: {nginx.service: {load: loaded, active: active, sub: running, enabled: enabled}}
        users:
          description: The entries of C(/etc/passwd).
          returned: always
          type: dict
          sample: {root: {uid: 0, gid: 0, home: /root, shell: /bin/bash}}
        groups:
          description: Group id by name, from C(/etc/group).
          returned: always
          type: dict
          sample: {root: 0}
        hostname:
          description: The host's name as the kernel has it.
          returned: always
          type: str
          sample: web1
        addresses:
          description: Addresses of global scope, IPv4 first.
          returned: always
          type: list
          elements: str
          sample: ["192.0.2.10", "2001:db8::10"]
        hosts_block:
          description: The lines that the role P(berth.platform.base#role) keeps in C(/etc/hosts).
          returned: always
          type: str
          sample: 192.0.2.10 db.internal
        pending:
          description: Markers of changes that were begun and whose services were not told yet.
          returned: always
          type: list
          elements: str
          sample: [nginx]
        python:
          description: Version of the Python that ran the module.
          returned: always
          type: str
          sample: 3.13.5
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.hostfacts import gather
from ansible_collections.berth.platform.plugins.module_utils.sockets import (
    PLANNED_OPTION,
    compare,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "expected": {"type": "list", "elements": "str", "default": []},
            "planned": PLANNED_OPTION,
        },
        supports_check_mode=True,
    )
    facts = gather()
    facts["packages"] = {**dict.fromkeys(module.params["expected"], ""), **facts["packages"]}
    module.exit_json(
        changed=False,
        ansible_facts={"berth_host": facts},
        **compare(module.params["planned"])[1],
    )


if __name__ == "__main__":
    main()
