# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command: a program of the user's own ends with an expected return code."""

from __future__ import annotations

from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.process import run

OUTPUT_LIMIT = 16 * 1024


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    attempt.phase = "waiting for the command to end"
    done = await run(probe.argv, OUTPUT_LIMIT)
    said = clean(done.stdout.strip() or done.stderr.strip())
    detail: Detail = {"rc": done.rc, "output": said}
    if done.rc in probe.rc:
        return detail
    ended = f"ended with {done.rc}" if done.rc >= 0 else f"was killed by signal {-done.rc}"
    wanted = " or ".join(map(str, probe.rc))
    words = clean(done.stderr.strip() or done.stdout.strip())
    raise ProbeFailed(f"{ended}, not {wanted}" + (f": {words}" if words else ""), detail)
