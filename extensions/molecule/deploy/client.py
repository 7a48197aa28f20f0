#!/usr/bin/env python3
"""Asks services without a break, and counts what fails.

    client.py ADDRESS STOP RESULT PORT...

The first port is asked over kept and over fresh connections, a hundred times a second and more; the
others ten times. A request that fails is not repeated, whoever is to blame.
"""

from __future__ import annotations

import collections
import http.client
import json
import sys
import threading
import time
from pathlib import Path

ADDRESS, STOP, RESULT, *PORTS = sys.argv[1:]
lock = threading.Lock()
seen: collections.Counter[str] = collections.Counter()
failed: list[str] = []
slowest = [0.0]


def ask(connection: http.client.HTTPConnection, label: str) -> bool:
    """One request; whether the connection can be used again."""
    started = time.monotonic()
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        with lock:
            slowest[0] = max(slowest[0], time.monotonic() - started)
            seen[f"{label} {body['version']}"] += 1
            if answer.status != 200:
                failed.append(f"{label}: status {answer.status}")
        return not answer.will_close
    except (OSError, http.client.HTTPException, ValueError) as error:
        with lock:
            failed.append(f"{label}: {time.time():.2f}: {error!r}")
        return False


def load(port: str, pause: float, *, keep: bool) -> None:
    """Until it is told to stop."""
    label = f"{port} {'kept' if keep else 'fresh'}"
    connection = None
    while not Path(STOP).exists():
        if connection is None:
            connection = http.client.HTTPConnection(ADDRESS, int(port), timeout=5)
        if not (ask(connection, label) and keep):
            connection.close()
            connection = None
        time.sleep(pause)


started = time.monotonic()
threads = [
    threading.Thread(target=load, args=(port, pause), kwargs={"keep": keep})
    for number, port in enumerate(PORTS)
    for pause, keep in ([(0.01, True), (0.01, False)] * 2 if number == 0 else [(0.1, False)])
]
for thread in threads:
    thread.start()
Path(RESULT).unlink(missing_ok=True)
for thread in threads:
    thread.join()
seconds = time.monotonic() - started
Path(f"{RESULT}.new").write_text(
    json.dumps(
        {
            "seen": seen,
            "failed": failed,
            "seconds": seconds,
            "rate": sum(seen.values()) / seconds,
            "slowest": slowest[0],
        }
    )
)
Path(f"{RESULT}.new").rename(RESULT)
