# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: static_site_releases
short_description: What the static_site role asks of the release module
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Turns the sites of the static_site role into the releases of M(berth.platform.release).
positional: keep
options:
  _input:
    description: The sites, as the role describes them.
    type: list
    elements: dict
    required: true
  keep:
    description: Releases to keep of a site that does not say so itself.
    type: int
    default: 3
  place:
    description: Only what can be in place before any package is, without being switched to.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Sites are in place
  berth.platform.release:
    releases: "{{ static_site_sites | berth.platform.static_site_releases(3) }}"
"""

RETURN = r"""
_value:
  description: The releases.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.module_utils.release import placeable

# The group that Debian's web servers run in; it is there before any of them is installed.
WEB_GROUP = "www-data"


def static_site_releases(
    sites: Sequence[Mapping[str, Any]], keep: int = 3, place: bool = False
) -> list[dict[str, Any]]:
    faults = []
    links: dict[str, str] = {}
    for site in sites:
        missing = [key for key in ("name", "root", "artifact") if not site.get(key)]
        if missing:
            faults.append(f"{site.get('name', '?')}: {' and '.join(missing)} must be given")
            continue
        root = str(site["root"]).rstrip("/")
        if root in links:
            faults.append(f"{site['name']}: {links[root]} is served from {root}, too")
        links[root] = str(site["name"])
    if faults:
        raise AnsibleFilterError("static_site_sites: " + "; ".join(faults))
    releases = [_release(site, keep) for site in sites]
    return placeable(releases) if place else releases


def _release(site: Mapping[str, Any], keep: int) -> dict[str, Any]:
    root = str(site["root"]).rstrip("/")
    releases = site.get("releases") or f"{root}.releases"
    optional = {key: site[key] for key in ("version", "owner") if site.get(key)}
    return {
        "name": site["name"],
        "directory": releases,
        "link": root,
        "artifact": {key: value for key, value in site["artifact"].items() if value is not None},
        "group": site.get("group") or WEB_GROUP,
        "keep": int(site.get("keep") or keep),
        **optional,
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"static_site_releases": static_site_releases}
