# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What every module of the collection states about itself.

    A module names the fragment and adds its own C(support) to each attribute.
    """

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict the changes without making them.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), in diff mode.
  idempotent:
    description: A second run with the same options, and nothing else changed, reports no change.
"""

    # Modules that only read.
    READER = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The module only reads, so check mode makes no difference.
  diff_mode:
    support: N/A
    details:
      - The module only reads.
  idempotent:
    support: full
    details:
      - The module only reads.
"""
