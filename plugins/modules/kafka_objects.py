#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kafka_objects
short_description: Users, ACLs and topics of Kafka in one batch
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Compares the cluster with what is listed and makes only the difference, in one call.
  - Speaks Kafka's protocol by Python's standard library, so no JVM is started; reading takes
    some tens of milliseconds. Brokers from 3.0 on with SASL/SCRAM-SHA-512 are understood.
  - Whether a user's password is the wanted one is found out by signing in with it.
  - Topics are never removed and never lose partitions; a warning says so.
options:
  address:
    description: The address of a broker.
    type: str
    default: 127.0.0.1
  port:
    description: The port of a broker's listener.
    type: int
    default: 9092
  admin_user:
    description: The super user to sign in as.
    type: str
    default: admin
  admin_password:
    description: Its password.
    type: str
    required: true
  cluster_id:
    description: The id that the cluster must have. Nothing is changed in another one.
    type: str
  brokers:
    description: The number of brokers of the cluster.
    type: int
    default: 1
  users:
    description: The users.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      password:
        description: Its password, which the broker is only sent salted.
        type: str
        required: true
      acls:
        description: What it may do. All else is denied.
        type: list
        elements: dict
        default: []
        suboptions:
          resource:
            description: Kind of what it is about.
            type: str
            choices: [topic, group, cluster, transactional_id]
            required: true
          name:
            description: Its name, or V(*) for all. Not needed for the cluster.
            type: str
          pattern:
            description: Whether O(users[].acls[].name) is the whole name or its beginning.
            type: str
            choices: [literal, prefixed]
            default: literal
          operations:
            description: What is allowed.
            type: list
            elements: str
            choices: [all, read, write, create, delete, alter, describe, cluster_action,
                      describe_configs, alter_configs, idempotent_write]
            required: true
          host:
            description: The address that the client must come from.
            type: str
            default: "*"
  topics:
    description: The topics.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      partitions:
        description: Number of partitions.
        type: int
        default: 1
      replication:
        description: Number of replicas. By default three, or as many as there are brokers.
        type: int
        default: 0
      config:
        description: Its settings. What is not named has the brokers' default.
        type: dict
        default: {}
  retention_directory:
    description:
      - Directory whose file system decides C(log.retention.bytes) of all brokers, 60 per cent of it
        divided by the partitions of O(topics) that a broker holds.
      - Untouched when not given.
    type: path
  retention_bytes:
    description: C(log.retention.bytes) of all brokers; V(-1) for no limit. Wins over a derived one.
    type: int
  remove:
    description: What is removed when it is not listed.
    type: list
    elements: str
    choices: [users, acls]
    default: [users, acls]
  wait:
    description: Seconds to wait for the broker to answer.
    type: int
    default: 60
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - A broker that does not run has nothing to compare with; no change is predicted then.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Sales can write its orders
  berth.platform.kafka_objects:
    admin_password: "{{ kafka_admin_password }}"
    users:
      - name: sales
        password: "{{ sales_password }}"
        acls: [{resource: topic, name: orders, operations: [write, describe]}]
    topics:
      - {name: orders, partitions: 6, config: {retention.ms: 86400000}}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode, in words.
  returned: success
  type: list
  elements: str
  sample: ["user sales: added", "topic orders: partitions 3 -> 6"]
running:
  description: Whether a broker answers. Always V(true) but in check mode.
  returned: success
  type: bool
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.kafka import (
    OPERATIONS,
    PATTERNS,
    REMOVABLE,
    RESOURCES,
    Changes,
    KafkaFault,
    State,
    difference,
    retention_bytes,
    wanted_acls,
    wanted_topics,
)
from ansible_collections.berth.platform.plugins.module_utils.kafka_protocol import (
    ALL_BROKERS,
    TOPIC,
    AuthenticationFailed,
    Connection,
    KafkaError,
    NotReachable,
    Resource,
    Topic,
    signs_in,
)

# The other nodes learn of a change by the metadata log, within milliseconds.
SETTLE_SECONDS = 10


