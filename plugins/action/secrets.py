# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.berth.platform.plugins.module_utils.secrets import (
    Outcome,
    SecretError,
    Spec,
    check,
    forget,
    needs_store,
    settle,
)
from ansible_collections.berth.platform.plugins.plugin_utils.catalog_variables import (
    given_secrets,
)
from ansible_collections.berth.platform.plugins.plugin_utils.vault_file import VaultFile

SPEC_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "default": "password"},
    "value": {"type": "str", "no_log": True},
    "length": {"type": "int", "default": 32},
    "bits": {"type": "int", "default": 256},
    "bytes": {"type": "int", "default": 32},
    "alphabet": {"type": "str", "default": "alphanumeric"},
    "common_name": {"type": "str", "default": ""},
    "rotatable": {"type": "bool", "default": True},
}


def new_authority(common_name: str) -> str:
    """Only who needs an authority needs what makes one."""
    from ansible_collections.berth.platform.plugins.module_utils.certificates import (
        new_authority as make,
    )

    return str(make(common_name))


class ActionModule(ActionBase):  # type: ignore[misc]
    """Touches no host: whatever the connection, it is not opened."""

    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "file": {"type": "path", "required": True},
                "specs": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": SPEC_OPTIONS,
                },
                "rotate": {"type": "list", "elements": "str", "default": [], "no_log": False},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            }
        )
        path = Path(self._loader.path_dwim(str(args["file"])))
        file = VaultFile(path, self._vault_secrets())
        try:
            given = given_secrets(self._templar, task_vars or {})
            specs = [
                _spec({**item, "value": item["value"] or given.get(item["name"])})
                for item in args["specs"]
            ]
            rotate = [str(name) for name in args["rotate"]]
            if args["state"] == "absent":
                if rotate:
                    raise SecretError("rotate and state: absent exclude each other")
                outcome = self._settle(file, specs, None)
            else:
                outcome = self._settle(file, specs, rotate)
        except SecretError as error:
            raise AnsibleActionFail(str(error)) from None
        diff = outcome.diff()
        if diff and self._task.diff:
            # The result is hidden as a whole, so that its diff would be, too.
            self._display.display(f"{path}\n{diff}", newline=False)
        return {
            # Secret whether or not the task says no_log.
            "_ansible_no_log": True,
            "changed": outcome.changed,
            "file": str(path),
            "secret_values": outcome.values,
            "generated": outcome.generated,
            "rotated": outcome.rotated,
            "removed": outcome.removed,
            "unused": outcome.unused,
            "diff": [{"header": str(path), "prepared": diff}] if diff else [],
        }

    def _settle(self, file: VaultFile, specs: list[Spec], rotate: list[str] | None) -> Outcome:
        """`rotate` is None when the secrets are to be forgotten."""

        def outcome(stored: dict[str, str]) -> Outcome:
            if rotate is None:
                return forget([spec.name for spec in specs], stored)
            return settle(specs, stored, rotate, new_authority, str(file.shown))

        check(specs)
        if rotate is not None and not needs_store(specs, rotate) and not file.has_password:
            return outcome({})
        stored = file.read()
        found = outcome(stored)
        if not found.changed:
            return found
        file.require_password("written")
        if self._task.check_mode:
            return found
        with file.locked():
            latest = file.read()
            if latest != stored:
                found = outcome(latest)
            if found.changed:
                file.write(found.stored)
        return found

    def _vault_secrets(self) -> list[Any]:
        """Those of this run: the loader has them, by whatever option they came."""
        vault = getattr(self._loader, "_vault", None)
        found = getattr(vault, "secrets", None)
        if not found:
            try:
                from ansible.parsing.vault import VaultSecretsContext
            except ImportError:
                return []
            context = VaultSecretsContext.current(optional=True)
            found = context.secrets if context else None
        return list(found or [])


def _spec(item: dict[str, Any]) -> Spec:
    value = item["value"]
    return Spec(
        name=str(item["name"]),
        kind=str(item["kind"]),
        value=None if value is None else str(value),
        length=int(item["length"]),
        bits=int(item["bits"]),
        bytes=int(item["bytes"]),
        alphabet=str(item["alphabet"]),
        common_name=str(item["common_name"]),
        rotatable=bool(item["rotatable"]),
    )
