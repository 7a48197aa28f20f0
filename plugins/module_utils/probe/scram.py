# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), without channel binding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import unicodedata

MECHANISM = "SCRAM-SHA-256"
# The default is 4096; a server that asks for more than this wants our time, not a proof.
ITERATIONS_LIMIT = 1_000_000
# We support no channel binding.
GS2_HEADER = "n,,"


class ScramError(ValueError):
    """The server's message is wrong, or it does not know the password."""


def saslprep(text: str) -> str:
    """RFC 4013; a text that it prohibits is used as it is, as PostgreSQL does."""
    if text.isascii():
        return text
    kept = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if not stringprep.in_table_b1(char)
    )
    result = unicodedata.ucd_3_2_0.normalize("NFKC", kept)
    prohibited = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if not result or any(check(char) for check in prohibited for char in result):
        return text
    if any(map(stringprep.in_table_d1, result)):
        both_ends = stringprep.in_table_d1(result[0]) and stringprep.in_table_d1(result[-1])
        if not both_ends or any(map(stringprep.in_table_d2, result)):
            return text
    return result


class Exchange:
    """One authentication: ``first``, then ``final`` of the server's answer, then ``verify``."""

    def __init__(self, user: str, password: str, nonce: str) -> None:
        self._password = saslprep(password).encode()
        self._nonce = nonce
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = f"n={escaped},r={nonce}"
        self._server_signature = b""

    def first(self) -> str:
        return GS2_HEADER + self._first_bare

    def final(self, server_first: str) -> str:
        values = _attributes(server_first)
        nonce = values.get("r", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server did not extend the nonce")
        try:
            salt = base64.b64decode(values["s"], validate=True)
            iterations = int(values["i"])
        except (KeyError, ValueError, binascii.Error):
            raise ScramError("a malformed SCRAM message") from None
        if not salt or not 1 <= iterations <= ITERATIONS_LIMIT:
            raise ScramError("a malformed SCRAM message")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = _hmac(salted, b"Client Key")
        binding = base64.b64encode(GS2_HEADER.encode()).decode()
        without_proof = f"c={binding},r={nonce}"
        message = f"{self._first_bare},{server_first},{without_proof}".encode()
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}"

    def verify(self, server_final: str) -> None:
        """Raise unless the server, too, knows the password."""
        values = _attributes(server_final)
        if "e" in values:
            raise ScramError(f"authentication failed: {values['e']}")
        try:
            given = base64.b64decode(values.get("v", ""), validate=True)
        except binascii.Error:
            given = b""
        if not hmac.compare_digest(given, self._server_signature):
            raise ScramError("the server did not prove that it knows the password")


def _attributes(message: str) -> dict[str, str]:
    found = {}
    for part in message.split(","):
        name, equals, value = part.partition("=")
        if equals:
            found[name] = value
    return found


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
