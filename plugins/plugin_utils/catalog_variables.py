# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `platform_*` variables of a run, as the plain values that the pure core takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.catalog import PREFIX, read_catalog
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults


def plain(value: Any) -> Any:
    """A value free of Ansible's lazy and tagged types."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, str):
        return str.__str__(value)
    return value


def catalog_variables(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Every catalog variable, with its templates resolved."""
    return {
        name: plain(templar.template(value))
        for name, value in task_vars.items()
        if name.startswith(PREFIX)
    }


def given_secrets(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, str]:
    """The secrets whose values the user gives, by name; the plan never carries them."""
    catalog = read_catalog(catalog_variables(templar, task_vars), Faults())
    if catalog is None:
        return {}
    return {
        name: str(spec["value"])
        for name, spec in catalog.options["secrets"].items()
        if spec and spec.get("value")
    }
