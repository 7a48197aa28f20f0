# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kafka's settings, users, ACLs and topics: what is wanted, what is there, what differs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.kafka_protocol import (
    ALL_BROKERS,
    ITERATIONS,
    MECHANISM,
    TOPIC,
    Acl,
    Resource,
    Topic,
    salted_password,
)

REMOVABLE = ("users", "acls")
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
OPERATIONS = {
    "all": 2,
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "cluster_action": 9,
    "describe_configs": 10,
    "alter_configs": 11,
    "idempotent_write": 12,
}
ALLOW = 3
CONTROLLER_USER = "controller"
CONTROLLER_LISTENER = "CONTROLLER"
# Of the file system, for the topics' data; the rest is for the segments that are still written,
# which no retention removes, and for indexes.
RETENTION_SHARE = 0.6
_MIB = 1024 * 1024
_LEAST_RETENTION = 64 * _MIB
# A broker is served by the page cache, not by its heap: more than this only makes for long pauses.
_HEAP_SHARE, _LEAST_HEAP_MB, _MOST_HEAP_MB = 0.25, 256, 6144

_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_SETTING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LISTENER = re.compile(r"[a-z][a-z0-9_]*")
_USER = re.compile(r"[A-Za-z0-9._-]+")
_HEAP = re.compile(r"[1-9]\d*[kmgKMG]")


class KafkaFault(ValueError):
    """One or more faults, all of them in the message; never holds a password."""


# --- the server's files ---------------------------------------------------------------------------


def heap(memory_mb: int, given: str = "") -> str:
    """The JVM's heap: what is given, or a quarter of the memory, at most 6 GiB."""
    if given:
        if not _HEAP.fullmatch(given):
            raise KafkaFault(f"heap {given!r}: write an amount like 512m or 4g")
        return given.lower()
    share = int(memory_mb * _HEAP_SHARE)
    return f"{max(_LEAST_HEAP_MB, min(share, _MOST_HEAP_MB))}m"


def controller_password(admin_password: str) -> str:
    """What controllers know one another by: the same on all nodes, and not the admin's password.

    SCRAM is of no use there: its credentials are in the metadata that controllers have yet to
    agree on. PLAIN sends its password as it is, so it must be good for nothing else.
    """
    return hmac.new(admin_password.encode(), b"berth kafka controller", hashlib.sha256).hexdigest()


