#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_facts
short_description: The PostgreSQL clusters of a host, and the versions its repositories offer
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Tells which clusters of Debian's C(postgresql-common) are there, and which of the given
    versions could be installed, as RV(ansible_facts.berth_postgresql).
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Refreshes the package lists only outside of check mode.
  diff_mode:
    support: N/A
    details:
      - Changes nothing that could be shown.
  idempotent:
    support: full
options:
  versions:
    description: The major versions to look for in the host's package lists.
    type: list
    elements: int
    default: []
  update_cache:
    description:
      - Refresh the package lists first.
      - They are refreshed in any case when none of O(versions) is found in them.
    type: bool
    default: false
seealso:
  - module: berth.platform.host_facts
  - module: berth.platform.postgresql_cluster
"""

EXAMPLES = r"""
- name: It is known what could be installed
  berth.platform.postgresql_facts:
    versions: [18, 17]
"""

RETURN = r"""
ansible_facts:
  description: Facts added to C(ansible_facts).
  returned: always
  type: dict
  contains:
    berth_postgresql:
      description: What was found.
      returned: always
      type: dict
      contains:
        version:
          description: The version of the cluster C(main), the newest if there are several, else 0.
          returned: always
          type: int
          sample: 17
        port:
          description: Its port, 5432 if there is none.
          returned: always
          type: int
          sample: 5432
        data_directory:
          description: Its data directory, empty if there is none.
          returned: always
          type: str
          sample: /var/lib/postgresql/17/main
        clusters:
          description: The versions that have a cluster C(main).
          returned: always
          type: list
          elements: int
          sample: [17]
        offered:
          description: Those of O(versions) that the package lists offer, in the given order.
          returned: always
          type: list
          elements: int
          sample: [17]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.postgresql_server import (
    ServerError,
    clusters,
    offered,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "versions": {"type": "list", "elements": "int", "default": []},
            "update_cache": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    versions: list[int] = module.params["versions"]
    try:
        mains = [cluster for cluster in clusters() if cluster.name == "main"]
    except ServerError as error:
        module.fail_json(msg=str(error))
    found = offered(versions) if versions else []
    if versions and not module.check_mode and (module.params["update_cache"] or not found):
        module.run_command(
            ["/usr/bin/apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update"], check_rc=True
        )
        found = offered(versions)
    newest = max(mains, key=lambda cluster: cluster.version, default=None)
    module.exit_json(
        changed=False,
        ansible_facts={
            "berth_postgresql": {
                "version": newest.version if newest else 0,
                "port": newest.port if newest else 5432,
                "data_directory": newest.data_directory if newest else "",
                "clusters": sorted(cluster.version for cluster in mains),
                "offered": [version for version in versions if version in found],
            }
        },
    )


if __name__ == "__main__":
    main()
