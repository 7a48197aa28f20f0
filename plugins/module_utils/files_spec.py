# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What C(files) is asked to do: reading the options, and the form they travel in.

Pure. The controller reads the options with C(parse_request), renders what has to be
rendered, and packs the request; the target unpacks it and hands it to C(files_apply).
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import posixpath
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

STATES = ("file", "directory", "absent", "link")
CONTENT_KEYS = ("template", "content", "source")

FILE_KEYS = (
    "path",
    "state",
    *CONTENT_KEYS,
    "target",
    "owner",
    "group",
    "mode",
    "vars",
    "validate",
    "secret",
    "diff",
    "backup",
    "label",
    "replace",
    "pending",
)
TREE_KEYS = ("path", "validate")
EXCLUSIVE_KEYS = ("path", "pattern")
OPTION_KEYS = ("files", "trees", "exclusive", "pending")

_TRUE = frozenset({"true", "yes", "on", "1", "y", "t"})
_FALSE = frozenset({"false", "no", "off", "0", "n", "f"})
_MODE = re.compile(r"^0?o?[0-7]{3,4}$")
_MARKER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@:-]*$")


class Faults(Exception):
    """Everything that is wrong with a request, at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


@dataclass
class FileSpec:
    """One path and what it shall be. C(mode) is -1 where links and absent paths have none."""

    path: str
    state: str = "file"
    owner: str = "root"
    group: str = "root"
    mode: int = -1
    target: str = ""
    validate: str = ""
    secret: bool = False
    diff: bool = True
    backup: bool = False
    label: str = ""
    replace: bool = True
    pending: str = ""
    # How the content travels: as text, as base64, or (large) not at all until it is asked
    # for by its checksum and lies in a temporary file of the target.
    text: str | None = None
    binary: str | None = None
    sha256: str = ""
    size: int = 0
    transferred: str = ""

    @property
    def carries_content(self) -> bool:
        return self.text is not None or self.binary is not None

    def content(self) -> bytes:
        """The content that travelled with the request."""
        if self.text is not None:
            return self.text.encode("utf-8")
        if self.binary is not None:
            return base64.b64decode(self.binary)
        raise ValueError(f"{self.path}: no content in the request")

    def set_content(self, content: bytes) -> None:
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.size = len(content)
        try:
            self.text = content.decode("utf-8")
        except UnicodeDecodeError:
            self.binary = base64.b64encode(content).decode("ascii")

    def drop_content(self) -> None:
        self.text = None
        self.binary = None


@dataclass
class TreeSpec:
    path: str
    validate: str = ""


@dataclass
class ExclusiveSpec:
    path: str
    pattern: str = "*"


@dataclass
class Request:
    files: list[FileSpec] = field(default_factory=list)
    trees: list[TreeSpec] = field(default_factory=list)
    exclusive: list[ExclusiveSpec] = field(default_factory=list)
    pending: str = ""


@dataclass
class Origin:
    """Where the content of a file comes from; stays on the controller."""

    kind: str
    value: Any
    variables: dict[str, Any]


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    return None


def _unknown_keys(entry: Mapping[str, Any], known: Sequence[str], where: str) -> list[str]:
    faults = []
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            faults.append(f"{where}: unknown key {str(key)!r}{hint}")
    return faults


def _path(entry: Mapping[str, Any], where: str, faults: list[str]) -> str:
    raw = entry.get("path")
    if raw is None or raw == "":
        faults.append(f"{where}: path is missing")
        return ""
    text = str(raw)
    if not text.startswith("/"):
        faults.append(f"{where}: path {text!r} is not absolute")
        return ""
    if "\0" in text or "\n" in text:
        faults.append(f"{where}: path {text!r} holds a character that no path can have")
        return ""
    # posixpath keeps a leading double slash, which POSIX lets mean something else.
    return "/" + posixpath.normpath(text).lstrip("/")


def _mode(value: Any, path: str, default: int, faults: list[str]) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str):
        faults.append(f"{path}: mode {value!r} must be a quoted octal string such as '0644'")
        return default
    if not _MODE.match(value):
        faults.append(f"{path}: mode {value!r} is not an octal string such as '0644'")
        return default
    return int(value.replace("o", ""), 8)


def _entries(value: Any, option: str, faults: list[str]) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if isinstance(value, (Mapping, str)) or not isinstance(value, Sequence):
        faults.append(f"{option} must be a list, not {type(value).__name__}")
        return []
    found: list[Mapping[str, Any]] = []
    for index, entry in enumerate(value):
        if isinstance(entry, Mapping):
            # A key that is null was left out on purpose.
            found.append({str(k): v for k, v in entry.items() if v is not None})
        else:
            faults.append(f"{option}[{index}] must be a dictionary, not {type(entry).__name__}")
    return found


def _parse_file(
    entry: Mapping[str, Any], where: str, faults: list[str]
) -> tuple[FileSpec, Origin | None] | None:
    path = _path(entry, where, faults)
    if not path:
        return None
    faults.extend(_unknown_keys(entry, FILE_KEYS, path))
    state = str(entry.get("state", "file"))
    if state not in STATES:
        faults.append(f"{path}: state {state!r} is not one of {', '.join(STATES)}")
        return None
    if path == "/" or (state == "absent" and path.count("/") < 2):
        faults.append(f"{path}: refused, a whole top-level directory is never meant")
        return None

    given = [key for key in CONTENT_KEYS if key in entry]
    origin: Origin | None = None
    if state == "file":
        if len(given) != 1:
            have = " and ".join(given) if given else "none of them"
            faults.append(f"{path}: exactly one of {', '.join(CONTENT_KEYS)} is needed, got {have}")
        elif given == ["content"] and isinstance(entry["content"], (Mapping, list, tuple)):
            faults.append(f"{path}: content must be text; use a filter such as to_nice_json")
        else:
            variables = entry.get("vars", {})
            if not isinstance(variables, Mapping):
                faults.append(f"{path}: vars must be a dictionary, not {type(variables).__name__}")
                variables = {}
            origin = Origin(given[0], entry[given[0]], dict(variables))
        if "target" in entry:
            faults.append(f"{path}: target goes with state link only")
    elif given:
        faults.append(f"{path}: {' and '.join(given)} cannot go with state {state}")
    if state == "link":
        if not entry.get("target"):
            faults.append(f"{path}: state link needs a target")
    elif state != "file" and "target" in entry:
        faults.append(f"{path}: target goes with state link only")
    if "vars" in entry and "template" not in entry and state == "file":
        faults.append(f"{path}: vars are for templates only")
    validate = str(entry.get("validate", ""))
    if validate and state != "file":
        faults.append(f"{path}: validate goes with state file only")
    elif validate and "%s" not in validate:
        faults.append(f"{path}: validate {validate!r} lacks the %s that stands for the staged file")

    flags: dict[str, bool] = {}
    for key, default in (("diff", True), ("backup", False), ("replace", True)):
        truth = _truth(entry.get(key, default))
        if truth is None:
            faults.append(f"{path}: {key} {entry[key]!r} is neither true nor false")
            truth = default
        flags[key] = truth

    default_mode = {"file": 0o644, "directory": 0o755}.get(state, -1)
    mode = _mode(entry.get("mode"), path, default_mode, faults)
    if default_mode == -1:
        mode = -1
    # What only its owner may read is no business of the screen either, unless said so.
    owner_only = state == "file" and mode & 0o077 == 0
    secret = _truth(entry.get("secret", owner_only))
    if secret is None:
        faults.append(f"{path}: secret {entry['secret']!r} is neither true nor false")
        secret = True
    pending = str(entry.get("pending") or "")
    if pending and not _MARKER.match(pending):
        faults.append(f"{path}: pending {pending!r} is not a plain name")
    spec = FileSpec(
        path=path,
        state=state,
        owner=str(entry.get("owner", "root")),
        group=str(entry.get("group", "root")),
        mode=mode,
        target=str(entry.get("target", "")),
        validate=validate,
        secret=secret,
        label=str(entry.get("label", "")),
        diff=flags["diff"],
        backup=flags["backup"],
        replace=flags["replace"],
        pending=pending,
    )
    return spec, origin


def _conflicts(files: Sequence[FileSpec]) -> list[str]:
    faults: list[str] = []
    by_path: dict[str, FileSpec] = {}
    for spec in files:
        if spec.path in by_path:
            faults.append(f"{spec.path}: named more than once")
        by_path[spec.path] = spec
    for spec in files:
        parent = posixpath.dirname(spec.path)
        while parent != "/":
            above = by_path.get(parent)
            if above is not None and above.state != "directory" and spec.state != "absent":
                what = "a link" if above.state == "link" else f"to be {above.state}"
                if above.state == "file":
                    what = "a file"
                # A link to a directory is a fine parent.
                if above.state != "link":
                    faults.append(f"{spec.path}: its parent {parent} is {what} in the same task")
            parent = posixpath.dirname(parent)
    return faults


def parse_request(options: Mapping[str, Any]) -> tuple[Request, dict[str, Origin]]:
    """The request, and for each path with content where that comes from. Raises Faults."""
    faults = _unknown_keys(options, OPTION_KEYS, "files")
    request = Request()
    origins: dict[str, Origin] = {}
    for index, entry in enumerate(_entries(options.get("files"), "files", faults)):
        parsed = _parse_file(entry, f"files[{index}]", faults)
        if parsed is not None:
            spec, origin = parsed
            request.files.append(spec)
            if origin is not None:
                origins[spec.path] = origin
    faults.extend(_conflicts(request.files))
    for index, entry in enumerate(_entries(options.get("trees"), "trees", faults)):
        path = _path(entry, f"trees[{index}]", faults)
        faults.extend(_unknown_keys(entry, TREE_KEYS, f"trees[{index}]"))
        if path == "/":
            faults.append(f"trees[{index}]: the root of the file system cannot be staged")
        elif path:
            request.trees.append(TreeSpec(path, str(entry.get("validate", ""))))
    for index, entry in enumerate(_entries(options.get("exclusive"), "exclusive", faults)):
        path = _path(entry, f"exclusive[{index}]", faults)
        faults.extend(_unknown_keys(entry, EXCLUSIVE_KEYS, f"exclusive[{index}]"))
        pattern = str(entry.get("pattern", "*"))
        if "/" in pattern:
            faults.append(f"exclusive[{index}]: pattern {pattern!r} is for names, not for paths")
        if path.count("/") == 1:
            faults.append(f"{path}: refused, a whole top-level directory is never meant")
        elif path:
            request.exclusive.append(ExclusiveSpec(path, pattern))
    pending = options.get("pending")
    if pending is not None and pending != "":
        request.pending = str(pending)
        if not _MARKER.match(request.pending):
            faults.append(f"pending: {request.pending!r} is not a plain name")
    if faults:
        raise Faults(faults)
    return request, origins


def pack(request: Request) -> str:
    """One printable word that holds the whole request."""
    document = json.dumps(asdict(request), separators=(",", ":")).encode("utf-8")
    return base64.b64encode(zlib.compress(document, 6)).decode("ascii")


def _only_known(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {item.name for item in fields(cls)}
    return {key: value for key, value in values.items() if key in known}


def unpack(word: str) -> Request:
    values = json.loads(zlib.decompress(base64.b64decode(word)))
    return Request(
        files=[FileSpec(**_only_known(FileSpec, item)) for item in values["files"]],
        trees=[TreeSpec(**_only_known(TreeSpec, item)) for item in values["trees"]],
        exclusive=[
            ExclusiveSpec(**_only_known(ExclusiveSpec, item)) for item in values["exclusive"]
        ],
        pending=values["pending"],
    )


def choose_inline(sizes: Mapping[str, int], budget: int) -> set[str]:
    """The paths whose contents travel in the call itself: the small ones first."""
    chosen: set[str] = set()
    total = 0
    for path, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if total + size > budget:
            break
        total += size
        chosen.add(path)
    return chosen
