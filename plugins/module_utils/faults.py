# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: what is wrong with what the user wrote, collected and reported together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

_SHOWN = 60


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong: where it stands, what stands there, what would be right."""

    key: str
    value: str
    advice: str

    def __str__(self) -> str:
        shown = f" is {self.value}" if self.value else ""
        return f"{self.key}{shown}: {self.advice}"


@dataclass
class Faults:
    """Collects faults, so that a user sees all of them at once."""

    found: list[Fault] = field(default_factory=list)

    def add(self, key: str, value: object, advice: str) -> None:
        """Record a fault; *value* is shown shortened, ``MISSING`` is not shown."""
        self.found.append(Fault(key, "" if value is MISSING else shown(value), advice))

    def __bool__(self) -> bool:
        return bool(self.found)

    def lines(self) -> list[str]:
        """Every fault once, in the order of the keys."""
        return [str(fault) for fault in sorted(set(self.found))]


class _Missing:
    """Says that there is no value to show."""


MISSING = _Missing()


def shown(value: object) -> str:
    """The value as a user wrote it, cut to a readable length."""
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """What the user may have meant: the nearest known word, else the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return "there are none"
    if len(names) <= 12:
        return "known are " + ", ".join(names)
    return f"none of the {len(names)} known ones is near"
