# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts and groups that a catalog speaks of, as plain values."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.berth.platform.plugins.module_utils.faults import Faults, nearest


@dataclass(frozen=True)
class Host:
    """A host: its address in the platform's network, where one is known."""

    name: str
    address: str | None
    ssh_port: int = 22


@dataclass(frozen=True)
class Inventory:
    """Hosts by name, and the host names of each group in inventory order."""

    hosts: Mapping[str, Host]
    groups: Mapping[str, Sequence[str]]

    def group(self, name: str) -> list[str]:
        """The hosts of a group; none where there is no such group."""
        return list(self.groups.get(name, ()))

    def resolve(self, patterns: Sequence[str], key: str, faults: Faults) -> list[str]:
        """The hosts of groups, host names and globs, each once, in inventory order."""
        chosen: set[str] = set()
        for pattern in patterns:
            if pattern in self.groups:
                if not self.groups[pattern]:
                    faults.add(key, pattern, "is an empty group; add a host to it")
                chosen.update(self.groups[pattern])
            elif pattern in self.hosts:
                chosen.add(pattern)
            elif matches := fnmatch.filter(self.hosts, pattern):
                chosen.update(matches)
            else:
                known = [*self.hosts, *(name for name in self.groups if name != "ungrouped")]
                faults.add(key, pattern, "is no host and no group; " + nearest(pattern, known))
        return [name for name in self.hosts if name in chosen]
