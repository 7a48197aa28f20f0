# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What VersityGW keeps on disk for a bucket: a directory, and its owner beside it.

The layout is that of its posix backend with a metadata directory (`--sidecar`): the attribute `acl`
of a bucket is the file `<bucket>/meta/acl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


class ObjectStoreError(ValueError):
    """What is wrong with the buckets and accounts, and what would be right."""


def owners(
    buckets: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]], root: str
) -> dict[str, str]:
    """The account of each bucket; the root account has those that nobody lists."""
    result: dict[str, str] = {}
    for bucket in buckets:
        name = str(bucket["name"])
        if not _BUCKET.match(name) or ".." in name:
            raise ObjectStoreError(
                f"object_store_buckets: {name!r} is no bucket name: use 3 to 63 lower-case "
                "letters, digits, hyphens and dots"
            )
        result[name] = root
    seen: set[str] = {root}
    for user in users:
        key = str(user["access_key"])
        if key in seen:
            raise ObjectStoreError(
                f"object_store_users: {key!r} is there twice; one key is one user"
            )
        seen.add(key)
        for name in user.get("buckets") or []:
            if name not in result:
                raise ObjectStoreError(
                    f"object_store_users: {key!r} owns {name!r}, which object_store_buckets lacks"
                )
            if result[name] != root:
                raise ObjectStoreError(
                    f"object_store_users: {name!r} is owned by {result[name]!r} and {key!r}; "
                    "a bucket has one owner"
                )
            result[name] = key
    return result


def layout(directory: str, owned: Mapping[str, str], account: str) -> list[dict[str, Any]]:
    """The entries of `berth.platform.files` for the store's directories and owners."""
    ours = {"owner": account, "group": account}
    below = ["", "/data", "/meta", "/iam"]
    entries: list[dict[str, Any]] = [
        {"path": f"{directory}{path}", "state": "directory", "mode": "0750", **ours}
        for path in below
    ]
    for bucket in sorted(owned):
        grant = {"Permission": "FULL_CONTROL", "Access": owned[bucket], "Type": "CanonicalUser"}
        acl = {"Owner": owned[bucket], "Grantees": [grant]}
        entries += [
            {"path": f"{directory}/{path}", "state": "directory", "mode": "0750", **ours}
            for path in (f"data/{bucket}", f"meta/{bucket}", f"meta/{bucket}/meta")
        ]
        entries.append(
            {
                "path": f"{directory}/meta/{bucket}/meta/acl",
                "content": json.dumps(acl, separators=(",", ":")),
                "mode": "0640",
                **ours,
            }
        )
    return entries
