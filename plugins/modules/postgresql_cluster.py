#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster
short_description: A PostgreSQL cluster runs with the configuration on disk
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Starts a cluster of Debian's C(postgresql-common) that does not run, enabled for the next boot.
  - Has a running one test its files, load them, and say which settings wait for a restart; it is
    restarted only if there are some.
  - Files that the server refuses are not loaded. They are replaced by the ones that were loaded
    last without complaint, and the task fails with the server's words and the line.
  - If the server does not come up with new files, the former ones are put back and it is started
    with them.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: partial
    details:
      - Tells whether the cluster would be started or told to load its files; whether a restart
        follows only the server can say.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - A running cluster is told to load its files each time. Call it when they changed.
options:
  version:
    description: The cluster's major version.
    type: int
    required: true
  name:
    description: The cluster's name.
    type: str
    default: main
  port:
    description: The port that the files give it.
    type: int
    default: 5432
  addresses:
    description: Addresses on which it has to accept connections afterwards.
    type: list
    elements: str
    default: []
  files:
    description: The files that are kept once loaded and put back if need be.
    type: list
    elements: path
    default: []
  restart:
    description: Whether it may be restarted for settings that need it; otherwise they are reported.
    type: bool
    default: true
  wait:
    description: How many seconds it may take to answer after a start.
    type: int
    default: 60
  applied:
    description: Name of the marker that M(berth.platform.files) wrote, removed on success.
    type: str
    default: ''
seealso:
  - module: berth.platform.files
  - module: berth.platform.postgresql_objects
"""

EXAMPLES = r"""
- name: PostgreSQL runs with its configuration
  berth.platform.postgresql_cluster:
    version: 17
    addresses: [127.0.0.1, 10.0.0.5]
    files:
      - /etc/postgresql/17/main/conf.d/berth.conf
      - /etc/postgresql/17/main/pg_hba.conf
  when: postgresql_files is changed or not postgresql_running
"""

RETURN = r"""
actions:
  description: >-
    What was done, in order; one or more of C(enabled), C(started), C(reloaded), C(restarted).
  returned: success
  type: list
  elements: str
  sample: [reloaded]
pending_restart:
  description: Settings that wait for a restart that was not allowed.
  returned: success
  type: list
  elements: str
  sample: [shared_buffers]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.postgresql_cluster import (
    KEPT,
    Cluster,
    Keeper,
    applied,
    apply,
    reach,
)
from ansible_collections.berth.platform.plugins.module_utils.postgresql_server import (
    Server,
    ServerError,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "int", "required": True},
            "name": {"type": "str", "default": "main"},
            "port": {"type": "int", "default": 5432},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "restart": {"type": "bool", "default": True},
            "wait": {"type": "int", "default": 60},
            "applied": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    server = Server(options["version"], options["port"])
    cluster = Cluster(server, options["name"], options["wait"])
    if module.check_mode:
        verb = "reloaded" if cluster.active() else "started"
        module.exit_json(changed=True, actions=[verb], pending_restart=[])
    keeper = Keeper(f"{KEPT}/{server.version}-{cluster.name}", options["files"])
    try:
        outcome = apply(cluster, keeper, restart=options["restart"])
    except ServerError as error:
        module.fail_json(msg=str(error))
    dead = reach(options["addresses"], options["port"])
    if dead:
        waiting = ", ".join(outcome.pending_restart)
        module.fail_json(
            msg=f"{cluster.unit} runs but accepts no connection on {', '.join(dead)}: "
            + (f"a restart has to come first, for {waiting}" if waiting else "is it up here?")
        )
    applied(options["applied"])
    if outcome.pending_restart:
        module.warn(
            f"{cluster.unit} has to be restarted before it uses: "
            + ", ".join(outcome.pending_restart)
        )
    module.exit_json(changed=True, actions=outcome.actions, pending_restart=outcome.pending_restart)


if __name__ == "__main__":
    main()
