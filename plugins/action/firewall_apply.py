# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(firewall_apply): new rules have to let a new connection through."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.berth.platform.plugins.module_utils import nft

MODULE = "berth.platform.firewall_apply"
# The timer's accuracy, the time it takes to load a table, and to connect again.
GRACE_SECONDS = 5
RETURN_SECONDS = 20


class ActionModule(ActionBase):
    """Loads the rules, then comes back over another connection to confirm them."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        arguments = dict(self._task.args)
        self._check(arguments)
        result.update(self._call(arguments, task_vars))
        if not result.pop("unconfirmed", False):
            result.pop("checksum", None)
            return result
        began = time.monotonic()
        checksum = result.pop("checksum")
        try:
            self._connect_anew()
            confirmation = self._call({"state": "confirmed", "checksum": checksum}, task_vars)
        except AnsibleConnectionFailure as error:
            return self._reverted(result, began, arguments, str(error))
        result.update(confirmation)
        return result

    def _check(self, arguments: dict[str, Any]) -> None:
        """Faulty rules are known before the host is asked anything."""
        if arguments.get("state", "present") == "confirmed":
            raise AnsibleActionFail("state: confirmed is this action's own; use present")
        try:
            nft.parse_rules(arguments.get("rules") or [])
        except nft.RulesError as error:
            raise AnsibleActionFail("\n".join(error.faults)) from None

    def _call(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        called: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=arguments, task_vars=task_vars
        )
        return called

    def _connect_anew(self) -> None:
        """An established connection proves nothing: the table accepts what is established."""
        if self._connection.transport != "local":
            self._connection.reset()

    def _reverted(
        self, result: dict[str, Any], began: float, arguments: dict[str, Any], error: str
    ) -> dict[str, Any]:
        """Wait until the host has its previous rules back, and say whether it has."""
        seconds = max(15, int(arguments.get("revert_seconds", 60)))
        time.sleep(max(0.0, began + seconds + GRACE_SECONDS - time.monotonic()))
        deadline = time.monotonic() + RETURN_SECONDS
        answers = False
        while not answers and time.monotonic() < deadline:
            try:
                self._connect_anew()
                answers = self._low_level_execute_command("true").get("rc") == 0
            except AnsibleConnectionFailure:
                time.sleep(1)
        outcome = (
            "The previous rules are back and the host answers."
            if answers
            else "The host does not answer although the previous rules should be back."
        )
        result.update(
            failed=True,
            changed=False,
            confirmed=False,
            msg=f"The new rules let no new connection through, so they were not kept. {outcome} "
            f"The connection failed with: {error}",
        )
        return result
