# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells whether a reload of nginx took effect: by its processes, and by what they answer.

nginx's master answers SIGHUP with new workers only after it has read and applied the new
configuration; with a bad one it writes to its log and keeps the old workers. The titles of the
processes are those of src/os/unix/ngx_process_cycle.c. Runs on targets.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

_WORKER = "nginx: worker process"
_LEAVING = "is shutting down"


@dataclass(frozen=True)
class Workers:
    """The worker processes of a master: those that take new connections, and the leaving ones."""

    serving: frozenset[int]
    leaving: frozenset[int]


def sort_workers(titles: Iterable[tuple[int, str]]) -> Workers:
    workers = [(pid, title) for pid, title in titles if title.startswith(_WORKER)]
    leaving = frozenset(pid for pid, title in workers if _LEAVING in title)
    return Workers(frozenset(pid for pid, _title in workers) - leaving, leaving)


def took_over(before: Workers, now: Workers) -> bool:
    """Only new workers take connections."""
    return bool(now.serving) and not now.serving & before.serving


def gave_up(log: str) -> bool:
    """Whether nginx has said that it keeps the old configuration.

    A port that is taken is tried again for a while, so the single attempts do not count.
    """
    return any("[emerg]" in line and " bind() to " not in line for line in log.splitlines())


def children_titles(master: int, proc: str = "/proc") -> list[tuple[int, str]]:
    found = []
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/stat", encoding="utf-8", errors="replace") as handle:
                # "pid (name) state ppid …", and the name may hold anything.
                parent = int(handle.read().rpartition(")")[2].split()[1])
            if parent != master:
                continue
            with open(f"{proc}/{name}/cmdline", encoding="utf-8", errors="replace") as handle:
                title = handle.read().replace("\0", " ").strip()
        except (OSError, ValueError, IndexError):
            continue  # gone meanwhile
        found.append((int(name), title))
    return found


def ask(path: str, uri: str, timeout: float = 2.0) -> str:
    """The body that a server on a Unix socket answers, or nothing when it does not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(f"GET {uri} HTTP/1.0\r\nHost: nginx\r\n\r\n".encode())
            received = b""
            while len(received) < 65536:
                block = connection.recv(4096)
                if not block:
                    break
                received += block
    except OSError:
        return ""
    head, _separator, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] + b" ":
        return ""
    return body.decode("utf-8", errors="replace").strip()
