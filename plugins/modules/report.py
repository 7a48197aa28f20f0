#!/usr/bin/python
# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: What is planned and what is true, as a page and as text
version_added: "0.1.0"
author:
  - Berth contributors (@berth-platform)
description:
  - Draws the plan together with what was seen on the hosts, which are the topology, probes with
    state and latency, certificates, backups, who may reach what, and who holds which port.
  - The page is one HTML file without scripts that loads nothing from elsewhere, light or dark as
    the reader's system is. Everything that comes from hosts or the catalog is escaped.
  - What should be seen to stands first, with the command that shows the log where a unit is known.
  - Runs on the controller and touches no host. Nothing is probed here.
extends_documentation_fragment:
  - berth.platform.attributes
attributes:
  check_mode:
    support: full
    details:
      - The text is shown, no file is written.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - A report says when it was made.
options:
  plan:
    description: What M(berth.platform.plan) returned.
    type: dict
    required: true
  html:
    description: Where the page is written to, on the controller. Not at all if it is not given.
    type: path
  text:
    description: Where the text is written to, on the controller. Not at all if it is not given.
    type: path
  show:
    description: Whether the text is shown in the run's output.
    type: bool
    default: true
  health:
    description:
      - Name of the variable in which each host has the result of M(berth.platform.health_probe).
      - A host without it is shown as not probed, one whose call failed with the reason.
    type: str
    default: health_result
  backups:
    description:
      - Name of the variable in which a host with backups has the result of running
        C(berth-backup status).
    type: str
    default: backup_status
seealso:
  - module: berth.platform.plan
  - module: berth.platform.health_probe
"""

EXAMPLES = r"""
- name: The report is made
  berth.platform.report:
    plan: "{{ berth_plan }}"
    html: status.html
  run_once: true
"""

RETURN = r"""
html:
  description: The page's path.
  returned: when given
  type: str
  sample: /home/ops/status.html
well:
  description: Whether there is nothing to see to.
  returned: always
  type: bool
  sample: false
attention:
  description: What should be seen to.
  returned: always
  type: list
  elements: str
  sample: ["web1: sales ready: connection refused"]
"""
