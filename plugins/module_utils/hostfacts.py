# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role needs to know of a host, gathered in one pass.

The parsers are pure. Only C(gather) and the small readers below it touch the host; the
slow questions (dpkg, systemd, addresses) are asked at the same time.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.hostfacts_units import (
    scan,
    unit_file_states,
)

PENDING_DIRECTORY = "var/lib/berth/pending"

# What the role base puts around its lines in /etc/hosts.
HOSTS_MARKERS = ("# BEGIN managed by berth.platform.base", "# END managed by berth.platform.base")

# Kinds of units nobody manages by name; there can be thousands of them.
UNINTERESTING_UNITS = (".device", ".scope", ".swap")

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
}

# cgroup v1 says "no limit" with a number just below 2**63, rounded to a page.
_UNLIMITED_BYTES = 1 << 60


def parse_os_release(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            values[key] = value.strip("\"'")
    return {
        "id": values.get("ID", "linux"),
        "version": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
    }


def parse_packages(text: str, native: str = "") -> dict[str, str]:
    """Lines of "status package architecture version"; only what is installed counts.

    A package of a foreign architecture is listed as C(name:architecture), as dpkg does.
    """
    packages: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) != 4 or parts[0][1:2] != "i":
            continue
        _status, name, architecture, version = parts
        foreign = native and architecture not in (native, "all")
        packages[f"{name}:{architecture}" if foreign else name] = version
    return packages


def parse_show(text: str) -> list[dict[str, str]]:
    """The blocks of `systemctl show`, one dictionary for each unit, in order."""
    blocks: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if current:
                blocks.append(current)
            current = {}
            continue
        key, separator, value = line.partition("=")
        if separator:
            current[key] = value
    if current:
        blocks.append(current)
    return blocks


def parse_unit_list(text: str) -> dict[str, dict[str, str]]:
    """`systemctl list-units --plain --no-legend`: name, load, active and sub state."""
    units: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        parts = line.lstrip("●*○x ").split(maxsplit=4)
        if len(parts) >= 4:
            units[parts[0]] = {"load": parts[1], "active": parts[2], "sub": parts[3]}
    return units


def merge_units(
    loaded: Mapping[str, Mapping[str, str]],
    states: Mapping[str, str],
    aliases: Mapping[str, str],
) -> dict[str, dict[str, str]]:
    """Loaded units and unit files under one roof."""
    units: dict[str, dict[str, str]] = {}
    for name in {*loaded, *states}:
        if name.endswith(UNINTERESTING_UNITS):
            continue
        # An alias is another name of the same unit: who asks by it gets the same answer.
        target = aliases.get(name, name)
        known = loaded.get(name) or loaded.get(target)
        state = states.get(target, "") if states.get(name) == "alias" else states.get(name, "")
        units[name] = {
            "load": known["load"] if known else "",
            "active": known["active"] if known else "inactive",
            "sub": known["sub"] if known else "dead",
            "enabled": state,
        }
    return units


def parse_passwd(text: str) -> dict[str, dict[str, Any]]:
    users: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 7 and parts[2].isdigit() and parts[3].isdigit():
            users[parts[0]] = {
                "uid": int(parts[2]),
                "gid": int(parts[3]),
                "home": parts[5],
                "shell": parts[6].strip(),
            }
    return users


def parse_group(text: str) -> dict[str, int]:
    groups: dict[str, int] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and parts[2].isdigit():
            groups[parts[0]] = int(parts[2])
    return groups


def parse_hosts_block(text: str) -> str:
    """What is between the markers in C(/etc/hosts); empty if there is nothing or they are not."""
    begin, end = HOSTS_MARKERS
    _before, _begin, rest = text.partition(begin + "\n")
    block, found, _after = rest.partition(end)
    return block.strip() if found else ""


def parse_addresses(text: str) -> list[str]:
    """`ip -json address`: the addresses others can reach, IPv4 first."""
    try:
        links = json.loads(text or "[]")
    except ValueError:
        return []
    found: list[str] = []
    for link in links:
        for info in link.get("addr_info") or []:
            if info.get("scope") == "global" and info.get("local"):
                found.append(str(info["local"]))
    return sorted(found, key=lambda address: ":" in address)


def parse_memory_total(meminfo: str) -> int:
    """MemTotal in bytes."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def cap_memory(total: int, limits: Iterable[str]) -> int:
    """MiB that may be used: the host's memory, or the smallest limit that is set."""
    allowed = total
    for text in limits:
        value = text.strip()
        if value.isdigit() and 0 < int(value) < _UNLIMITED_BYTES:
            allowed = min(allowed, int(value)) if allowed else int(value)
    return allowed // (1024 * 1024)


def cap_cores(online: int, quotas: Iterable[str]) -> int:
    """Whole cores that may be used. A quota is "microseconds period" or "max period"."""
    allowed = max(1, online)
    for text in quotas:
        parts = text.split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]):
            quota, period = int(parts[0]), int(parts[1])
            if quota:
                allowed = min(allowed, max(1, quota // period))
    return allowed


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def _cgroup_memory_limits(root: str) -> list[str]:
    return [
        _read(os.path.join(root, "sys/fs/cgroup/memory.max")),
        _read(os.path.join(root, "sys/fs/cgroup/memory/memory.limit_in_bytes")),
    ]


def _cgroup_cpu_quotas(root: str) -> list[str]:
    quotas = [_read(os.path.join(root, "sys/fs/cgroup/cpu.max"))]
    for controller in ("cpu", "cpu,cpuacct"):
        base = os.path.join(root, "sys/fs/cgroup", controller)
        quota = _read(os.path.join(base, "cpu.cfs_quota_us")).strip()
        period = _read(os.path.join(base, "cpu.cfs_period_us")).strip()
        quotas.append(f"{quota} {period}")
    return quotas


def pending_markers(root: str = "/") -> list[str]:
    try:
        names = os.listdir(os.path.join(root, PENDING_DIRECTORY))
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def _start(argv: list[str]) -> subprocess.Popen[str] | None:
    program = shutil.which(argv[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        return None
    return subprocess.Popen(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
    )


def _finish(process: subprocess.Popen[str] | None) -> str:
    return "" if process is None else process.communicate()[0]


def gather(root: str = "/") -> dict[str, Any]:
    """Every fact of a host; what the host lacks (dpkg, systemd, ip) is left empty."""
    dpkg = _start(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Architecture} ${Version}\n"]
    )
    listed = _start(
        ["systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", "--no-pager"]
    )
    ip = _start(["ip", "-json", "address"])

    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine, machine)
    memory = parse_memory_total(_read(os.path.join(root, "proc/meminfo")))
    facts: dict[str, Any] = {
        "distribution": parse_os_release(_read(os.path.join(root, "etc/os-release"))),
        "architecture": architecture,
        "cores": cap_cores(len(os.sched_getaffinity(0)), _cgroup_cpu_quotas(root)),
        "memory_mb": cap_memory(memory, _cgroup_memory_limits(root)),
        "users": parse_passwd(_read(os.path.join(root, "etc/passwd"))),
        "groups": parse_group(_read(os.path.join(root, "etc/group"))),
        "hostname": socket.gethostname(),
        "hosts_block": parse_hosts_block(_read(os.path.join(root, "etc/hosts"))),
        "pending": pending_markers(root),
        "python": platform.python_version(),
    }
    facts["packages"] = parse_packages(_finish(dpkg), architecture)
    loaded = parse_unit_list(_finish(listed))
    found = scan(root)
    facts["units"] = merge_units(loaded, unit_file_states(found, loaded), found.aliases)
    facts["addresses"] = parse_addresses(_finish(ip))
    return facts
