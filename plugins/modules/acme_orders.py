#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: acme_orders
short_description: Public certificates that are due are ordered, in place and loaded
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Has the program that the role C(tls) installs order what is due, put it where services read it,
    and reload them. It is the program that the timer starts.
  - An order that the server refuses leaves everything as it was. The others are made all the same,
    and the message has the server's words for each name.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - Asks no server. What RV(ignore:orders) names is predicted to be ordered.
  diff_mode:
    support: full
    details:
      - Shows which certificates are ordered, and why.
  idempotent:
    support: full
options:
  program:
    description: The program.
    type: path
    default: /usr/local/lib/berth/berth-acme
  orders:
    description:
      - What M(berth.platform.certificates) returned as C(orders), for check mode. The program
        decides for itself.
    type: dict
    default: {}
  applied:
    description:
      - Name of a marker of M(berth.platform.files) (its O(ignore:pending)), which is removed when
        nothing was refused.
    type: str
"""

EXAMPLES = r"""
- name: Public certificates are there
  berth.platform.acme_orders:
    orders: "{{ certificates.orders }}"
    applied: acme
"""

RETURN = r"""
ordered:
  description: Certificates that were issued, and why they were ordered.
  returned: success
  type: dict
  sample: {shop.example.com: it was never ordered}
placed:
  description: Certificates that were put in place.
  returned: success
  type: list
  elements: str
reloaded:
  description: Units that were reloaded.
  returned: success
  type: list
  elements: str
  sample: [nginx.service]
refused:
  description: What the server said, by certificate.
  returned: failed
  type: dict
expires:
  description: When each certificate ends, by name.
  returned: success
  type: dict
  sample: {shop.example.com: "2025-05-30T09:00:00+00:00"}
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.berth.platform.plugins.module_utils.units_run import remove_marker


def lines(orders: dict[str, Any]) -> str:
    return "".join(f"{name}: {reason}\n" for name, reason in sorted(orders.items()))


def complaint(done: dict[str, Any]) -> str:
    """What was refused, name by name, and what that means for who visits the site."""
    words = []
    for name, reasons in sorted(done["refused"].items()):
        until = done["expires"].get(name)
        words.append(f"{name}: the order failed:")
        words += [f"  {reason}" for reason in reasons]
        words.append(
            f"  What was there goes on serving, until {until}."
            if until
            else "  Nothing that visitors trust is there yet."
        )
    return "\n".join([*words, *done["faults"]])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/local/lib/berth/berth-acme"},
            "orders": {"type": "dict", "default": {}},
            "applied": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(
            changed=True,
            ordered=params["orders"],
            placed=[],
            reloaded=[],
            expires={},
            diff={"before": "", "after": lines(params["orders"]), "after_header": "ordered"},
        )
    rc, out, err = module.run_command([params["program"], "renew", "--json"])
    try:
        done = json.loads(out)
    except ValueError:
        words = (err or out).strip() or "it says nothing"
        module.fail_json(msg=f"{params['program']} ended with {rc}: {words}", rc=rc)
    faults, account = done.pop("faults"), done.pop("account")
    diff = {"before": "", "after": lines(done["ordered"]), "after_header": "ordered"}
    changed = bool(done["ordered"] or done["placed"] or done["reloaded"] or account)
    if faults or done["refused"]:
        module.fail_json(msg=complaint({**done, "faults": faults}), changed=changed, **done)
    if params["applied"]:
        remove_marker(params["applied"])
    module.exit_json(changed=changed, diff=diff, **done)


if __name__ == "__main__":
    main()
