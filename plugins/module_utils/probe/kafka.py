# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kafka: an ApiVersions request, which a broker answers before any authentication (KIP-35).

Frames as in https://kafka.apache.org/protocol: request header v1, ApiVersions v0, which every
broker since 0.10 answers.
"""

from __future__ import annotations

import struct

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import connected
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
)

API_VERSIONS = 18
PRODUCE, FETCH = 0, 1
CORRELATION = 0x62657274
CLIENT = b"berth-probe"
RESPONSE_LIMIT = 64 * 1024


def request() -> bytes:
    """size, api_key, api_version, correlation_id, client_id; the body of v0 is empty."""
    header = struct.pack(">hhih", API_VERSIONS, 0, CORRELATION, len(CLIENT)) + CLIENT
    return struct.pack(">i", len(header)) + header


def parse(frame: bytes) -> dict[int, tuple[int, int]]:
    """The versions a broker offers, by API key."""
    try:
        correlation, error, count = struct.unpack_from(">ihi", frame)
        if correlation != CORRELATION:
            raise ProbeFailed("the answer is to another request")
        if error:
            raise ProbeFailed(f"error code {error}")
        # Later brokers may add to a frame; what is counted must be there.
        if not 0 <= count <= RESPONSE_LIMIT // 6:
            raise ProbeFailed("the answer is malformed")
        offers = struct.iter_unpack(">hhh", frame[10 : 10 + 6 * count])
        found = {key: (low, high) for key, low, high in offers}
    except struct.error:
        raise ProbeFailed("the answer is malformed") from None
    if len(frame) < 10 + 6 * count:
        raise ProbeFailed("the answer is cut short")
    return found


async def check(attempt: Attempt) -> Detail:
    async with connected(attempt, tls=attempt.probe.tls) as connection:
        attempt.phase = "waiting for the answer to ApiVersions"
        connection.send(request())
        (size,) = struct.unpack(">i", await connection.exactly(4))
        if not 10 <= size <= RESPONSE_LIMIT:
            raise ProbeFailed("not a Kafka answer")
        offers = parse(await connection.exactly(size))
    if PRODUCE not in offers or FETCH not in offers:
        raise ProbeFailed("serves no producers or consumers (a controller's listener?)")
    return {"apis": len(offers)}
