#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_objects
short_description: Databases, roles, privileges and extensions of a PostgreSQL server in one batch
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Brings all databases, roles, memberships, extensions and privileges of a server into the listed
    state in one call, over the server's socket and as its own user, by C(psql).
  - A listed user ends with exactly what is listed for it, in every listed database. What is not
    listed is left alone. Nothing is removed unless it is listed with O(databases[].state=absent)
    or O(users[].state=absent).
  - C(CONNECT) on every listed database is taken from C(PUBLIC), so that the credentials of one
    service do not reach the database of another.
  - A password is compared with the stored verifier and sent, when it differs, as a new verifier.
    The clear text never reaches the server or its log.
  - On a standby nothing is done; the primary's objects arrive by replication.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where the server does not run yet, everything listed is predicted to be made.
  diff_mode:
    support: full
    details:
      - Shows the statements, without passwords.
  idempotent:
    support: full
options:
  version:
    description: The server's major version.
    type: int
    required: true
  port:
    description: The server's port, which also names its socket.
    type: int
    default: 5432
  socket_directory:
    description: Where the server's socket is.
    type: path
    default: /var/run/postgresql
  databases:
    description: The databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description:
          - The role that owns it and its schema C(public).
          - By default the user whose privileges on it are V(owner), else C(postgres).
        type: str
      encoding:
        description: Encoding of a database that has to be made.
        type: str
        default: UTF8
      locale:
        description: Locale of a database that has to be made.
        type: str
        default: C.UTF-8
      connection_limit:
        description: How many connections it takes; V(-1) is no limit.
        type: int
        default: -1
      extensions:
        description: >-
          Extensions, each a name or a mapping of C(name) and, if wanted, C(schema) and C(version).
        type: list
        elements: raw
        default: []
      state:
        description: V(absent) drops the database and ends its connections.
        type: str
        choices: [present, absent]
        default: present
  users:
    description: The roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role.
        type: str
        required: true
      password:
        description:
          - The password, or a C(SCRAM-SHA-256) verifier.
          - Left as it is when omitted; a new role then has none.
        type: str
      login:
        description: Whether one can log in as this role.
        type: bool
        default: true
      connection_limit:
        description: How many connections it may hold; V(-1) is no limit.
        type: int
        default: -1
      attributes:
        description: The role's attributes; those not listed are taken from it.
        type: list
        elements: str
        choices: [superuser, createdb, createrole, replication, bypassrls]
        default: []
      member_of:
        description: The roles it is a member of; other memberships are revoked.
        type: list
        elements: str
        default: []
      databases:
        description: What it may do where; every database is among O(databases).
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the database.
            type: str
            required: true
          privileges:
            description:
              - V(owner) owns the database and may do everything in it.
              - V(write) may read and change the rows of all tables, also of those that the
                owner makes later.
              - V(read) may read them.
            type: str
            choices: [owner, write, read]
            default: owner
      state:
        description:
          - V(absent) revokes what it has in the listed databases and drops it.
          - A role that still owns something is not dropped; the error says what.
        type: str
        choices: [present, absent]
        default: present
seealso:
  - module: berth.platform.postgresql_cluster
  - module: community.postgresql.postgresql_user
"""

EXAMPLES = r"""
- name: Each service has its database, and a report reads one of them
  berth.platform.postgresql_objects:
    version: 17
    databases:
      - name: prod-sales
        extensions: [pg_trgm]
      - name: prod-payroll
    users:
      - name: sales
        password: "{{ sales_password }}"
        connection_limit: 100
        databases:
          - name: prod-sales
      - name: payroll
        password: "{{ payroll_password }}"
        databases:
          - name: prod-payroll
      - name: reports
        password: "{{ reports_password }}"
        databases:
          - name: prod-sales
            privileges: read
"""

RETURN = r"""
statements:
  description: The statements that were run, or would be, without passwords.
  returned: always
  type: list
  elements: str
  sample: ['CREATE DATABASE "prod-sales" OWNER "sales" TEMPLATE template0;']
standby:
  description: Whether the server is a standby, where nothing is done.
  returned: always
  type: bool
  sample: false
