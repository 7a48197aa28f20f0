# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says to the role redis."""

from __future__ import annotations

from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.catalog import redis_listener
from ansible_collections.berth.platform.plugins.module_utils.plan import LOOPBACK, Placed, Plan


def unit(instance: str) -> str:
    """The unit of an instance."""
    return f"redis-server@{instance}.service"


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """The instances of a host, each with a user for each service that uses it."""
    instances = []
    for name, options in plan.catalog.options["redis"]["instances"].items():
        listener = redis_listener(name)
        instances.append(
            {
                "name": name,
                "port": plan.component_ports[listener],
                "listen": plan.listen_addresses(host, listener),
                "users": [_user(each) for each in _services(plan, name)],
                **{key: value for key, value in options.items() if value not in (None, {})},
            }
        )
    return {
        "instances": instances,
        "admin_password": "{secret:redis-admin}",
        "probe_password": "{secret:redis-probe}",
    }


def _services(plan: Plan, instance: str) -> list[Placed]:
    return [
        each
        for each in plan.placed.values()
        if "redis" in each.service["needs"] and each.redis == instance
    ]


def _user(each: Placed) -> dict[str, Any]:
    """A service keeps to keys and channels under its prefix, unless it says more."""
    given = each.service["redis"]
    own = [f"{each.values['redis.prefix']}*"]
    return {
        "name": each.values["redis.user"],
        "password": f"{{secret:redis-{each.name}}}",
        "keys": given.get("keys") or own,
        "channels": given.get("channels") or own,
        "commands": given.get("commands") or [],
    }


def probes(plan: Plan) -> list[dict[str, Any]]:
    """Every instance answers, and every service gets in."""
    result: list[dict[str, Any]] = []
    for name in plan.catalog.options["redis"]["instances"]:
        where = {
            "type": "redis",
            "address": LOOPBACK,
            "port": plan.component_ports[redis_listener(name)],
            "retries": 5,
            "interval": 1,
        }
        result.append(
            {
                "name": f"redis {name}",
                "user": "probe",
                "password": "{secret:redis-probe}",
                **where,
            }
        )
        result += [
            {
                "name": f"redis {each.values['redis.user']}",
                "user": each.values["redis.user"],
                "password": f"{{secret:redis-{each.name}}}",
                **where,
            }
            for each in _services(plan, name)
        ]
    return result
