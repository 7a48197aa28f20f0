# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between a running Redis and what is wanted of it, and a client to ask it.

RESP2 as in https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Redis refuses to change these while it runs; for any other that it refuses, its word is taken.
AT_START = frozenset(
    (
        *("aclfile", "always-show-logo", "appenddirname", "appendfilename", "cluster-enabled"),
        *(
            "databases",
            "dbfilename",
            "disable-thp",
            "enable-debug-command",
            "enable-module-command",
        ),
        *("enable-protected-configs", "io-threads", "io-threads-do-reads", "logfile", "pidfile"),
        *("rdbchecksum", "syslog-enabled", "syslog-facility", "syslog-ident", "tcp-backlog"),
    )
)

_SIZE = re.compile(r"(\d+)([kmg]?b?)", re.IGNORECASE)
_FACTORS = {
    **{"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2},
    **{"g": 1000**3, "gb": 1024**3},
}


class Refused(Exception):
    """Redis answered with an error."""


class Client:
    """One connection to a Redis on this host."""

    def __init__(self, path: str, timeout: float = 30) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def pairs(self, *words: str) -> dict[str, str]:
        found = self.call(*words)
        return dict(zip(found[::2], found[1::2], strict=True))

    def _reply(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2].decode("utf-8", "replace")
        if kind == b"-":
            raise Refused(rest)
        if kind == b"*":
            return [self._reply() for _item in range(int(rest))]
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self._stream.read(size + 2)
            if len(data) < size + 2:
                raise ConnectionError("Redis closed the connection")
            return data[:-2].decode("utf-8", "replace")
        return int(rest) if kind == b":" else rest


# --- settings -------------------------------------------------------------------------------------


def same_value(key: str, wanted: str, actual: str) -> bool:
    """Whether CONFIG GET's answer is what is wanted, however either is written."""
    if key == "client-output-buffer-limit":
        there = _limits(actual)
        return all(there.get(kind) == limits for kind, limits in _limits(wanted).items())
    return _words(wanted) == _words(actual)


def _words(value: str) -> list[str]:
    return [_word(word) for word in value.split()]


def _word(word: str) -> str:
    match = _SIZE.fullmatch(word)
    if match is None:
        return word.lower()
    return str(int(match.group(1)) * _FACTORS[match.group(2).lower()])


def _limits(value: str) -> dict[str, list[str]]:
    words = _words(value)
    return {
        words[at].replace("replica", "slave"): words[at + 1 : at + 4]
        for at in range(0, len(words), 4)
    }


def changed_settings(wanted: Mapping[str, str], actual: Mapping[str, str]) -> list[str]:
    """Keys whose value differs. What CONFIG GET does not know is left to the next start."""
    return [
        key
        for key, value in wanted.items()
        if key in actual and not same_value(key, value, actual[key])
    ]


def without_keys(text: str, keys: Iterable[str]) -> str:
    """The text of a redis.conf without these keys."""
    gone = set(keys)
    return "".join(
        line for line in text.splitlines(keepends=True) if (line.split() or [""])[0] not in gone
    )


# --- users ----------------------------------------------------------------------------------------


def listed_users(lines: Iterable[str]) -> dict[str, str]:
    """Rules by name, as ACL LIST tells them."""
    found = {}
    for line in lines:
        _user, name, *rules = line.split(" ")
        found[name] = " ".join(rules)
    return found


def fingerprint(rules: str) -> str:
    # Redis 7.0 lists a user's commands in another order after each start.
    return hashlib.sha256(" ".join(sorted(rules.split())).encode()).hexdigest()


def remembered(wanted: Mapping[str, str], actual: Mapping[str, str]) -> dict[str, list[str]]:
    """What was loaded and what Redis made of it, by user.

    Redis writes rules in words of its own, so the two can only be compared with what they were.
    """
    return {
        name: [fingerprint(rules), fingerprint(actual.get(name, ""))]
        for name, rules in wanted.items()
    }


def changed_users(
    wanted: Mapping[str, str],
    actual: Mapping[str, str],
    memory: Mapping[str, Sequence[str]],
) -> list[str]:
    """In words."""
    now = remembered(wanted, actual)
    words = [f"user {name}: added" for name in wanted if name not in actual]
    words += [
        f"user {name}: changed"
        for name in wanted
        if name in actual and list(memory.get(name, [])) != now[name]
    ]
    words += [f"user {name}: removed" for name in actual if name not in wanted]
    return words
