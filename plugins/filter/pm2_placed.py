# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: pm2_placed
short_description: Applications of PM2 in their releases
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Gives each application of the plan the directory of its service's release as C(cwd), for
    O(ignore:pm2_apps) of the role P(berth.platform.pm2#role).
  - PM2 keeps resolved paths, so that the link to the active release would tell it nothing.
positional: releases
options:
  _input:
    description: The applications, each with its C(service).
    type: list
    elements: dict
    required: true
  releases:
    description: Directory of the release by service, as P(berth.platform.app#role) leaves it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Applications run
  ansible.builtin.import_role:
    name: berth.platform.pm2
  vars:
    pm2_apps: "{{ apps | berth.platform.pm2_placed(app_releases) }}"
"""

RETURN = r"""
_value:
  description: The applications.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError


def pm2_placed(
    apps: Sequence[Mapping[str, Any]], releases: Mapping[str, str]
) -> list[dict[str, Any]]:
    missing = sorted({app["service"] for app in apps} - set(releases))
    if missing:
        raise AnsibleFilterError(f"pm2_placed: no release is known of {', '.join(missing)}")
    return [
        {
            **{key: value for key, value in app.items() if key != "service"},
            "cwd": releases[app["service"]],
        }
        for app in apps
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pm2_placed": pm2_placed}