class Cluster:
    """A connection as the super user, and what is asked over it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.passwords = {user["name"]: user["password"] for user in params["users"]}
        self.connection = self._connect()

    def _connect(self) -> Connection:
        deadline = time.monotonic() + self.params["wait"]
        while True:
            try:
                # A broker answers once it has read the metadata; until then it knows no user.
                return Connection(
                    self.params["address"],
                    self.params["port"],
                    self.params["admin_user"],
                    self.params["admin_password"],
                )
            except NotReachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def state(self, names: list[str]) -> tuple[str, State]:
        identity, _brokers, found = self.connection.cluster()
        there = [name for name in names if name in found]
        resources: list[Resource] = [ALL_BROKERS, *((TOPIC, name) for name in there)]
        configs = self.connection.configs(resources)
        topics = {name: Topic(*found[name], configs[TOPIC, name]) for name in there}
        users = self.connection.users()
        right = {name: name in self.passwords and self._signs_in(name) for name in sorted(users)}
        acls = frozenset(self.connection.acls())
        return identity, State(right, acls, topics, configs.get(ALL_BROKERS, {}))

    def _signs_in(self, user: str) -> bool:
        return signs_in(self.params["address"], self.params["port"], user, self.passwords[user])

    def wait_for_brokers(self) -> None:
        """A new cluster's brokers come one by one, and replicas need as many."""
        deadline = time.monotonic() + self.params["wait"]
        wanted = self.params["brokers"]
        while (there := self.connection.cluster()[1]) < wanted:
            if time.monotonic() > deadline:
                raise KafkaError(
                    f"{there} of {wanted} brokers are there: start the others, new topics need them"
                )
            time.sleep(0.2)

    def apply(self, changes: Changes) -> None:
        # Topics first: whoever gets a right can use it at once.
        ask = self.connection
        if changes.new_topics:
            self.wait_for_brokers()
            ask.create_topics(changes.new_topics)
        if changes.partitions:
            ask.create_partitions(changes.partitions)
        if changes.configs:
            ask.alter_configs(changes.configs)
        if changes.gone_acls:
            ask.delete_acls(changes.gone_acls)
        if changes.new_acls:
            ask.create_acls(changes.new_acls)
        if changes.passwords or changes.gone_users:
            passwords = {name: self.passwords[name] for name in changes.passwords}
            ask.alter_users(passwords, changes.gone_users)


def disk_size(path: str) -> int:
    """The bytes of the file system that holds a directory, or will hold it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def broker_settings(params: dict[str, Any], topics: dict[str, Topic]) -> dict[str, str]:
    if params["retention_bytes"] is not None:
        return {"log.retention.bytes": str(params["retention_bytes"])}
    if params["retention_directory"]:
        size = disk_size(params["retention_directory"])
        return {"log.retention.bytes": str(retention_bytes(size, topics, params["brokers"]))}
    return {}


def main() -> None:
    text = {"type": "str"}
    acl = {
        "resource": {"type": "str", "choices": list(RESOURCES), "required": True},
        "name": text,
        "pattern": {"type": "str", "choices": list(PATTERNS), "default": "literal"},
        "operations": {
            "type": "list",
            "elements": "str",
            "choices": list(OPERATIONS),
            "required": True,
        },
        "host": {"type": "str", "default": "*"},
    }
    user = {
        "name": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "acls": {"type": "list", "elements": "dict", "default": [], "options": acl},
    }
    topic = {
        "name": {"type": "str", "required": True},
        "partitions": {"type": "int", "default": 1},
        "replication": {"type": "int", "default": 0},
        "config": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 9092},
            "admin_user": {"type": "str", "default": "admin"},
            "admin_password": {"type": "str", "required": True, "no_log": True},
            "cluster_id": text,
            "brokers": {"type": "int", "default": 1},
            "users": {"type": "list", "elements": "dict", "default": [], "options": user},
            "topics": {"type": "list", "elements": "dict", "default": [], "options": topic},
            "retention_directory": {"type": "path"},
            "retention_bytes": {"type": "int"},
            "remove": {
                "type": "list",
                "elements": "str",
                "choices": list(REMOVABLE),
                "default": list(REMOVABLE),
            },
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        params["wait"] = 0
    try:
        acls = wanted_acls(params["users"])
        topics = wanted_topics(params["topics"], params["brokers"])
        run(module, acls, topics)
    except NotReachable as error:
        if module.check_mode:
            module.exit_json(changed=False, changes=[], running=False)
        module.fail_json(msg=f"Kafka does not answer: {error}")
    except AuthenticationFailed:
        module.fail_json(
            msg=f"Kafka refuses {params['admin_user']}: its password is not admin_password. It was "
            "set when the storage was formatted; give that one, or change it with "
            "kafka-configs --alter --entity-type users and then here"
        )
    except (KafkaError, KafkaFault) as error:
        module.fail_json(msg=f"Kafka: {error}")


def run(module: AnsibleModule, acls: set[Any], topics: dict[str, Topic]) -> None:
    params = module.params
    cluster = Cluster(params)
    brokers = broker_settings(params, topics)

    def compare() -> Changes:
        identity, actual = cluster.state(list(topics))
        if params["cluster_id"] and identity != params["cluster_id"]:
            module.fail_json(
                msg=f"this is cluster {identity}, not {params['cluster_id']}: nothing was changed. "
                "Give the right address, or the id that its meta.properties has"
            )
        return difference(
            cluster.passwords,
            acls,
            topics,
            brokers,
            actual,
            keep_users=[params["admin_user"]],
            remove=params["remove"],
        )

    changes = compare()
    for warning in changes.warnings:
        module.warn(warning)
    if changes.changed and not module.check_mode:
        cluster.apply(changes)
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := compare()).changed:
            if time.monotonic() > deadline:
                module.fail_json(
                    msg="Kafka took the changes and has not made them:\n" + "\n".join(left.words)
                )
            time.sleep(0.1)
    module.exit_json(
        changed=changes.changed,
        changes=changes.words,
        running=True,
        diff={"prepared": "".join(f"{line}\n" for line in changes.words)},
    )


if __name__ == "__main__":
    main()
