# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of C(files): diffs, and what a validator said, without what is secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The size above which builtin modules show no diff either.
DIFF_LIMIT = 104448
WORDS_LIMIT = 4000
REDACTED = "********"

_SHORTEST_SECRET = 4
_SEPARATORS = re.compile(r"[\s\"'`=:;,@/&?<>(){}\[\]|\\]+")
# A word with a digit in it is rather a password than a key.
_FIRST_WORD = re.compile(r"^[\s#;\-\"']*[A-Za-z_][A-Za-z_.\-]{0,50}(?![A-Za-z0-9_.\-])[\s=:\"']*")


def content_diff(path: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    """A diff of contents as Ansible prints them; C(None) stands for a file that is not there."""
    for content in (before, after):
        if content is not None and len(content) > DIFF_LIMIT:
            return {"prepared": f"{path}: content differs (too large to show)\n"}
        if content is not None and b"\0" in content:
            return {"prepared": f"{path}: content differs (binary)\n"}
    return {
        "before_header": path if before is not None else f"{path} (absent)",
        "before": (before or b"").decode("utf-8", "replace"),
        "after_header": path if after is not None else f"{path} (absent)",
        "after": (after or b"").decode("utf-8", "replace"),
    }


def hidden_diff(path: str, existed: bool, exists: bool = True) -> dict[str, Any]:
    verb = "removed" if not exists else "differs" if existed else "is new"
    return {"prepared": f"{path}: content {verb} (secret, not shown)\n"}


def attribute_diff(
    path: str, before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, Any] | None:
    """A diff of what is not content: kind, owner, group, mode, target."""
    if dict(before) == dict(after):
        return None

    def lines(values: Mapping[str, str]) -> str:
        return "".join(f"{key}: {value}\n" for key, value in values.items())

    return {
        "before_header": f"{path} (attributes)",
        "before": lines(before),
        "after_header": f"{path} (attributes)",
        "after": lines(after),
    }


def secret_words(content: bytes) -> list[str]:
    """What must not be repeated of a secret file: its values, whole and in pieces.

    The first word of each line is taken for a key and may be repeated, so that a
    validator's complaint about an unknown directive stays readable.
    """
    words: set[str] = set()
    for line in content.decode("utf-8", "replace").splitlines():
        stripped = line.strip()
        key = _FIRST_WORD.match(stripped)
        value = stripped[key.end() :] if key and key.end() < len(stripped) else stripped
        if key and key.end() == len(stripped) and re.fullmatch(r"[A-Za-z_\-]+", stripped):
            # A lone word: a heading or a lone password, so it is better not said.
            value = stripped
        pieces = [value, value.rstrip(";,").strip("\"'"), *_SEPARATORS.split(value)]
        words.update(piece for piece in pieces if len(piece) >= _SHORTEST_SECRET)
    return sorted(words, key=lambda word: (-len(word), word))


def redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


def _line_number(words: str, name: str) -> int | None:
    """The line a complaint names together with a path: C(path:7), C(path, line 7), …"""
    match = re.search(
        re.escape(name) + r"[\"']?[\s,:;\])(]{0,3}(?:(?:at|on|in)\s+)?(?:[Ll]ine)?[\s:#]{0,2}(\d+)",
        words,
    )
    return int(match.group(1)) if match else None


def quoted_lines(words: str, contents: Mapping[str, bytes | None]) -> list[str]:
    """The lines a validator complains of, for files of which we know the content.

    C(None) as content marks a secret file: its line is named, not shown.
    """
    found: list[str] = []
    candidates: list[tuple[str, int]] = []
    for path in sorted(contents, key=lambda item: (-len(item), item)):
        number = _line_number(words, path)
        if number is not None:
            candidates.append((path, number))
    if not candidates and len(contents) == 1:
        lone = re.search(r"\b[Ll]ine[\s:#]{1,2}(\d+)", words)
        if lone:
            candidates.append((next(iter(contents)), int(lone.group(1))))
    for path, number in candidates:
        content = contents[path]
        if content is None:
            found.append(f"{path}:{number}: (secret, not shown)")
            continue
        lines = content.decode("utf-8", "replace").splitlines()
        if 0 < number <= len(lines):
            found.append(f"{path}:{number}: {lines[number - 1].strip()}")
    return found


def refusal(
    command: str,
    about: str,
    code: int | None,
    words: str,
    *,
    contents: Mapping[str, bytes | None],
    secrets: Sequence[str] = (),
    renames: Mapping[str, str] | None = None,
) -> str:
    """One message out of what a validator said, speaking of real paths."""
    for staged, real in (renames or {}).items():
        words = words.replace(staged, real)
        command = command.replace(staged, real)
    quoted = quoted_lines(words, contents)
    words = redact(words.strip(), secrets)
    if len(words) > WORDS_LIMIT:
        words = words[: WORDS_LIMIT // 2] + "\n[…]\n" + words[-WORDS_LIMIT // 2 :]
    ended = "did not end in time" if code is None else f"ended with {code}"
    lines = [f"{about} is refused by its validator: `{command}` {ended}"]
    lines.append(words if words else "(the validator said nothing)")
    lines.extend(quoted)
    return "\n".join(lines)


def template_line(template: str, words: str, number: int | None = None) -> str:
    """The line of a template that an error is about, or nothing when it cannot be told.

    The template engine gives a line for faults of syntax only; an undefined name is found
    by looking for it.
    """
    lines = template.splitlines()
    if number is None:
        name = re.search(
            r"'([A-Za-z_]\w*)' is undefined|has no attribute '([^']+)'|No filter named '([^']+)'",
            words,
        )
        if name:
            wanted = re.compile(r"\b" + re.escape(name.group(name.lastindex or 1)) + r"\b")
            for index, line in enumerate(lines, start=1):
                if wanted.search(line) and ("{{" in line or "{%" in line):
                    number = index
                    break
    if number is None or not 0 < number <= len(lines):
        return ""
    return f"line {number}: {lines[number - 1].strip()}"
