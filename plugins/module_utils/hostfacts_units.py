# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of unit files, read from the disk in one pass.

`systemctl list-unit-files` goes through every directory of wanted units once for each unit:
a fifth of a second on a small host, more on a large one. Here each directory is read once.
The states are those of systemctl(1), "is-enabled"; the search path is systemd.unit(5)'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

# In the order in which the first one to have a name wins.
SEARCH_PATH = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
)
_PERSISTENT = ("etc/systemd/system",)
_RUNTIME = (
    "run/systemd/system",
    "run/systemd/generator.early",
    "run/systemd/generator",
    "run/systemd/generator.late",
)
_SUFFIXES = (
    ".service",
    ".socket",
    ".timer",
    ".target",
    ".path",
    ".mount",
    ".automount",
    ".slice",
    ".swap",
)
_PULLING = (".wants", ".requires", ".upholds")
_INSTALLING = ("wantedby", "requiredby", "upheldby", "alias")


@dataclass
class Found:
    """What one pass over the directories has seen."""

    # name -> directory (of SEARCH_PATH), target of a link or None, path
    files: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    enabled_runtime: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)


def template_of(name: str) -> str:
    """C(foo@.service) of C(foo@bar.service); empty for a unit that is no instance."""
    stem, _dot, suffix = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    return f"{prefix}@.{suffix}" if at and instance else ""


def parse_install(text: str) -> str:
    """What the [Install] section makes of a unit that nothing has enabled."""
    section = ""
    also = False
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        elif section == "[Install]" and "=" in stripped and stripped[0] not in "#;":
            key, _equals, value = stripped.partition("=")
            if not value.strip():
                continue
            if key.strip().lower() in _INSTALLING:
                return "disabled"
            also = also or key.strip().lower() in ("also", "defaultinstance")
    return "indirect" if also else "static"


def scan(root: str = "/") -> Found:
    found = Found()
    seen: set[str] = set()
    for directory in SEARCH_PATH:
        path = os.path.join(root, directory)
        real = os.path.realpath(path)
        if real in seen:
            continue  # /lib is /usr/lib on merged systems.
        seen.add(real)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            name = entry.name
            if name.endswith(_PULLING):
                if directory in _PERSISTENT + _RUNTIME:
                    _pulled(entry.path, directory, found)
                continue
            if not name.endswith(_SUFFIXES):
                continue
            target = _link_target(entry)
            if target is not None and os.path.basename(target) not in (name, "null"):
                found.aliases.setdefault(name, os.path.basename(target))
                # A link made by hand or by `Alias=` is one way of being enabled.
                if directory in _PERSISTENT:
                    found.enabled.add(os.path.basename(target))
                elif directory == "run/systemd/system":
                    found.enabled_runtime.add(os.path.basename(target))
            if name not in found.files:
                found.files[name] = (directory, target, entry.path)
    return found


def _link_target(entry: os.DirEntry[str]) -> str | None:
    try:
        return os.readlink(entry.path) if entry.is_symlink() else None
    except OSError:
        return None


def _pulled(path: str, directory: str, found: Found) -> None:
    try:
        names = os.listdir(path)
    except OSError:
        return
    (found.enabled if directory in _PERSISTENT else found.enabled_runtime).update(names)


def _is_null(target: str) -> bool:
    return os.path.normpath(target) == "/dev/null"


def _install_state(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            text = handle.read()
    except OSError:
        return "bad"
    # An empty file masks a unit as /dev/null does.
    return parse_install(text) if text else "masked"


def _state(name: str, found: Found, enabled: set[str], runtime: set[str]) -> str:
    directory, target, path = found.files[name]
    if target is not None and _is_null(target):
        return "masked" if directory.startswith("etc") or "lib/" in directory else "masked-runtime"
    if target is not None and os.path.basename(target) != name:
        return "alias"
    if directory.startswith("run/systemd/generator"):
        return "generated"
    if directory == "run/systemd/transient":
        return "transient"
    if name in enabled:
        return "enabled"
    if name in runtime:
        return "enabled-runtime"
    state = _install_state(path)
    if target is not None and state != "bad":
        return "linked" if directory.startswith("etc") else "linked-runtime"
    if not path.endswith(name) or state == "masked":
        return "masked"
    return state


def unit_file_states(found: Found, extra: Iterable[str] = ()) -> dict[str, str]:
    """The state of every unit file, and of the instances that are enabled or in C(extra)."""
    # An enabled instance makes its template count as enabled.
    enabled = found.enabled | {template_of(name) for name in found.enabled}
    runtime = found.enabled_runtime | {template_of(name) for name in found.enabled_runtime}
    states = {name: _state(name, found, enabled, runtime) for name in found.files}
    for name in {*found.enabled, *found.enabled_runtime, *extra}:
        template = template_of(name)
        if name in states or template not in states:
            continue
        if name in found.enabled:
            states[name] = "enabled"
        elif name in found.enabled_runtime:
            states[name] = "enabled-runtime"
        else:
            states[name] = _install_state(found.files[template][2])
    return states
