# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Kafka UI's settings: Kafdrop below a path, signed in to Kafka as a user of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka import property_value, text
from ansible_collections.berth.platform.plugins.module_utils.schema_registry import (
    BROKER,
    HEAP,
    USER,
    login,
)

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\]-]*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_URL = re.compile(r"https?://[^\s]+")


def settings(node: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """application.properties' keys and values; what is `given` wins, null leaves a key out.

    `node` has address, port, path, brokers and schema_registry, as the role's variables do.
    """
    wanted: dict[str, Any] = {
        "server.address": node["address"],
        "server.port": node["port"],
        "server.servlet.context-path": str(node["path"]) or "/",
        # Health is on the same port, so that it has one to be kept and probed.
        "management.server.port": node["port"],
        "management.endpoints.web.exposure.include": "health,info",
        "kafka.brokerConnect": ",".join(map(str, node["brokers"])),
        "schemaregistry.connect": node["schema_registry"] or None,
        # It knows no users: what it may do, everybody may who reaches it.
        "topic.createEnabled": False,
        "topic.deleteEnabled": False,
        "cors.enabled": False,
        # Its own pages are all that it is for.
        "spring.jmx.enabled": False,
    }
    wanted.update(given)
    return {
        name: property_value(text(value)) for name, value in wanted.items() if value is not None
    }


def client(user: str, password: str) -> dict[str, str]:
    """kafka.properties' keys and values: how Kafka's client signs in."""
    wanted = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": login(user, password),
    }
    return {name: property_value(value) for name, value in wanted.items()}


def faults(node: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong, each with its key and what would be right.

    `node` also has user, password and heap.
    """
    found = []
    if not node["brokers"]:
        found.append("kafka_ui_kafka_brokers is empty: list brokers as address:port")
    found += [
        f"kafka_ui_kafka_brokers: {str(broker)!r}: write address:port"
        for broker in node["brokers"]
        if not BROKER.fullmatch(str(broker))
    ]
    if not USER.fullmatch(str(node["user"])):
        found.append(
            f"kafka_ui_kafka_user {str(node['user'])!r}: use letters, digits, dots, hyphens and "
            "underscores"
        )
    if not node["password"]:
        found.append(
            f"kafka_ui_kafka_password is empty: give the password of the user {node['user']} "
            "of Kafka"
        )
    if not _PATH.fullmatch(str(node["path"])):
        found.append(
            f"kafka_ui_path {str(node['path'])!r}: write a path like /kafka-ui, or nothing for /"
        )
    if node["schema_registry"] and not _URL.fullmatch(str(node["schema_registry"])):
        found.append(
            f"kafka_ui_schema_registry {str(node['schema_registry'])!r}: write a URL like "
            "http://127.0.0.1:8081/apis/ccompat/v7"
        )
    if not HEAP.fullmatch(str(node["heap"])):
        found.append(f"kafka_ui_heap {str(node['heap'])!r}: write an amount like 256m or 1g")
    found += [
        f"kafka_ui_settings: {str(name)!r} is no key: write one like server.tomcat.threads.max"
        for name in given
        if not _KEY.fullmatch(str(name))
    ]
    return found
