"""Diffs and messages of `files`, above all what they must not say."""

from __future__ import annotations

import pytest
from ansible_collections.berth.platform.plugins.module_utils.files_words import (
    DIFF_LIMIT,
    attribute_diff,
    content_diff,
    quoted_lines,
    redact,
    refusal,
    secret_words,
    template_line,
)
from hypothesis import assume, given
from hypothesis import strategies as st


def test_content_diff_says_what_is_absent() -> None:
    diff = content_diff("/e/x", None, b"a\n")
    assert diff == {
        "before_header": "/e/x (absent)",
        "before": "",
        "after_header": "/e/x",
        "after": "a\n",
    }


@pytest.mark.parametrize("content", [b"a\0b", b"x" * (DIFF_LIMIT + 1)])
def test_binary_and_large_contents_are_not_shown(content: bytes) -> None:
    assert "before" not in content_diff("/e/x", content, b"a")
    assert "before" not in content_diff("/e/x", b"a", content)


def test_attribute_diff_is_nothing_when_nothing_differs() -> None:
    assert attribute_diff("/e/x", {"mode": "0644"}, {"mode": "0644"}) is None
    assert attribute_diff("/e/x", {"mode": "0644"}, {"mode": "0600"}) is not None


COMPLAINTS = [
    ('nginx: [emerg] unknown directive "foo" in /etc/x/a.conf:2', 2),
    ("/etc/x/a.conf line 2: Bad configuration option: foo", 2),
    ("/etc/x/a.conf:2:10: syntax error", 2),
    ("[ALERT] (1) : config : parsing [/etc/x/a.conf:2] : unknown keyword", 2),
    ("error in '/etc/x/a.conf', line 2", 2),
    ('file "/etc/x/a.conf" at line 2', 2),
    ("syntax error at line 2", 2),
    ("Line 2: no such thing", 2),
    ("/etc/x/a.conf:99: beyond the end", None),
    ("it just does not work, 3 times", None),
]


@pytest.mark.parametrize(("words", "line"), COMPLAINTS)
def test_the_line_complained_of_is_quoted(words: str, line: int | None) -> None:
    quoted = quoted_lines(words, {"/etc/x/a.conf": b"first\n  second thing\nthird\n"})
    assert quoted == ([f"/etc/x/a.conf:{line}: second thing"] if line else [])


def test_a_line_of_a_secret_file_is_named_only() -> None:
    assert quoted_lines("bad: /e/s:1", {"/e/s": None, "/e/t": b"x"}) == [
        "/e/s:1: (secret, not shown)"
    ]


def test_the_longer_path_is_not_taken_for_the_shorter() -> None:
    quoted = quoted_lines(
        "in /etc/x/a.conf.d/b:1", {"/etc/x/a": b"wrong", "/etc/x/a.conf.d/b": b"r"}
    )
    assert quoted == ["/etc/x/a.conf.d/b:1: r"]


SECRETS = [
    b"password = hunter2hunter2\n",
    b'requirepass "hunter2hunter2"\n',
    b"hunter2hunter2",
    b'{"password": "hunter2hunter2"}',
    b"url: amqp://sales:hunter2hunter2@127.0.0.1:5672/\n",
    b"*:*:*:sales:hunter2hunter2\n",
    b"export KEY='hunter2hunter2';\n",
    b"hunter2hunter2 # a lone word first\n",
]


@pytest.mark.parametrize("content", SECRETS)
def test_what_is_secret_is_not_repeated(content: bytes) -> None:
    text = content.decode()
    hidden = secret_words(content)
    for words in (text, f"cannot parse {text!r}", "invalid value hunter2hunter2 for it"):
        assert "hunter2" not in redact(words, hidden), (words, hidden)


def test_the_key_of_a_line_stays_readable() -> None:
    hidden = secret_words(b"unknown_directive hunter2hunter2\n")
    assert "unknown_directive" in redact("no such thing: unknown_directive", hidden)


passwords = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40
)


@given(
    passwords, st.sampled_from(["password = {}\n", "KEY={}\n", "pass: '{}'\n", 'secret "{}";\n'])
)
def test_no_generated_password_is_repeated(password: str, form: str) -> None:
    line = form.format(password)
    assume(len(password.strip("\"';,")) >= 6)
    hidden = secret_words(line.encode())
    assert password not in redact(f"bad value {password} there", hidden)
    assert password not in redact(f"cannot parse <{line.strip()}>", hidden)


def test_a_refusal_speaks_of_real_paths() -> None:
    message = refusal(
        "check /stage/7/a.conf",
        "/etc/x/a.conf",
        1,
        "error in /stage/7/a.conf:1\n",
        contents={"/etc/x/a.conf": b"oops\n"},
        renames={"/stage/7/a.conf": "/etc/x/a.conf"},
    )
    assert "/stage" not in message
    assert "`check /etc/x/a.conf` ended with 1" in message
    assert "/etc/x/a.conf:1: oops" in message


def test_a_silent_and_a_late_validator_are_told_of() -> None:
    assert "said nothing" in refusal("v", "/x", 2, "", contents={})
    assert "did not end in time" in refusal("v", "/x", None, "", contents={})
    assert len(refusal("v", "/x", 2, "y" * 100_000, contents={})) < 5000


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("'nowhere' is undefined", None, "line 2: b {{ nowhere.x }}"),
        ("object of type 'dict' has no attribute 'prt'", None, "line 3: {{ x.prt }}"),
        ("Unexpected end of template", 1, "line 1: nowhere"),
        ("Unexpected end of template", 9, ""),
        ("something else", None, ""),
    ],
)
def test_the_line_of_a_template_is_found(words: str, number: int | None, expected: str) -> None:
    template = "nowhere\nb {{ nowhere.x }}\n{{ x.prt }}\n"
    assert template_line(template, words, number) == expected
