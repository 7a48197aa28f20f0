# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes: is a service alive, not only its socket? Standard library only, for it runs on targets.

One module per protocol has ``async check(attempt) -> detail``, which raises ``ProbeFailed``.
C(spec) reads what the user wrote, C(scheduler) runs any number of probes at once.
"""
