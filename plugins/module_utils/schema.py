# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small declarative schema: what the catalog's keys may hold.

A reader takes ``(value, key, faults)`` and returns the value normalised; what it cannot read it
reports to ``faults`` and returns as None, so that one pass finds everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import MISSING, Faults, nearest

Reader = Callable[[Any, str, Faults], Any]


def checked(check: Callable[[object], Any]) -> Reader:
    """A scalar that *check* normalises, or refuses by ValueError."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if isinstance(value, (dict, list)):
            faults.add(key, value, "is a single value, not a list or a mapping")
            return None
        try:
            return check(value)
        except ValueError as error:
            faults.add(key, value, str(error))
            return None

    return read


def text(value: Any, key: str, faults: Faults) -> Any:
    """A string; a number is taken as its digits, since YAML reads 1.10 so."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        faults.add(key, value, "write a string")
        return None
    if "\n" in str(value):
        faults.add(key, value, "write a single line")
        return None
    return str(value)


def boolean(value: Any, key: str, faults: Faults) -> Any:
    """true or false."""
    if not isinstance(value, bool):
        faults.add(key, value, "write true or false")
        return None
    return value


def integer(low: int, high: int) -> Reader:
    """A whole number from *low* to *high*."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            faults.add(key, value, f"write a whole number from {low} to {high}")
            return None
        return int(value)

    return read


def choice(*words: str) -> Reader:
    """One of *words*."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if not isinstance(value, str) or value not in words:
            faults.add(key, value, f"{nearest(str(value), words)}")
            return None
        return str(value)

    return read


def anything(value: Any, key: str, faults: Faults) -> Any:
    """A value that a role's own argument_specs check."""
    return value


def list_of(item: Reader) -> Reader:
    """A list; a single value is not taken for a list of one."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if not isinstance(value, list):
            faults.add(key, value, "write a list")
            return []
        return [item(each, f"{key}[{number}]", faults) for number, each in enumerate(value)]

    return read


def map_of(item: Reader, name: Callable[[object], Any] | None = None) -> Reader:
    """A mapping with free keys, which *name* may restrict."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if not isinstance(value, dict):
            faults.add(key, value, "write a mapping")
            return {}
        result = {}
        for each, content in value.items():
            if name is not None:
                try:
                    name(each)
                except ValueError as error:
                    faults.add(f"{key}.{each}", MISSING, f"is not a safe name: {error}")
                    continue
            result[str(each)] = item(content, f"{key}.{each}", faults)
        return result

    return read


@dataclass(frozen=True)
class Key:
    """A key of a mapping."""

    read: Reader
    required: bool = False
    default: Any = None


@dataclass(frozen=True)
class Struct:
    """A mapping with known keys; an unknown one is a fault that names the nearest."""

    keys: Mapping[str, Key]
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, value: Any, key: str, faults: Faults) -> dict[str, Any]:
        if not isinstance(value, dict):
            faults.add(key, value, "write a mapping")
            return {name: spec.default for name, spec in self.keys.items()}
        keys = self.keys
        prefix = f"{key}." if key else ""
        for name in value:
            if name not in keys:
                advice = self.renamed.get(str(name)) or nearest(str(name), keys)
                faults.add(f"{prefix}{name}", MISSING, f"is not a known key; {advice}")
        result = {}
        for name, spec in keys.items():
            given = value.get(name)
            if given is not None:
                read = spec.read(given, f"{prefix}{name}", faults)
                # What could not be read is reported; the default lets the rest be checked, too.
                result[name] = spec.default if read is None else read
            else:
                if spec.required:
                    faults.add(f"{prefix}{name}", MISSING, "is required and missing")
                result[name] = spec.default
        return result
