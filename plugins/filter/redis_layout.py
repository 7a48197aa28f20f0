# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: redis_layout
short_description: Redis instances as files, units, settings and users
version_added: "0.1.0"
author: Berth contributors (@berth-platform)
description:
  - Validates the instances as a whole and derives everything that the role needs of them.
  - Instances without O(_input[].memory) share what the others leave of half of the host's memory.
options:
  _input:
    description: The instances, as the role P(berth.platform.redis#role) takes them.
    type: list
    elements: dict
    required: true
    suboptions:
      memory:
        description: The memory limit.
        type: str
  memory_mb:
    description: The host's memory in MiB.
    type: int
    required: true
  admin_password:
    description: Password of the user C(admin).
    type: str
    required: true
  replication_password:
    description: Password of the user C(replication). Without one there is no such user.
    type: str
    default: ""
  probe_password:
    description: Password of the user C(probe). Without one there is no such user.
    type: str
    default: ""
  known_units:
    description:
      - Names of the host's units. Of these, instances that are not listed are stopped.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: The files of an instance
  ansible.builtin.debug:
    msg: >-
      {{ ([{'name': 'cache', 'port': 6379}]
          | berth.platform.redis_layout(memory_mb=2048, admin_password='secret')).files
         | map(attribute='path') }}
"""

RETURN = r"""
_value:
  description: RV(_value.instances) for the module, RV(_value.files) and RV(_value.units).
  type: dict
  contains:
    instances:
      description: For M(berth.platform.redis_objects).
      type: list
      elements: dict
    files:
      description: For M(berth.platform.files).
      type: list
      elements: dict
    units:
      description:
        - For M(berth.platform.units). The distribution's own instance is masked, since it would
          take the port of one of ours.
      type: list
      elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.redis_instances import (
    CONFIGURATION,
    RedisError,
    files,
    layout,
    units,
)


def redis_layout(
    instances: Any,
    memory_mb: int,
    admin_password: str,
    replication_password: str = "",
    probe_password: str = "",
    known_units: Any = (),
) -> dict[str, Any]:
    try:
        found = layout(
            list(instances),
            int(memory_mb),
            str(admin_password),
            str(replication_password),
            str(probe_password),
        )
    except RedisError as error:
        raise AnsibleFilterError(str(error)) from error
    return {
        "instances": [
            {
                **{key: one[key] for key in ("name", "socket", "main", "settings", "users")},
                "state": f"{CONFIGURATION}/{one['name']}.state",
                "masterauth": str(replication_password),
            }
            for one in found
        ],
        "files": files(found),
        "units": units([one["unit"] for one in found], known_units),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_layout": redis_layout}
