# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP: the port accepts, and says what is expected if a banner is."""

from __future__ import annotations

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import connected
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)

BANNER_LIMIT = 4096


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt, tls=probe.tls) as connection:
        if probe.banner is None:
            return {}
        attempt.phase = "waiting for the banner"
        seen = b""
        while len(seen) < BANNER_LIMIT:
            more = await connection.some(BANNER_LIMIT - len(seen))
            if not more:
                break
            seen += more
            if probe.banner.search(seen.decode("utf-8", "replace")):
                return {"banner": clean(seen)}
            attempt.phase = f"waiting for the banner, after {clean(seen, 80)!r}"
    said = f"said {clean(seen, 80)!r}" if seen else "said nothing"
    raise ProbeFailed(f"{said}, which does not match {probe.banner.pattern!r}")
