"""Stored passwords: the server's own, recognised, and made so that the server accepts them."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.berth.platform.plugins.module_utils.postgresql_scram import (
    is_verifier,
    matches,
    saslprep,
    verifier,
)
from hypothesis import given, settings
from hypothesis import strategies as st

# Salt, password and iterations are those of RFC 7677, section 3; the keys follow from them.
RFC_SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
RFC = verifier("pencil", salt=base64.b64decode(RFC_SALT), iterations=4096)


def test_the_example_of_the_standard() -> None:
    assert RFC == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert matches("pencil", RFC)
    assert not matches("Pencil", RFC)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_password_is_recognised_again(password: str) -> None:
    try:
        stored = verifier(password, iterations=2)
    except UnicodeEncodeError:  # lone surrogates are no text
        return
    assert is_verifier(stored)
    assert matches(password, stored)
    assert not matches(password + "x", stored)


def test_each_one_has_its_own_salt() -> None:
    assert verifier("x") != verifier("x")


@pytest.mark.parametrize("stored", [None, "", "md5abc", "SCRAM-SHA-256$4096:*$x:y", "x"])
def test_what_is_no_scram_does_not_match(stored: str | None) -> None:
    assert not matches("x", stored)


def test_a_given_verifier_is_compared_as_such() -> None:
    assert matches(RFC, RFC)
    assert not matches(verifier("pencil"), RFC)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # prohibited, or mixed directions: as it is, like the server
        ("\u0007ü", "\u0007ü"),
        ("\u0627\u0031", "\u0627\u0031"),
        ("a\u00a0b", "a b"),
        ("\u0221", "\u0221"),
        ("\u00ad", "\u00ad"),
        ("a\u0627b", "a\u0627b"),
        ("\u0627a\u0627", "\u0627a\u0627"),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared
