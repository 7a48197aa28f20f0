# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_unit
short_description: Text of a systemd service unit
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Makes the text of a unit file from a mapping whose values are meant literally. Spaces, quotes,
    percent and dollar signs in commands and paths are escaped.
  - Sizes, times, shares of processor time, signals and names of directives are checked, because
    systemd only warns of what it does not know and then runs the service without it.
  - A sandbox that suits network services is on by default. It takes away the capabilities, the
    devices, and write access to everything but C(writable_paths) and a private C(/tmp).
options:
  _input:
    description:
      - C(description) and C(command) are required. The first word of the command is an absolute
        path, or begins with C(./) and is taken from C(working_directory).
      - Optional are C(user), C(group), C(supplementary_groups), C(working_directory), C(type),
        C(after), C(before), C(requires), C(wants), C(part_of), C(conditions), C(environment),
        C(environment_files), C(credentials) (name and path), C(restart), C(restart_seconds),
        C(kill_signal), C(kill_mode), C(start_seconds), C(stop_seconds), C(syslog_identifier),
        C(stdout) and C(stderr) (path, C(journal) or C(null)), C(writable_paths),
        C(read_only_paths), C(wanted_by).
      - C(limits) are C(memory), C(memory_high), C(swap), C(cpu), C(cpu_weight), C(io_weight),
        C(tasks), C(files), C(processes) and C(core).
      - C(sandbox) holds any directive of the Service section, as C(no_new_privileges) or as
        C(NoNewPrivileges), with a text, number, boolean, list (one line each) or null (leave out
        the default). Its values are systemd's own, C(%) begins a specifier in them.
      - C(sandbox_defaults) V(false) begins without a sandbox.
    type: dict
    required: true
seealso:
  - name: systemd.exec(5)
    description: The directives.
    link: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html
"""

EXAMPLES = r"""
- name: A worker's unit is in place
  berth.platform.files:
    files:
      - path: /etc/systemd/system/worker.service
        content: "{{ worker | berth.platform.systemd_unit }}"
  vars:
    worker:
      description: Worker of the shop
      command: /usr/bin/python3 worker.py --queue "two words"
      user: shop
      working_directory: /srv/shop/current
      limits: {memory: 512M, cpu: 50%}
      sandbox: {private_network: true}
"""

RETURN = r"""
_value:
  description: The text of the unit file.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.systemd_unit import (
    UnitError,
    from_mapping,
    render,
)


def systemd_unit(values: Any) -> str:
    if not isinstance(values, Mapping):
        raise AnsibleFilterError("systemd_unit: the unit is not a mapping")
    try:
        return render(from_mapping(values))
    except UnitError as error:
        raise AnsibleFilterError(f"systemd_unit: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_unit": systemd_unit}
