# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of berth.platform.plan: reads the inventory, plans, keeps the port lock."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader
from ansible_collections.berth.platform.plugins.module_utils.catalog import read_catalog
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.inventory import Host, Inventory
from ansible_collections.berth.platform.plugins.module_utils.plan import build
from ansible_collections.berth.platform.plugins.module_utils.plan_result import result_of
from ansible_collections.berth.platform.plugins.module_utils.ports import read_lock, render_lock
from ansible_collections.berth.platform.plugins.plugin_utils.catalog_variables import (
    catalog_variables,
)

# The linear strategy loads an action plugin in the process that it forks for every task. What is
# loaded here, in the first task of every playbook, is there in all of them; each would otherwise
# load all filters of Ansible and of the collection before it can use one.
filter_loader.get("berth.platform.with_secrets")
test_loader.get("ansible.builtin.defined")


def is_address(value: object) -> bool:
    """Whether *value* is an IP address."""
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return False
    return True


class ActionModule(ActionBase):  # type: ignore[misc]
    """Plans the platform; no host is touched."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec(
            argument_spec={
                "write": {"type": "bool", "default": True},
                "show": {"type": "bool", "default": False},
            }
        )
        faults = Faults()
        variables = catalog_variables(self._templar, task_vars)
        inventory = self._inventory(task_vars)
        directory = self._directory(task_vars)
        catalog = read_catalog(variables, faults)
        if catalog is None:
            raise AnsibleActionFail(self._message(faults))

        lock = directory / (catalog.options["ports"]["lock"] or "ports.lock.yml")
        writes = self._task.args.get("write", True) and not self._task.check_mode
        with _Locked(lock if writes else None):
            before = lock.read_text() if lock.is_file() else ""
            ledger = read_lock(before, lock.name, faults)
            plan = build(catalog, inventory, ledger, faults)
            if plan is None or faults:
                raise AnsibleActionFail(self._message(faults))
            result = result_of(plan, faults)
            if faults:
                raise AnsibleActionFail(self._message(faults))
            after = render_lock(plan.allocation.ledger)
            changed = before != after
            if changed and writes:
                _write(lock, after)
        secrets_file = catalog.options["secrets_file"] or "secrets.vault.yml"
        result.update(
            changed=changed,
            lock_file=str(lock),
            secrets_file=str(directory / secrets_file),
            # The whole plan at every -v helps nobody: playbooks/plan.yml prints it for people.
            _ansible_verbose_override=True,
        )
        if self._task.args.get("show", False):
            # As it stands: a callback would fold its lines.
            self._display.display(result["text"], newline=False)
        if changed and (self._task.diff or self._task.check_mode):
            header = str(lock)
            result["diff"] = {
                "before": before,
                "after": after,
                "before_header": header,
                "after_header": header,
            }
        return result

    def _inventory(self, task_vars: Mapping[str, Any]) -> Inventory:
        """The inventory's hosts with their addresses, and its groups."""
        hosts = {}
        hostvars = task_vars["hostvars"]
        groups = {name: [str(host) for host in each] for name, each in task_vars["groups"].items()}
        for name in groups.get("all", []):
            own = hostvars[name]
            address = own.get("platform_address")
            if address is None and is_address(own.get("ansible_host", name)):
                address = own.get("ansible_host", name)
            if address is not None and not is_address(address):
                raise AnsibleActionFail(
                    f"host {name}: platform_address is {address!r}: write an IP address"
                )
            port = own.get("ansible_port", 22)
            hosts[str(name)] = Host(str(name), str(address) if address else None, int(port))
        return Inventory(hosts, groups)

    def _directory(self, task_vars: Mapping[str, Any]) -> Path:
        """Beside the first inventory given: further ones only lay over it."""
        sources = task_vars.get("ansible_inventory_sources") or []
        for source in sources:
            path = Path(str(source))
            if path.is_dir():
                return path
            if path.is_file():
                return path.parent
        raise AnsibleActionFail(
            "the port lock and the secrets are kept beside the inventory, and none was given as a "
            "file or folder: use -i inventories/<system>"
        )

    @staticmethod
    def _message(faults: Faults) -> str:
        lines = faults.lines()
        count = "one fault" if len(lines) == 1 else f"{len(lines)} faults"
        return f"The catalog has {count}; no host was changed.\n" + "\n".join(
            f"  - {line}" for line in lines
        )


class _Locked:
    """Holds a lock on the lock file's folder, so that two runs never give out one port twice."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        if self._path is not None:
            if not self._path.parent.is_dir():
                raise AnsibleActionFail(
                    f"platform_ports.lock: the folder {self._path.parent} does not exist"
                )
            self._fd = os.open(self._path.parent, os.O_RDONLY)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_error: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _write(path: Path, text: str) -> None:
    """Replace the file at once: a killed run leaves the old one or the new one."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
