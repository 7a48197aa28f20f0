# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of berth.platform.report: gathers what hosts said, renders, writes."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.berth.platform.plugins.module_utils.report.from_plan import report_of
from ansible_collections.berth.platform.plugins.module_utils.report.page import page
from ansible_collections.berth.platform.plugins.module_utils.report.text import text


class ActionModule(ActionBase):  # type: ignore[misc]
    """Draws the report; no host is touched."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "dict", "required": True},
                "html": {"type": "path"},
                "text": {"type": "path"},
                "show": {"type": "bool", "default": True},
                "health": {"type": "str", "default": "health_result"},
                "backups": {"type": "str", "default": "backup_status"},
            }
        )
        plan = args["plan"]
        if not isinstance(plan.get("hosts"), Mapping):
            raise AnsibleActionFail("plan has no hosts: give what berth.platform.plan returned")
        hostvars = (task_vars or {}).get("hostvars", {})
        seen = {name: _of(hostvars, name, args["health"]) for name in plan["hosts"]}
        states = {name: _of(hostvars, name, args["backups"]) for name in plan["hosts"]}
        report = report_of(
            plan,
            {name: each for name, each in seen.items() if each is not None},
            {name: _status(each) for name, each in states.items() if each and _ran(each)},
            datetime.datetime.now(datetime.timezone.utc),
        )
        changed = False
        for option, render in (("html", page), ("text", text)):
            if args[option] and not self._task.check_mode:
                try:
                    _write(Path(args[option]), render(report))
                except OSError as error:
                    raise AnsibleActionFail(f"{args[option]}: {error.strerror}") from None
                changed = True
        if args["show"]:
            # As it stands: a callback would fold its lines.
            self._display.display(text(report), newline=False)
        result: dict[str, Any] = {
            "changed": changed,
            "well": report.well,
            "attention": [f"{where}: {what}" for where, what, _hint in report.attention()],
        }
        if args["html"]:
            result["html"] = str(Path(args["html"]).absolute())
        return result


def _of(hostvars: Mapping[str, Any], host: str, name: str) -> Mapping[str, Any] | None:
    """What a task registered on a host; None if it did not run there."""
    own = hostvars.get(host)
    found = None if own is None else own.get(name)
    return found if isinstance(found, Mapping) else None


def _ran(result: Mapping[str, Any]) -> bool:
    return not result.get("skipped") and not result.get("unreachable")


def _status(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `berth-backup status` printed, or why it did not."""
    try:
        found = json.loads(result.get("stdout") or "")
    except ValueError:
        found = None
    if isinstance(found, Mapping):
        return found
    if not result.get("stderr") and result.get("rc") == 2:
        return {"msg": "berth-backup is not there yet"}
    return {"msg": str(result.get("stderr") or result.get("msg") or "no answer")}


def _write(path: Path, content: str) -> None:
    """Replace the file at once: whoever looks sees the old page or the new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
