# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords as PostgreSQL stores them, so that the clear text never goes to the server.

A stored password is ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`` (RFC 5802 and
RFC 7677; the server's src/common/scram-common.c). With its salt one can tell whether a password
is the stored one without changing anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re

from ansible_collections.berth.platform.plugins.module_utils.probe.scram import saslprep

ITERATIONS = 4096
_SALT_BYTES = 16
_VERIFIER = re.compile(
    r"^SCRAM-SHA-256\$(?P<iterations>\d+):(?P<salt>[A-Za-z0-9+/=]+)"
    r"\$(?P<stored>[A-Za-z0-9+/=]+):(?P<server>[A-Za-z0-9+/=]+)$"
)


def verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What the server stores for a password; with a fresh salt unless one is given."""
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    spelt = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{spelt[0]}${spelt[1]}:{spelt[2]}"


def is_verifier(text: str) -> bool:
    """Whether a text is a stored password rather than a clear one."""
    return _VERIFIER.match(text) is not None


def matches(password: str, stored: str | None) -> bool:
    """Whether the stored password is this one. A verifier given as password is compared as such."""
    if not stored:
        return False
    if is_verifier(password):
        return hmac.compare_digest(password, stored)
    found = _VERIFIER.match(stored)
    if not found:
        return False
    try:
        salt = base64.b64decode(found["salt"], validate=True)
    except binascii.Error:
        return False
    wanted = verifier(password, salt=salt, iterations=int(found["iterations"]))
    return hmac.compare_digest(wanted, stored)
