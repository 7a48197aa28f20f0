# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running cluster and the files it was told to run with: tested, loaded, or put back.

The server itself says what is wrong with a file (pg_file_settings, pg_hba_file_rules) before it
loads it, and which settings wait for a restart afterwards. Files that once were loaded without
complaint are kept, so that bad ones can be replaced by them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.postgresql_server import (
    ADMIN,
    Server,
    ServerError,
    Unreachable,
    run,
    tail,
)

KEPT = "/var/lib/berth/postgresql"
PENDING = "/var/lib/berth/pending"
_EVERYWHERE = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

# A setting that needs a restart is reported as one that could not be applied, and one that was
# taken out without a file: no faults, both.
FILES_QUESTION = """\
SELECT jsonb_build_object(
  'loaded', pg_conf_load_time()::text,
  'settings', (SELECT coalesce(jsonb_agg(jsonb_build_object('file', f.sourcefile,
        'line', f.sourceline, 'name', f.name, 'error', f.error)), '[]')
      FROM pg_file_settings f LEFT JOIN pg_settings s ON s.name = lower(f.name)
      WHERE f.error IS NOT NULL AND f.sourcefile IS NOT NULL
        AND s.context IS DISTINCT FROM 'postmaster'),
  'rules', (SELECT coalesce(jsonb_agg(jsonb_build_object('file', current_setting('hba_file'),
        'line', line_number, 'error', error)), '[]')
      FROM pg_hba_file_rules WHERE error IS NOT NULL));
"""
LOADED_QUESTION = """\
SELECT jsonb_build_object('loaded', pg_conf_load_time()::text, 'standby', pg_is_in_recovery(),
  'pending', (SELECT coalesce(jsonb_agg(name ORDER BY name), '[]')
      FROM pg_settings WHERE pending_restart));
"""


def faults(answer: dict[str, Any]) -> list[str]:
    """What the server has against its files, in lines."""
    found = []
    for entry in answer["settings"]:
        what = f"{entry['name']}: " if entry.get("name") else ""
        found.append(f"{entry['file']} line {entry['line']}: {what}{entry['error']}")
    for entry in answer["rules"]:
        found.append(f"{entry['file']} line {entry['line']}: {entry['error']}")
    return found


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def reach(addresses: Sequence[str], port: int) -> list[str]:
    """The addresses on which nothing accepts a connection."""
    dead = []
    for address in addresses:
        try:
            socket.create_connection((_EVERYWHERE.get(address, address), port), 5).close()
        except OSError as error:
            dead.append(f"{address} ({error.strerror or error})")
    return dead