def format_arguments(cluster_id: str, config: str, user: str, password: str) -> list[str]:
    """The arguments of kafka-storage, one a line in a file that it reads by `@file`.

    argparse4j, by which it reads them, takes that notation, so that nothing is in argv. The
    password is salted already, which also spares its commas and brackets an encoding. The salt is
    derived: what is random would be another file in every run.
    """
    key = hmac.new(password.encode(), b"berth kafka salt\0" + cluster_id.encode(), hashlib.sha256)
    salt = key.digest()
    fields = {
        "name": user,
        "salt": f'"{_base64(salt)}"',
        "saltedpassword": f'"{_base64(salted_password(password, salt))}"',
        "iterations": str(ITERATIONS),
    }
    scram = ",".join(f"{name}={value}" for name, value in fields.items())
    arguments = ["format", "--ignore-formatted", "--cluster-id", cluster_id, "--config", config]
    return [*arguments, "--add-scram", f"{MECHANISM}=[{scram}]"]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def settings(
    node: Mapping[str, Any], given: Mapping[str, Any], *, admin: str = "", password: str = ""
) -> dict[str, str]:
    """server.properties' keys and values; what is `given` wins, null leaves a key out.

    `node` has cluster_id, node_id, roles, listeners, controller_listener, controllers, brokers
    and data_directory, as the role's variables do.
    """
    roles = list(node["roles"])
    brokers = int(node["brokers"])
    listeners = list(node["listeners"]) if "broker" in roles else []
    controller = node["controller_listener"]
    own = {"id": node["node_id"], "address": controller["address"], "port": controller["port"]}
    voters = list(node["controllers"]) or [own]
    replicas = min(3, brokers)
    in_sync = 2 if brokers >= 3 else 1
    names = [str(listener["name"]).upper() for listener in node["listeners"]]
    secret = controller_password(password)
    binds = [
        f"{name}://{_endpoint(listener)}"
        for name, listener in zip(names, listeners, strict=bool(listeners))
    ]
    if "controller" in roles:
        binds.append(f"{CONTROLLER_LISTENER}://{_endpoint(controller)}")
    prefix = f"listener.name.{CONTROLLER_LISTENER.lower()}"
    wanted: dict[str, Any] = {
        "process.roles": ",".join(roles),
        "node.id": node["node_id"],
        "controller.quorum.voters": ",".join(f"{v['id']}@{_endpoint(v)}" for v in voters),
        "controller.listener.names": CONTROLLER_LISTENER,
        "listeners": ",".join(binds),
        "listener.security.protocol.map": ",".join(
            f"{name}:SASL_PLAINTEXT" for name in [*names, CONTROLLER_LISTENER]
        ),
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.controller.protocol": "PLAIN",
        f"{prefix}.sasl.enabled.mechanisms": "PLAIN",
        f"{prefix}.plain.sasl.jaas.config": _login(
            "plain.PlainLoginModule",
            {
                "username": CONTROLLER_USER,
                "password": secret,
                f"user_{CONTROLLER_USER}": secret,
            },
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": False,
        "super.users": f"User:{admin};User:{CONTROLLER_USER}",
        "log.dirs": node["data_directory"],
        "auto.create.topics.enable": False,
        "unclean.leader.election.enable": False,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "log.retention.hours": 168,
    }
    if "broker" in roles:
        wanted["advertised.listeners"] = ",".join(
            f"{name}://{listener.get('advertised') or _endpoint(listener)}"
            for name, listener in zip(names, listeners, strict=True)
        )
        wanted["inter.broker.listener.name"] = names[0]
        wanted["sasl.mechanism.inter.broker.protocol"] = MECHANISM
        wanted[f"listener.name.{names[0].lower()}.{MECHANISM.lower()}.sasl.jaas.config"] = _login(
            "scram.ScramLoginModule", {"username": admin, "password": password}
        )
        for name in names[1:]:
            wanted[f"listener.name.{name.lower()}.{MECHANISM.lower()}.sasl.jaas.config"] = _login(
                "scram.ScramLoginModule", {}
            )
    wanted.update(given)
    faults = [
        f"setting {name!r}: no such key can stand in server.properties"
        for name in wanted
        if not _SETTING.fullmatch(name)
    ]
    faults += [
        f"setting {name}: write a single value, of a list its items with commas between"
        for name, value in wanted.items()
        if isinstance(value, (Mapping, list, tuple))
    ]
    if faults:
        raise KafkaFault("\n".join(faults))
    return {
        name: property_value(text(value)) for name, value in wanted.items() if value is not None
    }


def _endpoint(listener: Mapping[str, Any]) -> str:
    address = str(listener["address"])
    return f"[{address}]:{listener['port']}" if ":" in address else f"{address}:{listener['port']}"


def _login(module: str, options: Mapping[str, str]) -> str:
    """A line for JAAS, whose texts are quoted with backslashes."""
    words = [f"org.apache.kafka.common.security.{module} required"]
    for name, value in options.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        words.append(f'{name}="{quoted}"')
    return " ".join(words) + ";"


def property_value(value: str) -> str:
    """As java.util.Properties reads it: ISO 8859-1 with backslashes and \\uXXXX."""
    out = []
    for char in value:
        if char == "\\":
            out.append("\\\\")
        elif char in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out += [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
    escaped = "".join(out)
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def text(value: Any) -> str:
    """A value of a setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- what is wrong with what is asked for ---------------------------------------------------------


def faults(
    node: Mapping[str, Any],
    *,
    admin: str,
    password: str,
    users: Sequence[Mapping[str, Any]] = (),
    topics: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Everything that is wrong, each with its key and what would be right."""
    found = []
    cluster_id, node_id = str(node["cluster_id"]), node["node_id"]
    if not is_cluster_id(cluster_id):
        found.append(
            f"kafka_cluster_id {cluster_id!r}: write 16 bytes in URL-safe Base64 without padding, "
            "once for the cluster's life, as python3 -c 'import base64, uuid; "
            "print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22])' gives them"
        )
    if not password:
        found.append("kafka_admin_password is empty: give the super user a password")
    found += _role_faults(node)
    listeners = list(node["listeners"])
    names = [str(listener["name"]) for listener in listeners]
    found += [
        f"kafka_listeners: name {name!r}: use lower-case letters, digits and _, and not controller"
        for name in names
        if not _LISTENER.fullmatch(name) or name == CONTROLLER_LISTENER.lower()
    ]
    found += [f"kafka_listeners: {name} is listed twice" for name in _twice(names)]
    ports = [listener["port"] for listener in [*listeners, node["controller_listener"]]]
    found += [
        f"kafka_listeners: port {port} is used twice: Kafka wants another for each listener, "
        "whatever the address"
        for port in _twice(ports)
    ]
    voters = [voter["id"] for voter in node["controllers"]]
    found += [f"kafka_controllers: id {voter} is listed twice" for voter in _twice(voters)]
    if voters and ("controller" in node["roles"]) != (node_id in voters):
        found.append(
            f"kafka_node_id {node_id}: list it in kafka_controllers if, and only if, "
            "kafka_roles has controller"
        )
    found += [f"kafka_users: {name} is listed twice" for name in _twice(u["name"] for u in users)]
    for name in [admin, *(str(user["name"]) for user in users)]:
        if not _USER.fullmatch(name):
            found.append(f"user {name!r}: use letters, digits, dots, hyphens and underscores")
    for name in (admin, CONTROLLER_USER):
        if any(user["name"] == name for user in users):
            found.append(f"kafka_users: {name} is a super user of the role's own: use another name")
    found += [f"user {user['name']} has no password" for user in users if not user.get("password")]
    for user in users:
        try:
            wanted_acls([user])
        except KafkaFault as error:
            found.append(str(error))
    found += _topic_faults(topics, int(node["brokers"]))
    return found


def _role_faults(node: Mapping[str, Any]) -> list[str]:
    found = []
    if not node["roles"]:
        found.append("kafka_roles is empty: give broker, controller or both")
    if "broker" in node["roles"] and not node["listeners"]:
        found.append("kafka_listeners is empty: a broker needs one")
    if "controller" not in node["roles"] and not node["controllers"]:
        found.append("kafka_controllers is empty: a broker alone needs to know its controllers")
    if int(node["brokers"]) < 1:
        found.append(f"kafka_brokers {node['brokers']}: give the number of brokers, 1 or more")
    return found


def _topic_faults(topics: Sequence[Mapping[str, Any]], brokers: int) -> list[str]:
    found = [f"kafka_topics: {name} is listed twice" for name in _twice(t["name"] for t in topics)]
    for topic in topics:
        name, replication = topic["name"], int(topic.get("replication") or 0)
        if not _TOPIC_NAME.fullmatch(str(name)):
            found.append(f"topic {name!r}: use up to 249 letters, digits, dots, hyphens and _")
        if int(topic.get("partitions") or 1) < 1:
            found.append(f"topic {name}: partitions {topic['partitions']}: give 1 or more")
        if not 0 <= replication <= brokers:
            found.append(
                f"topic {name}: replication {replication}: give at most the number of brokers, "
                f"{brokers} (kafka_brokers)"
            )
    return found


def is_cluster_id(value: str) -> bool:
    """Whether Kafka would take it: a UUID in URL-safe Base64, and not one it keeps for itself."""
    if len(value) != 22 or value.startswith("-"):
        return False
    try:
        return len(base64.b64decode(value + "==", b"-_", validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _twice(names: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


# --- users, ACLs and topics -----------------------------------------------------------------------


def wanted_acls(users: Sequence[Mapping[str, Any]]) -> set[Acl]:
    """The rules of all users; everything else is denied, as no rule allows it."""
    found = set()
    for user in users:
        for rule in user.get("acls") or []:
            resource = str(rule["resource"])
            name = "kafka-cluster" if resource == "cluster" else str(rule.get("name") or "")
            if not name:
                raise KafkaFault(f"user {user['name']}: an ACL on a {resource} needs its name")
            for operation in rule["operations"]:
                found.add(
                    Acl(
                        RESOURCES[resource],
                        name,
                        PATTERNS[str(rule.get("pattern") or "literal")],
                        f"User:{user['name']}",
                        str(rule.get("host") or "*"),
                        OPERATIONS[str(operation)],
                        ALLOW,
                    )
                )
    return found


def wanted_topics(topics: Sequence[Mapping[str, Any]], brokers: int) -> dict[str, Topic]:
    """The topics with everything said."""
    return {
        str(topic["name"]): Topic(
            int(topic.get("partitions") or 1),
            int(topic.get("replication") or 0) or min(3, brokers),
            {
                str(key): text(value)
                for key, value in (topic.get("config") or {}).items()
                if value is not None
            },
        )
        for topic in topics
    }


def retention_bytes(disk: int, topics: Mapping[str, Topic], brokers: int) -> int:
    """What each partition may hold so that all of them fit in their share of the file system.

    Partitions count once for each replica. Those that topics limit themselves count, too.
    """
    replicas = sum(topic.partitions * topic.replication for topic in topics.values())
    here = max(1, -(-replicas // brokers))
    share = int(disk * RETENTION_SHARE) // here
    return max(_LEAST_RETENTION, share // _MIB * _MIB)


@dataclass(frozen=True)
class State:
    """Users with whether their password is the wanted one, rules, topics and brokers' settings."""

    users: Mapping[str, bool] = field(default_factory=dict)
    acls: frozenset[Acl] = frozenset()
    topics: Mapping[str, Topic] = field(default_factory=dict)
    broker: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What has to be asked of the cluster, and the same in words."""

    passwords: list[str] = field(default_factory=list)
    gone_users: list[str] = field(default_factory=list)
    new_acls: list[Acl] = field(default_factory=list)
    gone_acls: list[Acl] = field(default_factory=list)
    new_topics: dict[str, Topic] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    configs: dict[Resource, dict[str, str | None]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.words)


def difference(
    users: Iterable[str],
    acls: Iterable[Acl],
    topics: Mapping[str, Topic],
    broker: Mapping[str, str],
    actual: State,
    *,
    keep_users: Iterable[str],
    remove: Iterable[str],
) -> Changes:
    """From `actual` to what is wanted. No topic is removed, and none loses partitions."""
    change = Changes()
    remove = set(remove)
    wanted_users = sorted(set(users))
    for name in wanted_users:
        if not actual.users.get(name, False):
            change.passwords.append(name)
            there = name in actual.users
            change.words.append(f"user {name}: {'password changed' if there else 'added'}")
    if "users" in remove:
        change.gone_users.extend(sorted(set(actual.users) - set(wanted_users) - set(keep_users)))
        change.words.extend(f"user {name}: removed" for name in change.gone_users)
    wanted = set(acls)
    change.new_acls.extend(sorted(wanted - actual.acls))
    change.words.extend(f"{acl_words(acl)}: added" for acl in change.new_acls)
    if "acls" in remove:
        change.gone_acls.extend(sorted(actual.acls - wanted))
        change.words.extend(f"{acl_words(acl)}: removed" for acl in change.gone_acls)
    for name, topic in sorted(topics.items()):
        _compare_topic(name, topic, actual.topics.get(name), change)
    _compare_config(ALL_BROKERS, "brokers", broker, actual.broker, change)
    return change


def _compare_topic(name: str, topic: Topic, there: Topic | None, change: Changes) -> None:
    if there is None:
        change.new_topics[name] = topic
        change.words.append(f"topic {name}: added")
        return
    if topic.partitions > there.partitions:
        change.partitions[name] = topic.partitions
        change.words.append(f"topic {name}: partitions {there.partitions} -> {topic.partitions}")
    elif topic.partitions < there.partitions:
        change.warnings.append(
            f"topic {name} has {there.partitions} partitions, {topic.partitions} are asked for: "
            "Kafka cannot take one away. List what it has, or make another topic"
        )
    if topic.replication != there.replication:
        change.warnings.append(
            f"topic {name} has {there.replication} replicas, {topic.replication} are asked for: "
            "move them with kafka-reassign-partitions"
        )
    _compare_config((TOPIC, name), f"topic {name}", topic.config, there.config, change)


def _compare_config(
    resource: Resource,
    called: str,
    wanted: Mapping[str, str],
    there: Mapping[str, str],
    change: Changes,
) -> None:
    keys = sorted({*wanted, *there} if resource != ALL_BROKERS else wanted)
    due = {key: wanted.get(key) for key in keys if wanted.get(key) != there.get(key)}
    if due:
        change.configs[resource] = due
        for key, value in due.items():
            after = "default" if value is None else value
            change.words.append(f"{called}: {key} {there.get(key, 'default')} -> {after}")


def acl_words(acl: Acl) -> str:
    """A rule as people say it."""
    kind = _named(RESOURCES, acl.resource_type)
    prefix = "*" if acl.pattern == PATTERNS["prefixed"] else ""
    where = "" if acl.host == "*" else f" from {acl.host}"
    verb = "may" if acl.permission == ALLOW else "may not"
    operation = _named(OPERATIONS, acl.operation)
    return f"ACL {acl.principal} {verb} {operation} {kind} {acl.resource_name}{prefix}{where}"


def _named(numbers: Mapping[str, int], number: int) -> str:
    return next((name for name, value in numbers.items() if value == number), str(number))
