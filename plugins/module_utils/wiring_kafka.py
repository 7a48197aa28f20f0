# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says to the role kafka."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.plan import LOOPBACK, Placed, Plan

UNIT = "kafka.service"


def cluster_id(estate: str) -> str:
    """An id that is the same in every run: 16 bytes in URL-safe Base64 without padding.

    Kafka refuses one that begins with a hyphen.
    """
    digest = hashlib.sha256(f"berth kafka {estate}".encode()).digest()
    text = base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")
    return f"K{text[1:]}" if text.startswith("-") else text


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """One node that is broker and controller, with topics, and a user for each service."""
    options = plan.catalog.options["kafka"]
    ports = plan.component_ports
    return {
        "cluster_id": cluster_id(plan.catalog.estate),
        "node_id": 1,
        "admin_password": "{secret:kafka-admin}",
        "listeners": [{"name": "clients", "address": address(plan, host), "port": ports["kafka"]}],
        "controller_listener": {"address": LOOPBACK, "port": ports["kafka_controller"]},
        "jmx_exporter_port": ports["kafka_jmx_exporter"],
        "users": [_user(each) for each in plan.placed.values() if "kafka" in each.service["needs"]],
        "topics": [
            {"name": name, **{key: value for key, value in topic.items() if value is not None}}
            for name, topic in options["topics"].items()
        ],
        "heap": options.get("heap") or "",
        "settings": options.get("settings") or {},
    }


def address(plan: Plan, host: str) -> str:
    """A broker has one address for all of its clients, those on its own host too."""
    return plan.listen_addresses(host, "kafka")[-1]


def _user(each: Placed) -> dict[str, Any]:
    """A service writes to what it produces, and reads what it consumes in groups of its own."""
    given = each.service["kafka"]
    produce, consume = given.get("produce") or [], given.get("consume") or []
    acls: list[dict[str, Any]] = [
        {
            "resource": "topic",
            "name": topic,
            "operations": [
                *(["read"] if topic in consume else []),
                *(["write"] if topic in produce else []),
                "describe",
            ],
        }
        for topic in dict.fromkeys([*produce, *consume])
    ]
    if consume:
        acls.append(
            {
                "resource": "group",
                "name": each.values["kafka.group"],
                "pattern": "prefixed",
                "operations": ["read", "describe"],
            }
        )
    return {
        "name": each.values["kafka.user"],
        "password": f"{{secret:kafka-{each.name}}}",
        "acls": acls,
    }


def probes(plan: Plan, host: str) -> list[dict[str, Any]]:
    """The broker answers its clients."""
    return [
        {
            "name": "kafka",
            "type": "kafka",
            "address": address(plan, host),
            "port": plan.component_ports["kafka"],
            "retries": 10,
            "interval": 2,
        }
    ]
