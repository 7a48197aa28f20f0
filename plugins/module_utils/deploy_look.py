# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services of a host need a deploy: two commands and some small files for all of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.deploy import (
    STATE_DIRECTORY,
    disk_digest,
    leads_to,
    load,
    reasons,
)
from ansible_collections.berth.platform.plugins.module_utils.host_files import read
from ansible_collections.berth.platform.plugins.module_utils.hostfacts import parse_show
from ansible_collections.berth.platform.plugins.module_utils.port_switch_host import Host

_ACTIVE = ("active", "reloading", "deactivating")


def due_services(
    instances: Sequence[Mapping[str, Any]],
    digests: Mapping[str, str],
    releases: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Services with an instance that is not as it should be.

    O(digests) are, by unit, of what the slots are to be started with. O(releases) says of each
    service which C(version) is wanted and which is C(current).
    """
    if not instances:
        return []
    active = _active([f"{slot['unit']}.service" for each in instances for slot in _slots(each)])
    loaded = [(each.address, each.port, each.to) for each in Host().loaded()]
    due = []
    for each in instances:
        slots = {name: each["slots"][name] for name in sorted(each["slots"])}
        state = load(read(f"{STATE_DIRECTORY}/{each['unit']}.json"))
        live = slots[state.live if state else "a"]
        release = releases[each["service"]]
        ports = {name: int(slot["port"]) for name, slot in slots.items()}
        why = reasons(
            state=state,
            active=f"{live['unit']}.service" in active,
            leads=leads_to(loaded, each["address"], int(each["port"]), ports),
            version=str(release["version"]),
            current=release["current"],
            wanted={name: digests.get(slot["unit"], "") for name, slot in slots.items()},
            found={name: disk_digest(slot["paths"], _content) for name, slot in slots.items()},
            links={name: _linked(slot["link"]) for name, slot in slots.items()},
        )
        if why and each["service"] not in due:
            due.append(str(each["service"]))
    return due


def _slots(instance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(instance["slots"].values())


def _active(units: Sequence[str]) -> set[str]:
    argv = ["systemctl", "show", "--no-pager", "--property=Id,ActiveState", "--", *units]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return set()
    blocks = parse_show(done.stdout)
    return {block.get("Id", "") for block in blocks if block.get("ActiveState") in _ACTIVE}


def _content(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def _linked(path: str) -> str:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""
