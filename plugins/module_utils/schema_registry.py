# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The schema registry's settings: Apicurio Registry with its records in Kafka."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka import property_value, text

# Beside the journal: where snapshots are noted, and what is told of changes.
SNAPSHOTS, EVENTS = "-snapshots", "-events"

_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,230}")
USER = re.compile(r"[A-Za-z0-9._-]+")
BROKER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
HEAP = re.compile(r"[1-9]\d*[kmgKMG]")
_KEY = re.compile(r'[A-Za-z0-9][A-Za-z0-9._"-]*')


def settings(registry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """application.properties' keys and values; what is `given` wins, null leaves a key out.

    `registry` has address, port, management_port, brokers, user, password, topic, compatibility
    and data_directory, as the role's variables do.
    """
    topic = str(registry["topic"])
    derived: dict[str, Any] = {
        "quarkus.http.host": registry["address"],
        "quarkus.http.port": registry["port"],
        # Health and metrics. Elsewhere than on loopback it would have to be guarded, too.
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": registry["management_port"],
        # Each probe would be a line.
        "quarkus.http.access-log.enabled": False,
        # The journal adds the time.
        "quarkus.log.console.format": "%p [%c{1.}] %m%n",
        # Each start prints some hundreds of settings.
        'quarkus.log.category."org.apache.kafka".level': "WARN",
        "apicurio.storage.kind": "kafkasql",
        "apicurio.storage.snapshot.location": f"{registry['data_directory']}/snapshots",
        "apicurio.kafkasql.bootstrap.servers": ",".join(map(str, registry["brokers"])),
        # Its own user may not, and a topic with the brokers' retention would lose schemas.
        "apicurio.kafkasql.topic.auto-create": False,
        "apicurio.kafkasql.topic": topic,
        "apicurio.kafkasql.snapshots.topic": topic + SNAPSHOTS,
        "apicurio.events.kafka.topic": topic + EVENTS,
        # Each start reads all from the beginning, in a group of its own.
        "apicurio.kafkasql.consumer.group-prefix": f"{registry['user']}-",
        "apicurio.kafka.common.security.protocol": "SASL_PLAINTEXT",
        "apicurio.kafka.common.sasl.mechanism": "SCRAM-SHA-512",
        "apicurio.rules.global.compatibility": registry["compatibility"],
    }
    jaas = login(str(registry["user"]), str(registry["password"]))
    wanted = {name: literal(text(value)) for name, value in derived.items()}
    wanted["apicurio.kafka.common.sasl.jaas.config"] = literal(jaas)
    for name, value in given.items():
        if value is None:
            wanted.pop(name, None)
        else:
            # Not literal: who gives a setting may refer to others.
            wanted[name] = text(value)
    return {name: property_value(value) for name, value in wanted.items()}


def literal(value: str) -> str:
    """A value in which Quarkus finds no expression."""
    return value.replace("$", "\\$")


def login(user: str, password: str) -> str:
    """A line for JAAS, whose texts are quoted with backslashes."""
    quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in (user, password)]
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return f'{module} required username="{quoted[0]}" password="{quoted[1]}";'


def faults(registry: Mapping[str, Any], given: Mapping[str, Any], heap: str) -> list[str]:
    """Everything that is wrong, each with its key and what would be right."""
    found = []
    if not registry["brokers"]:
        found.append("schema_registry_kafka_brokers is empty: list brokers as address:port")
    found += [
        f"schema_registry_kafka_brokers: {str(broker)!r}: write address:port"
        for broker in registry["brokers"]
        if not BROKER.fullmatch(str(broker))
    ]
    if not registry["password"]:
        found.append(
            "schema_registry_kafka_password is empty: give the password of the user "
            f"{registry['user']} of Kafka"
        )
    if not USER.fullmatch(str(registry["user"])):
        found.append(
            f"schema_registry_kafka_user {str(registry['user'])!r}: use letters, digits, dots, "
            "hyphens and underscores"
        )
    if not _TOPIC_NAME.fullmatch(str(registry["topic"])):
        found.append(
            f"schema_registry_topic {str(registry['topic'])!r}: use at most 230 letters, digits, "
            "dots, hyphens and underscores"
        )
    if registry["port"] == registry["management_port"]:
        found.append(
            f"schema_registry_management_port {registry['port']}: "
            "give another than schema_registry_port"
        )
    if not HEAP.fullmatch(heap):
        found.append(f"schema_registry_heap {heap!r}: write an amount like 512m or 1g")
    found += [
        f"schema_registry_settings: {str(name)!r} is no key: write one like quarkus.http.host"
        for name in given
        if not _KEY.fullmatch(str(name))
    ]
    return found
