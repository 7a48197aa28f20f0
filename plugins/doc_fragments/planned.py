# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of the modules that compare who listens with who is planned to."""

from __future__ import annotations


class ModuleDocFragment:
    """Listeners on planned ports."""

    DOCUMENTATION = r"""
options:
  planned:
    description: Who may listen where.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      protocol:
        description: The protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      address:
        description: Address that the owner listens on. All addresses when not given.
        type: str
      units:
        description:
          - Units that may listen there. A service and its socket count as one, and a
            template such as C(app@.service) stands for all its instances.
        type: list
        elements: str
        default: []
      processes:
        description: Names of programs that may listen there.
        type: list
        elements: str
        default: []
      owner:
        description: Who the port is planned for, for messages.
        type: str
"""
