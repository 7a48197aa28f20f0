"""Collects every command line on the machine until its standard input ends.

A new process is looked at several times, since a program replaces its parent's command line a
moment after the process has begun; the old ones are looked at once a second.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

LOOKS = 4
INTERVAL = 0.01


def main() -> None:
    """Look, sleep, and tell it all in the end."""
    seen: set[bytes] = set()
    looks: dict[str, int] = {}
    swept = 0.0
    own = str(os.getpid())
    print("watching", flush=True)
    while True:
        now = time.monotonic()
        sweep = now - swept > 1
        swept = now if sweep else swept
        running = [each.name for each in os.scandir("/proc") if each.name.isdigit()]
        for name in running:
            count = looks.get(name, 0)
            if name == own or (count >= LOOKS and not sweep):
                continue
            looks[name] = count + 1
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if line:
                seen.add(line)
        if sweep:
            looks = {name: looks.get(name, 0) for name in running}
        if select.select([sys.stdin], [], [], INTERVAL)[0]:
            break
    json.dump([line.replace(b"\0", b" ").decode(errors="replace") for line in seen], sys.stdout)


main()
