# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placeholders like `{port}` or `{postgresql.host}` in the catalog's strings.

`{secret:<name>}` stays as it is: secrets are filled in last, on their way to a host, and are in
no plan. `${shell}`, `%{format}` and doubled braces are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import Faults, nearest

_PLACEHOLDER = re.compile(r"(?<![$%{])\{([A-Za-z_][A-Za-z0-9_.-]*|secret:[A-Za-z0-9_|-]+)\}")


def fill(
    value: Any,
    values: Mapping[str, str],
    key: str,
    faults: Faults,
    secret: Callable[[str], bool] = lambda name: False,
) -> Any:
    """*value* with its placeholders filled in, through lists and mappings.

    *secret* says whether a secret of that name is known. An unknown placeholder is a fault.
    """
    if isinstance(value, str):
        if "{" not in value:
            return value

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name.startswith("secret:"):
                if not secret(name[len("secret:") :].split("|")[0]):
                    faults.add(
                        key,
                        match.group(0),
                        "names a secret that is not provided; declare it under platform_secrets",
                    )
                return match.group(0)
            if name in values:
                return values[name]
            faults.add(key, match.group(0), "is no placeholder here; " + nearest(name, values))
            return match.group(0)

        return _PLACEHOLDER.sub(replace, value)
    if isinstance(value, dict):
        return {
            name: fill(each, values, f"{key}.{name}", faults, secret)
            for name, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            fill(each, values, f"{key}[{number}]", faults, secret)
            for number, each in enumerate(value)
        ]
    return value