@dataclass
class Keeper:
    """The last files that were loaded without complaint."""

    directory: str
    paths: Sequence[str]

    def _copy(self, path: str) -> str:
        return os.path.join(self.directory, path.strip("/").replace("/", "__"))

    def keep(self) -> None:
        """What is on disk is good."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for path in self.paths:
            if os.path.exists(path):
                draft = self._copy(path) + ".new"
                shutil.copy2(path, draft)
                os.replace(draft, self._copy(path))

    def put_back(self) -> list[str]:
        """Replace what differs from the good ones; returns what was replaced."""
        replaced = []
        for path in self.paths:
            copy = self._copy(path)
            if not os.path.exists(copy) or not os.path.exists(path):
                continue
            with open(copy, "rb") as good, open(path, "rb") as bad:
                if good.read() == bad.read():
                    continue
            there = os.stat(path)
            draft = path + ".berth-new"
            shutil.copy2(copy, draft)
            os.chown(draft, there.st_uid, there.st_gid)
            os.chmod(draft, there.st_mode & 0o7777)
            os.replace(draft, path)
            replaced.append(path)
        return replaced


@dataclass
class Cluster:
    """One cluster as systemd and its own server see it."""

    server: Server
    name: str = "main"
    wait: float = 60.0

    @property
    def unit(self) -> str:
        """Its unit."""
        return f"postgresql@{self.server.version}-{self.name}.service"

    @property
    def log_file(self) -> str:
        """Where it writes until its own log is open."""
        return f"/var/log/postgresql/postgresql-{self.server.version}-{self.name}.log"

    def running(self) -> Server:
        """The server as it runs: its port is still the old one when the files name a new one."""
        directory = self.server.socket_directory
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"{directory}/{self.server.version}-{self.name}.pid") as handle:
                pid = handle.read().split()[0]
            for entry in sorted(os.listdir(directory)):
                if entry.startswith(".s.PGSQL.") and entry.endswith(".lock"):
                    with open(f"{directory}/{entry}") as handle:
                        lines = handle.read().splitlines()
                    if lines[0] == pid:
                        return replace(self.server, port=int(lines[3]))
        return self.server

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(["/usr/bin/systemctl", *words], user=None)

    def active(self) -> bool:
        return self.systemctl("is-active", "--quiet", self.unit).returncode == 0

    def ended(self) -> bool:
        """Whether it neither runs nor is about to."""
        state = self.systemctl("show", "-P", "ActiveState", self.unit).stdout.strip()
        if state in ("active", "activating"):
            return False
        # A start that was only asked for has not begun.
        return not self.systemctl("show", "-P", "Job", self.unit).stdout.strip()

    def enabled(self) -> bool:
        return self.systemctl("is-enabled", "--quiet", "postgresql.service").returncode == 0

    def control(self, verb: str) -> None:
        """Start or restart it and wait until it answers.

        Debian's pg_ctlcluster goes on sleeping for two seconds when a server that was started
        answers already: nobody waits for that.
        """
        before = _size(self.log_file)
        done = self.systemctl(verb, *(["--no-block"] if verb == "start" else []), self.unit)
        if done.returncode != 0:
            raise ServerError(f"{self.unit} did not {verb}: {self.reason(before)}")
        self.ready(before)

    def reason(self, before: int) -> str:
        """What its log says beyond that size; else what systemd's journal says."""
        words = tail(self.log_file, before)
        if not words:
            command = ["/usr/bin/journalctl", "-q", "-n", "20", "--no-pager", "-o", "cat"]
            words = run([*command, "-u", self.unit], user=None).stdout.strip()
        return words or "it says nothing"

    def ready(self, before: int) -> None:
        """Wait until it answers."""
        began = time.time()
        while True:
            try:
                self.server.ask(ADMIN, LOADED_QUESTION)
                return
            except Unreachable as error:
                if time.time() - began > self.wait:
                    raise ServerError(
                        f"{self.unit} does not answer after {self.wait:g} s ({error}): "
                        f"{self.reason(before)}"
                    ) from None
                if self.ended():
                    raise ServerError(f"{self.unit} ended: {self.reason(before)}") from None
            time.sleep(0.1)

    def reload(self, before: str) -> dict[str, Any]:
        """Load the files; *before* is when they were loaded last."""
        server = self.running()
        server.ask(ADMIN, "SELECT to_jsonb(pg_reload_conf());")
        deadline = time.monotonic() + 10
        while True:
            answer: dict[str, Any] = server.ask(ADMIN, LOADED_QUESTION)
            if answer["loaded"] != before:
                return answer
            if time.monotonic() > deadline:
                raise ServerError(f"{self.unit} did not reload its files within 10 s")
            time.sleep(0.05)


@dataclass
class Outcome:
    """What was done."""

    actions: list[str] = field(default_factory=list)
    pending_restart: list[str] = field(default_factory=list)


def apply(cluster: Cluster, keeper: Keeper, *, restart: bool) -> Outcome:
    """Have the cluster run with the files on disk, or leave it as it was and say why."""
    outcome = Outcome()
    if cluster.systemctl("show", "-P", "NeedDaemonReload", cluster.unit).stdout.strip() == "yes":
        cluster.systemctl("daemon-reload")
    if not cluster.enabled():
        done = cluster.systemctl("enable", "--quiet", "postgresql.service")
        if done.returncode != 0:
            raise ServerError(f"postgresql.service cannot be enabled: {done.stderr.strip()}")
        outcome.actions.append("enabled")
    if not cluster.active():
        _or_put_back(cluster, keeper, "start")
        cluster.systemctl("start", "--no-block", "postgresql.service")
        outcome.actions.append("started")
    else:
        answer = cluster.running().ask(ADMIN, FILES_QUESTION)
        wrong = faults(answer)
        if wrong:
            replaced = keeper.put_back()
            raise ServerError(
                "; ".join(wrong)
                + "; nothing was loaded, the server runs on as before"
                + (f"; put back: {', '.join(replaced)}" if replaced else "")
            )
        after = cluster.reload(answer["loaded"])
        outcome.actions.append("reloaded")
        if after["pending"] and restart:
            _or_put_back(cluster, keeper, "restart")
            outcome.actions.append("restarted")
        else:
            outcome.pending_restart = after["pending"]
    keeper.keep()
    return outcome


def _or_put_back(cluster: Cluster, keeper: Keeper, verb: str) -> None:
    try:
        cluster.control(verb)
    except ServerError as error:
        replaced = keeper.put_back()
        if not replaced:
            raise
        words = f"{error}; put back: {', '.join(replaced)}"
        try:
            cluster.control("restart")
        except ServerError as second:
            raise ServerError(f"{words}; and even so {second}") from error
        raise ServerError(f"{words}; the server runs as before") from error


def applied(marker: str) -> None:
    """What was written is in force."""
    if marker:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(PENDING, marker))
