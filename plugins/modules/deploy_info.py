#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_info
short_description: What is deployed, and what became of earlier deploys
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Reads the releases of services, their slots, and the history of their deploys.
extends_documentation_fragment:
  - berth.platform.attributes
  - berth.platform.attributes.reader
options:
  services:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      unit:
        description: Name of its unit, without C(.service). Its name by default.
        type: str
      home:
        description: Its directory.
        type: path
        required: true
      instances:
        description: Units of its instances, without C(.service).
        type: list
        elements: str
        default: []
  last:
    description: How many deploys of each to return.
    type: int
    default: 10
seealso:
  - module: berth.platform.deploy
"""

EXAMPLES = r"""
- name: What the shop runs is known
  berth.platform.deploy_info:
    services:
      - {name: shop, home: /srv/shop}
"""

RETURN = r"""
services:
  description: What is known of each, by its name.
  returned: success
  type: dict
  contains:
    current:
      description: The active release.
      type: str
      sample: v1.4.2
    previous:
      description: The one that was active before and is still there; empty if there is none.
      type: str
      sample: v1.4.1
    releases:
      description: All releases that are there.
      type: list
      elements: str
      sample: [v1.4.1, v1.4.2]
    slots:
      description: By instance, the slot that serves, its release, and a deploy that did not
        end.
      type: dict
    history:
      description: Its deploys, the latest last.
      type: list
      elements: dict
      sample:
        - time: "2026-03-01T10:00:00Z"
          who: alice@laptop
          action: deploy
          service: shop
          before: v1.4.1
          version: v1.4.2
          result: ok
          seconds: 14.2
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    STATE_DIRECTORY,
    history,
    load,
    previous_version,
)
from ansible_collections.berth.platform.plugins.module_utils.host_files import read
from ansible_collections.berth.platform.plugins.module_utils.release import (
    ReleaseError,
    active_version,
    installed_versions,
    read_state,
)


def slot(unit: str) -> dict[str, object]:
    """What an instance's file says."""
    state = load(read(f"{STATE_DIRECTORY}/{unit}.json"))
    if state is None:
        return {}
    found = state.slots.get(state.live, {})
    return {
        "live": state.live,
        "unit": found.get("unit", ""),
        "port": found.get("port"),
        "version": state.version(state.live),
        "interrupted": state.journal,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "unit": {"type": "str"},
                    "home": {"type": "path", "required": True},
                    "instances": {"type": "list", "elements": "str", "default": []},
                },
            },
            "last": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    found = {}
    for each in module.params["services"]:
        directory = f"{each['home']}/releases"
        try:
            current = active_version(f"{each['home']}/current", directory)
        except ReleaseError as error:
            module.fail_json(msg=f"{each['name']}: {error}")
        releases = installed_versions(directory)
        past = read_state(directory).history
        unit = each["unit"] or each["name"]
        found[each["name"]] = {
            "current": current or "",
            "previous": previous_version(past, current, releases),
            "releases": releases,
            "slots": {name: slot(name) for name in each["instances"]},
            "history": history(read(f"{STATE_DIRECTORY}/{unit}.history"), module.params["last"]),
        }
    module.exit_json(changed=False, services=found)


if __name__ == "__main__":
    main()
