"""Writes what a play does as one JSON object per line, beside the ordinary output.

BERTH_EVENTS names the file. Only names, states and paths are written, never a value.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: system_events
type: aggregate
short_description: Events of a play as lines of JSON
description: For the system tests, which compare runs task by task.
requirements:
  - the environment variable BERTH_EVENTS
"""


class CallbackModule(CallbackBase):
    """One line for each start of a task, each host's result, and the recap."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "system_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.play = ""
        self.began = time.monotonic()
        self.file = Path(os.environ["BERTH_EVENTS"])

    def _write(self, event: str, **fields: Any) -> None:
        seconds = round(time.monotonic() - self.began, 2)
        # At once, so that a run that is killed leaves all that it did.
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, "seconds": seconds, **fields}) + "\n")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.play = play.get_name().strip()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._write("task", play=self.play, task=task.get_name(), handler=False)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._write("task", play=self.play, task=task.get_name(), handler=True)

    def _result(self, state: str, result: Any) -> None:
        found = result.result
        probes = found.get("probes") or ()
        self._write(
            "result",
            state=state,
            play=self.play,
            host=result.host.get_name(),
            task=result.task.get_name(),
            handler=type(result.task).__name__ == "Handler",
            changed=bool(found.get("changed", False)),
            files=sorted(map(str, found.get("changed_files") or ())),
            probes={
                str(each["name"]): bool(each["healthy"])
                for each in probes
                if isinstance(each, dict) and "healthy" in each
            },
        )

    def v2_runner_on_ok(self, result: Any) -> None:
        self._result("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._result("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._result("skipped", result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write("stats", hosts={host: stats.summarize(host) for host in stats.processed})