ansible_facts:
  description: Facts added to C(ansible_facts).
  returned: always
  type: dict
  contains:
    berth_postgresql:
      description: The server that was spoken to.
      returned: always
      type: dict
      sample: {version: 17, port: 5432, data_directory: /var/lib/postgresql/17/main}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.postgresql_objects import (
    Cluster,
    Database,
    Inside,
    ObjectsError,
    Statement,
    Wish,
    cluster_question,
    inside_question,
    make_wish,
    plan_databases,
    plan_extensions,
    plan_inside,
    plan_removals,
    plan_roles,
)
from ansible_collections.berth.platform.plugins.module_utils.postgresql_server import (
    ADMIN,
    Server,
    ServerError,
    Unreachable,
)

ARGUMENTS: dict[str, Any] = {
    "version": {"type": "int", "required": True},
    "port": {"type": "int", "default": 5432},
    "socket_directory": {"type": "path", "default": "/var/run/postgresql"},
    "databases": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "owner": {"type": "str"},
            "encoding": {"type": "str", "default": "UTF8"},
            "locale": {"type": "str", "default": "C.UTF-8"},
            "connection_limit": {"type": "int", "default": -1},
            "extensions": {"type": "list", "elements": "raw", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "no_log": True},
            "login": {"type": "bool", "default": True},
            "connection_limit": {"type": "int", "default": -1},
            "attributes": {
                "type": "list",
                "elements": "str",
                "choices": ["superuser", "createdb", "createrole", "replication", "bypassrls"],
                "default": [],
            },
            "member_of": {"type": "list", "elements": "str", "default": []},
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "privileges": {
                        "type": "str",
                        "choices": ["owner", "write", "read"],
                        "default": "owner",
                    },
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
}


class Batch:
    """Plans against the server step by step, since later steps see what earlier ones made."""

    def __init__(self, server: Server, wish: Wish, *, check: bool) -> None:
        self.server = server
        self.wish = wish
        self.check = check
        self.statements: list[str] = []
        self.warnings: list[str] = []

    def do(self, database: str, statements: list[Statement], *, together: bool) -> None:
        self.statements += [str(statement) for statement in statements]
        if not self.check:
            self.server.tell(database, statements, together=together)

    def cluster(self) -> Cluster:
        try:
            return Cluster.parse(self.server.ask(ADMIN, cluster_question(self.wish)))
        except Unreachable:
            if not self.check:
                raise
            return Cluster.fresh(self.server.version)

    def inside(self, database: Database, there: Cluster) -> Inside:
        if self.check and database.name not in there.databases:
            return Inside.fresh()
        return Inside.parse(self.server.ask(database.name, inside_question(self.wish)))

    def run(self) -> Cluster:
        there = self.cluster()
        if there.standby:
            return there
        self.do(ADMIN, plan_roles(self.wish, there), together=True)
        statements, warnings = plan_databases(self.wish, there)
        self.warnings += warnings
        # CREATE DATABASE cannot be part of a transaction.
        self.do(ADMIN, statements, together=False)
        dropped_databases, dropped_roles = plan_removals(self.wish, there)
        self.do(ADMIN, dropped_databases, together=False)
        for database in self.wish.databases.values():
            if not database.present:
                continue
            inside = self.inside(database, there)
            extensions = plan_extensions(database, inside)
            if extensions:
                self.do(database.name, extensions, together=True)
                inside = self.inside(database, there)
            statements = plan_inside(self.wish, database, there, inside)
            self.do(database.name, statements, together=True)
        self.do(ADMIN, dropped_roles, together=True)
        return there


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    server = Server(options["version"], options["port"], options["socket_directory"])
    try:
        wish = make_wish(options["databases"], options["users"])
        batch = Batch(server, wish, check=module.check_mode)
        there = batch.run()
    except ObjectsError as error:
        module.fail_json(msg=str(error))
    except Unreachable as error:
        module.fail_json(msg=f"PostgreSQL {server.version} does not answer: {error}")
    except ServerError as error:
        module.fail_json(msg=f"PostgreSQL refused: {error}")
    for warning in batch.warnings:
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": bool(batch.statements),
        "statements": batch.statements,
        "standby": there.standby,
        "ansible_facts": {
            "berth_postgresql": {
                "version": there.version,
                "port": there.port,
                "data_directory": there.data_directory
                or f"/var/lib/postgresql/{there.version}/main",
            }
        },
    }
    if module._diff and batch.statements:
        result["diff"] = {"prepared": "".join(f"+{line}\n" for line in batch.statements)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
