#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Any number of systemd units in one round trip, waited for until they run
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Enables, masks, starts, stops, restarts and reloads systemd units, all in one call.
  - Waits until a unit that was told to run is up for good, so that a service that dies right
    after its start is an error of this task. The message has the unit's state and the last
    lines of its journal.
  - Runs C(daemon-reload) by itself when a unit file was changed or is new.
options:
  units:
    description: The units, in the order in which they are told.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit. Without a suffix it is a service.
        type: str
        required: true
      enabled:
        description:
          - Whether the unit starts with the host. Untouched when not given.
          - A static or generated unit cannot be enabled and counts as it should be.
        type: bool
      masked:
        description: Whether the unit is masked. Untouched when not given. A masked unit is stopped.
        type: bool
      state:
        description:
          - V(started) does nothing to a unit that runs; a failed one is reset first.
          - V(reloaded) restarts a unit that cannot reload, and starts one that does not run.
          - V(restarted) starts one that does not run.
          - The run state is untouched when not given.
        type: str
        choices: [started, stopped, restarted, reloaded]
  daemon_reload:
    description:
      - Whether systemd reads its unit files again first. When not given, it does so if one of
        the units has changed on disk or is not known yet.
    type: bool
  wait:
    description:
      - Seconds to wait until the units are active.
      - With V(0) the last of them is only told to start, so that others can be looked after
        meanwhile. Whoever needs it waits for it.
    type: float
    default: 30
  applied:
    description:
      - Name of a marker of M(berth.platform.files) (its O(ignore:pending)), which is removed
        when everything succeeded.
    type: str
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - A unit that is not there yet is expected to come; it is no error.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - V(restarted) and V(reloaded) are orders and always change something. So does
        V(started) on a oneshot service that does not remain after its exit.
seealso:
  - module: berth.platform.files
  - module: ansible.builtin.systemd_service
"""

EXAMPLES = r"""
- name: Nginx runs
  berth.platform.units:
    units:
      - name: nginx.service
        enabled: true
        state: started

- name: Nginx is reloaded
  berth.platform.units:
    units:
      - name: nginx.service
        state: reloaded
    applied: nginx
"""

RETURN = r"""
units:
  description: What each unit was, is (or in check mode would be), and what was done to it.
  returned: success
  type: dict
  sample:
    nginx.service:
      action: enable+start
      before: {load: loaded, active: inactive, sub: dead, enabled: disabled}
      after: {load: loaded, active: active, sub: running, enabled: enabled}
daemon_reloaded:
  description: Whether systemd has read its unit files again.
  returned: success
  type: bool
notes:
  description: Wishes that have no meaning for a unit, such as enabling a static one.
  returned: success
  type: list
  elements: str
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.units_plan import read_wanted
from ansible_collections.berth.platform.plugins.module_utils.units_run import (
    Systemd,
    UnitsFailed,
    remove_marker,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool"},
                    "masked": {"type": "bool"},
                    "state": {
                        "type": "str",
                        "choices": ["started", "stopped", "restarted", "reloaded"],
                    },
                },
            },
            "daemon_reload": {"type": "bool"},
            "wait": {"type": "float", "default": 30},
            "applied": {"type": "str"},
        },
        supports_check_mode=True,
    )
    wanted, faults = read_wanted(module.params["units"])
    if faults:
        module.fail_json(msg="\n".join(faults))
    try:
        result = Systemd().run(
            wanted,
            check=module.check_mode,
            daemon_reload=module.params["daemon_reload"],
            wait=module.params["wait"],
        )
    except UnitsFailed as error:
        module.fail_json(msg=str(error), units=error.units)
    if module.params["applied"] and not module.check_mode:
        remove_marker(module.params["applied"])
    module.exit_json(**asdict(result))


if __name__ == "__main__":
    main()
