# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says to the role pm2."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.plan import Placed
from ansible_collections.berth.platform.plugins.module_utils.quantities import seconds

PACKAGES = ("logrotate", "nodejs", "npm")


def unit(user: str) -> str:
    """The unit of a user's daemon."""
    return f"pm2-{user}.service"


def application(each: Placed, role: Mapping[str, Any]) -> dict[str, Any]:
    """An application of PM2, from what the role app is told of the service.

    C(cwd) is the link to the active release; whoever calls the role pm2 puts the release in its
    place, since PM2 restarts what is somewhere else now.
    """
    service = each.service
    (instance,) = role["instances"]
    script, *arguments = shlex.split(instance["command"])
    found: dict[str, Any] = {
        "service": each.name,
        "name": each.unit,
        "user": each.user,
        "cwd": f"{each.home}/current",
        "script": script,
        "args": arguments,
        "exec_mode": "cluster" if service["pm2"].get("cluster") else "fork",
        "instances": service["pm2"].get("processes") or 1,
        "interpreter": service["pm2"].get("interpreter"),
        "wait_ready": bool(service["pm2"].get("wait_ready")),
        "env": instance["environment"],
        "secret_env": instance["secret_environment"],
        "ports": [instance["port"]] if instance["port"] is not None else [],
        "kill_timeout": service["stop_seconds"] * 1000,
        "listen_timeout": int(seconds(service["health"].get("start_timeout") or "60s") * 1000),
        "max_memory_restart": service["limits"].get("memory"),
        "out_file": role.get("log", {}).get("stdout"),
        "error_file": role.get("log", {}).get("stderr") or role.get("log", {}).get("stdout"),
    }
    return {key: value for key, value in found.items() if value is not None}


def users(applications: list[tuple[Placed, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The daemons' users, with what their services say of them."""
    found: dict[str, dict[str, Any]] = {}
    for each, _application in applications:
        entry = found.setdefault(each.user, {"name": each.user, "group": each.group})
        if "kill_signal" in each.service.given:
            entry["stop_signal"] = each.service["kill_signal"]
        if each.service["log"]:
            entry["log_rotate"] = {
                "frequency": each.service["log"]["frequency"],
                "rotate": each.service["log"]["rotate"],
            }
    return list(found.values())
