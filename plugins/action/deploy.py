# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of berth.platform.deploy: says who deploys, and shows what is done."""

from __future__ import annotations

import getpass
import socket
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "berth.platform.deploy"
display = Display()


class ActionModule(ActionBase):
    """Starts a deploy on the host, and listens to it until it ends."""

    _supports_check_mode = True
    _supports_diff = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments.setdefault("who", self._who())
        host = (task_vars or {}).get("inventory_hostname", "")
        lines: list[str] = []
        answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        while True:
            for line in answer.get("lines") or ():
                display.display(f"{host}: {line}")
                lines.append(line)
            if not answer.get("running") or not answer.get("id"):
                break
            listen = {"follow": answer["id"], "seen": len(lines)}
            answer = self._execute_module(MODULE, module_args=listen, task_vars=task_vars)
        answer["lines"] = lines
        result.update(answer)
        return result

    def _who(self) -> str:
        try:
            return f"{getpass.getuser()}@{socket.gethostname()}"
        except (OSError, KeyError):
            return socket.gethostname()
