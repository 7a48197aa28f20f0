# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_config
short_description: Resolve sites and upstreams for the templates of the nginx role
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Checks what the nginx role was given, fills in what was left out, and computes what follows from
    it, so that the templates have only to print it.
  - All faults are reported at once, each with its key, its value and what would be right.
positional: ""
options:
  _input:
    description:
      - The variables of the role, without their C(nginx_), and what the host's facts add
        (C(version) of nginx, C(ipv6)).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Names that the sites answer to
  ansible.builtin.debug:
    msg: >-
      {{ ({'sites': nginx_sites, 'upstreams': nginx_upstreams} | berth.platform.nginx_config).sites
         | map(attribute='server_names') | flatten }}
"""

RETURN = r"""
_value:
  description:
    - Resolved sites, upstreams, limits and directives by context, and a C(checksum) of them all.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.nginx import NginxError, resolve


def nginx_config(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise AnsibleFilterError("nginx_config: needs a dictionary of the role's variables")
    try:
        return resolve(given)
    except NginxError as error:
        raise AnsibleFilterError(f"nginx: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nginx_config": nginx_config}
