# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last lines that services wrote, to files and to the journal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

_BLOCK = 64 * 1024


def tail(path: str, lines: int) -> str:
    """The last lines of a file, of which no more than the last 64 KiB are read."""
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        handle.seek(max(0, size - _BLOCK))
        text = handle.read(_BLOCK).decode("utf-8", "replace")
    return "\n".join(text.rstrip("\n").splitlines()[-lines:])


def journal(unit: str, lines: int) -> str:
    """The last lines of the journal of a unit; empty where there is no journal."""
    argv = [
        "journalctl",
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        f"--lines={lines}",
        f"--unit={unit}",
    ]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=15,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip()


def collect(units: Sequence[Mapping[str, Any]], lines: int) -> list[dict[str, str]]:
    """(source, text) of every file and journal, in order; what cannot be read says why."""
    found: list[dict[str, str]] = []
    read: set[str] = set()
    for unit in units:
        for path in unit.get("files") or []:
            if path in read:
                continue
            read.add(path)
            try:
                text = tail(path, lines)
            except OSError as error:
                text = f"({error.strerror})"
            found.append({"source": path, "text": text})
        found.append({"source": unit["name"], "text": journal(unit["name"], lines)})
    return found


def as_text(found: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(f"==> {each['source']} <==\n{each['text'] or '(empty)'}" for each in found)
