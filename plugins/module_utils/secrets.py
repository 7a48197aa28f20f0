# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a secret is: its specification, its generation, and its marker in a text.

Pure but for the operating system's random numbers, which a caller may replace.
"""

from __future__ import annotations

import base64
import difflib
import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

KINDS = ("password", "hex", "base64", "authority", "given")
ALPHABETS = {
    "alphanumeric": string.ascii_letters + string.digits,
    "letters": string.ascii_letters,
    "digits": string.digits,
    # What RFC 3986 calls unreserved: goes unquoted into every URL.
    "unreserved": string.ascii_letters + string.digits + "-._~",
}
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.@/-]*[A-Za-z0-9_])?")
MARKER = re.compile(r"\{secret:([^{}]*)(\}?)")
SHORTEST_PASSWORD = 8
SMALLEST_ALPHABET = 10
SMALLEST_BITS = 64


class SecretError(ValueError):
    """One or more faults, all of them in the message; never holds a secret's value."""


@dataclass(frozen=True)
class Spec:
    """How one secret comes to be."""

    name: str
    kind: str = "password"
    value: str | None = None
    length: int = 32
    bits: int = 256
    bytes: int = 32
    alphabet: str = "alphanumeric"
    common_name: str = ""
    rotatable: bool = True

    @property
    def characters(self) -> str:
        return "".join(sorted(set(ALPHABETS.get(self.alphabet, self.alphabet))))

    def faults(self) -> list[str]:
        found = []
        if not NAME.fullmatch(self.name):
            found.append(
                f"secret {self.name!r}: a name is letters, digits and _ . @ / -, "
                "beginning and ending with a letter, a digit or _"
            )
        if self.kind not in KINDS:
            found.append(
                f"secret {self.name}: kind {self.kind!r} is unknown{nearest(self.kind, KINDS)}; "
                f"known are {', '.join(KINDS)}"
            )
        if self.value is not None:
            if self.value == "":
                found.append(f"secret {self.name}: the given value is empty")
            return found
        if self.kind == "password":
            if self.length < SHORTEST_PASSWORD:
                found.append(
                    f"secret {self.name}: length {self.length} is too short, "
                    f"{SHORTEST_PASSWORD} is the least"
                )
            if len(self.characters) < SMALLEST_ALPHABET:
                found.append(
                    f"secret {self.name}: its alphabet has {len(self.characters)} different "
                    f"characters, {SMALLEST_ALPHABET} is the least "
                    f"(or name one of {', '.join(ALPHABETS)})"
                )
            if any(not character.isprintable() for character in self.characters):
                found.append(f"secret {self.name}: its alphabet has unprintable characters")
        if self.kind == "hex" and (self.bits < SMALLEST_BITS or self.bits % 8):
            found.append(
                f"secret {self.name}: bits {self.bits} must be a multiple of 8, "
                f"{SMALLEST_BITS} or more"
            )
        if self.kind == "base64" and self.bytes * 8 < SMALLEST_BITS:
            found.append(
                f"secret {self.name}: bytes {self.bytes} is too short, "
                f"{SMALLEST_BITS // 8} is the least"
            )
        if self.kind == "authority" and not self.common_name:
            found.append(f"secret {self.name}: an authority needs a common_name")
        return found


@dataclass(frozen=True)
class Outcome:
    """What a run makes of the stored secrets."""

    stored: dict[str, str]
    values: dict[str, str]
    generated: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.generated or self.rotated or self.removed)

    def diff(self) -> str:
        """Names only."""
        lines = [f"+ {name}" for name in self.generated]
        lines += [f"~ {name}" for name in self.rotated]
        lines += [f"- {name}" for name in self.removed]
        return "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[2:]))


Authority = Callable[[str], str]


def nearest(name: str, known: Iterable[str]) -> str:
    """`, did you mean x?` or nothing."""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]}?" if found else ""


