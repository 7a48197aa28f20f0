"""Reads an nginx configuration as nginx does, so that tests can ask what it says.

The rules are those of ngx_conf_read_token in src/core/ngx_conf_file.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}


@dataclass
class Block:
    """A directive: its parameters, and what stands in its braces."""

    name: str
    args: list[str]
    body: list[Block] = field(default_factory=list)

    def all(self, name: str) -> list[Block]:
        return [block for block in self.body if block.name == name]

    def values(self, name: str) -> list[str]:
        return [" ".join(block.args) for block in self.all(name)]

    def one(self, name: str) -> str:
        (value,) = self.values(name)
        return value

    def location(self, match: str) -> Block:
        (found,) = [block for block in self.all("location") if " ".join(block.args) == match]
        return found

    def headers(self) -> dict[str, str]:
        """Response headers set here, which are the only ones if there are any."""
        return {block.args[0]: block.args[1] for block in self.all("add_header")}


def tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Words, each with whether it was plain (`;`, `{` and `}` count only then)."""
    position = 0
    while position < len(text):
        char = text[position]
        if char in " \t\r\n":
            position += 1
        elif char in ";{}":
            yield char, True
            position += 1
        elif char == "#":
            position = (text.find("\n", position) + 1) or len(text)
        elif char in "\"'":
            position, word = _word(text, position + 1, char)
            if position < len(text) and text[position] not in " \t\r\n;{)":
                raise ValueError(f"unexpected {text[position]!r} after a quoted word")
            yield word, False
        else:
            position, word = _word(text, position, "")
            yield word, False


def _word(text: str, position: int, quote: str) -> tuple[int, str]:
    word = ""
    while position < len(text):
        char = text[position]
        if char == "\\" and text[position + 1] in _ESCAPES:
            word += _ESCAPES[text[position + 1]]
            position += 2
            continue
        if char == "\\":
            word += text[position : position + 2]
            position += 2
            continue
        if quote and char == quote:
            return position + 1, word
        if not quote and char == "$" and text[position + 1 : position + 2] == "{":
            word += "${"
            position += 2
            continue
        if not quote and char in " \t\r\n;{":
            return position, word
        word += char
        position += 1
    raise ValueError("unexpected end of file")


def parse(text: str) -> Block:
    stack = [Block("", [])]
    words: list[str] = []
    for word, special in tokens(text):
        if not special:
            words.append(word)
        elif word == ";":
            stack[-1].body.append(Block(words[0], words[1:]))
            words = []
        elif word == "{":
            block = Block(words[0], words[1:])
            stack[-1].body.append(block)
            stack.append(block)
            words = []
        else:
            if words:
                raise ValueError(f"{words!r} without a semicolon")
            stack.pop()
    if words or len(stack) != 1:
        raise ValueError("unexpected end of file")
    return stack[0]
