# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pgAdmin's settings and servers: what the role writes, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# pgAdmin's own bound, and what is refused for an account that sees databases.
LEAST_PASSWORD = 8

_KEY = re.compile(r"[A-Z][A-Z0-9_]*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def settings(node: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """config_system.py's names and values, as Python; what is `given` wins, null leaves a key out.

    `node` has path and data_directory, as the role's variables do.
    """
    data = str(node["data_directory"])
    wanted: dict[str, Any] = {
        "SERVER_MODE": True,
        "DATA_DIR": data,
        "LOG_FILE": f"{data}/pgadmin4.log",
        "LOG_ROTATION_MAX_LOG_FILES": 9,
        "COOKIE_DEFAULT_PATH": str(node["path"]) or "/",
        "SESSION_COOKIE_SECURE": True,
        # Databases' passwords are asked for, and kept for the session.
        "ALLOW_SAVE_PASSWORD": False,
        "MASTER_PASSWORD_REQUIRED": False,
        "AUTO_DISCOVER_SERVERS": False,
        # What would speak with others.
        "UPGRADE_CHECK_ENABLED": False,
        "SHOW_GRAVATAR_IMAGE": False,
        "LLM_ENABLED": False,
    }
    wanted.update(given)
    return {name: python(value) for name, value in wanted.items() if value is not None}


def python(value: Any) -> str:
    """A value as Python writes it, of plain types only: Ansible's own have other names."""
    if isinstance(value, Mapping):
        pairs = (f"{python(key)}: {python(inner)}" for key, inner in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(python, value))}]"
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return repr(kind(value))
    return "None" if value is None else repr(str(value))


def servers(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The servers with their defaults, in the order of their names."""
    complete = [
        {
            "name": str(server["name"]),
            "group": str(server.get("group") or "Servers"),
            "host": str(server["host"]),
            "port": int(server.get("port") or 5432),
            "database": str(server.get("database") or "postgres"),
            "user": str(server["user"]),
            "sslmode": str(server.get("sslmode") or "prefer"),
        }
        for server in given
    ]
    return sorted(complete, key=lambda server: (server["group"], server["name"]))


def faults(
    node: Mapping[str, Any], given: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Everything that is wrong, each with its key and what would be right.

    `node` also has email and password.
    """
    found = []
    if not _EMAIL.fullmatch(str(node["email"])):
        found.append(
            f"pgadmin_admin_email {str(node['email'])!r}: write an address like admin@example.com"
        )
    if len(str(node["password"])) < LEAST_PASSWORD:
        found.append(
            f"pgadmin_admin_password has less than {LEAST_PASSWORD} characters: give a longer one"
        )
    if not _PATH.fullmatch(str(node["path"])):
        found.append(
            f"pgadmin_path {str(node['path'])!r}: write a path like /pgadmin, or nothing for /"
        )
    found += [
        f"pgadmin_settings: {str(name)!r} is no key: write one like SESSION_EXPIRATION_TIME"
        for name in given
        if not _KEY.fullmatch(str(name))
    ]
    names = [(server["group"], server["name"]) for server in servers(listed)]
    found += [
        f"pgadmin_servers: {name} is listed twice in the group {group}"
        for group, name in sorted({each for each in names if names.count(each) > 1})
    ]
    return found
