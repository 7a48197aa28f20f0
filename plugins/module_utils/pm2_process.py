# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command that is watched while it runs, for what it says is not all that it does."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

Process = subprocess.Popen


def begin(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start it, with both outputs in one pipe and no input."""
    return subprocess.Popen(
        list(argv),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