def generate(spec: Spec, authority: Authority) -> str:
    """A fresh value."""
    if spec.kind == "password":
        characters = spec.characters
        return "".join(secrets.choice(characters) for _each in range(spec.length))
    if spec.kind == "hex":
        return secrets.token_hex(spec.bits // 8)
    if spec.kind == "base64":
        return base64.b64encode(secrets.token_bytes(spec.bytes)).decode("ascii")
    if spec.kind == "authority":
        return authority(spec.common_name)
    raise SecretError(f"secret {spec.name}: a {spec.kind} secret is not generated")


def needs_store(specs: Sequence[Spec], rotate: Sequence[str]) -> bool:
    """Whether the stored secrets matter at all: not when every value is given."""
    return bool(rotate) or any(spec.value is None for spec in specs)


def check(specs: Sequence[Spec]) -> None:
    """All the faults of the specifications at once."""
    faults = [fault for spec in specs for fault in spec.faults()]
    seen: dict[str, Spec] = {}
    for spec in specs:
        if seen.setdefault(spec.name, spec) != spec:
            faults.append(f"secret {spec.name} is specified twice, and differently")
    if faults:
        raise SecretError("\n".join(faults))


def settle(
    specs: Sequence[Spec],
    stored: Mapping[str, str],
    rotate: Sequence[str],
    authority: Authority,
    store: str,
) -> Outcome:
    """Every specified secret has a value: given, else stored, else generated.

    What is stored stays as it is, also where its specification has changed since and where no
    specification names it any more; only `rotate` replaces a value. `store` names the file in
    messages.
    """
    check(specs)
    by_name = {spec.name: spec for spec in specs}
    faults = []
    for name in dict.fromkeys(rotate):
        spec = by_name.get(name)
        if spec is None and name in stored:
            faults.append(f"secret {name} is stored, but nothing uses it: it cannot be rotated")
        elif spec is None:
            faults.append(f"secret {name} is unknown: it cannot be rotated{nearest(name, by_name)}")
        elif spec.value is not None or spec.kind == "given":
            faults.append(
                f"secret {name} is given, not generated: to rotate it, change the value it is given"
            )
        elif not spec.rotatable:
            faults.append(f"secret {name} is not rotated: what is kept was encrypted with it")
    for spec in by_name.values():
        if spec.kind == "given" and spec.value is None and not stored.get(spec.name):
            faults.append(
                f"secret {spec.name} is named and not provided: give it a value in the inventory "
                f"(an encrypted variable), or add `{spec.name}: …` to {store} with "
                "`ansible-vault edit`"
            )
    if faults:
        raise SecretError("\n".join(faults))

    after = dict(stored)
    values, generated, rotated = {}, [], []
    for name, spec in by_name.items():
        if spec.value is not None:
            values[name] = spec.value
            continue
        if not after.get(name):
            after[name] = generate(spec, authority)
            generated.append(name)
        elif name in rotate:
            before = after[name]
            while after[name] == before:
                after[name] = generate(spec, authority)
            rotated.append(name)
        values[name] = after[name]
    return Outcome(
        stored=after,
        values=values,
        generated=sorted(generated),
        rotated=sorted(rotated),
        unused=sorted(set(stored) - set(by_name)),
    )


def forget(names: Iterable[str], stored: Mapping[str, str]) -> Outcome:
    """The named secrets are no longer stored."""
    names = set(names)
    return Outcome(
        stored={name: value for name, value in stored.items() if name not in names},
        values={},
        removed=sorted(names & set(stored)),
    )


def with_secrets(data: Any, values: Mapping[str, str]) -> Any:
    """`data` with every `{secret:NAME}` and `{secret:NAME|urlencode}` replaced.

    Walks mappings, lists and texts. What a value contains is not looked into again.
    """
    if isinstance(data, str):
        return MARKER.sub(lambda found: _reveal(found, values), data) if "{" in data else data
    if isinstance(data, Mapping):
        return {key: with_secrets(value, values) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [with_secrets(value, values) for value in data]
    return data


def _reveal(found: re.Match[str], values: Mapping[str, str]) -> str:
    if not found[2]:
        raise SecretError(f"the marker {found[0]!r} is not closed: {{secret:NAME}} is meant")
    name, separator, how = found[1].partition("|")
    if separator and how != "urlencode":
        raise SecretError(f"the marker {found[0]!r} is unknown: {{secret:NAME|urlencode}} is meant")
    if name not in values:
        raise SecretError(f"secret {name!r} is unknown{nearest(name, values)}")
    value = str(values[name])
    return quote(value, safe="") if separator else value
