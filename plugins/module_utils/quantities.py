# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities and names that users write: read strictly, or refused with what would be right.

Every function takes a value and returns it normalised, or raises ValueError that says what would
be right. Sizes follow systemd's notation (binary K, M, G, T), see systemd.resource-control(5).
"""

from __future__ import annotations

import ipaddress
import re

_SIZE = re.compile(r"^(\d+)([KMGT]?)$")
_PERCENT = re.compile(r"^(\d+(?:\.\d+)?)%$")
_TIME = re.compile(r"^(\d+)(ms|s|m|min|h|d)?$")
_RATE = re.compile(r"^(\d+)r/(s|m)$")
_SLUG = re.compile(r"^[a-z][a-z0-9-]*[a-z0-9]$|^[a-z]$")
_LABEL = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)$")
_RANGE = re.compile(r"^(\d{1,5})-(\d{1,5})$")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, None: 1}


def size(value: object) -> str:
    """An amount of memory: bytes, or a whole number with K, M, G or T."""
    text = str(value)
    if isinstance(value, bool) or not _SIZE.match(text) or size_bytes(text) == 0:
        raise ValueError("write an amount of memory like 512M or 2G")
    return text


def size_bytes(text: str) -> int:
    """The bytes of a size that was read by ``size``."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("write an amount of memory like 512M or 2G")
    return int(match.group(1)) * _UNITS[match.group(2)]


def cpu(value: object) -> str:
    """A share of CPU time, in per cent of one core: 200% is two cores."""
    text = str(value)
    match = _PERCENT.match(text)
    if match is None or float(match.group(1)) == 0:
        raise ValueError("write per cent of one core like 50% or 200%")
    return text


def seconds(value: object) -> float:
    """A duration, in seconds: a number of seconds, or one with ms, s, m, h or d."""
    text = str(value)
    match = None if isinstance(value, bool) else _TIME.match(text)
    if match is None:
        raise ValueError("write a duration like 30s, 5m or 2h")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def duration(value: object) -> str:
    """A duration, kept as it was written."""
    seconds(value)
    return str(value)


def rate(value: object) -> str:
    """A request rate in nginx's notation, like 10r/s or 100r/m."""
    text = str(value)
    if not _RATE.match(text):
        raise ValueError("write a request rate like 10r/s or 100r/m")
    return text


def slug(value: object) -> str:
    """A name that is safe in unit names, paths, database and DNS names."""
    if not isinstance(value, str) or not _SLUG.match(value) or len(value) > 40 or "--" in value:
        raise ValueError(
            "use lower-case letters, digits and single hyphens, first a letter, at most 40"
        )
    return value


def domain(value: object) -> str:
    """A DNS name: letters, digits and hyphens in dotted labels (RFC 1123), at most 253 long."""
    text = str(value)
    labels = text.split(".")
    right = isinstance(value, str) and len(text) <= 253 and all(map(_LABEL.match, labels))
    if not right or labels[-1].isdigit():
        raise ValueError("write a lower-case DNS name like shop.example.com")
    return text


def cidr(value: object) -> str:
    """A network or an address, IPv4 or IPv6, without host bits; or `any`."""
    if value == "any":
        return "any"
    try:
        return str(ipaddress.ip_network(str(value), strict=True))
    except ValueError as error:
        if "host bits" in str(error):
            right = ipaddress.ip_network(str(value), strict=False)
            raise ValueError(f"has host bits set: write {right}") from None
        raise ValueError("write a network like 10.0.0.0/8 or 2001:db8::/32, or any") from None


def port(value: object) -> int:
    """A TCP or UDP port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError("write a port, a whole number from 1 to 65535")
    return int(value)


def port_range(value: object) -> tuple[int, int]:
    """A range of ports, first-last, both within."""
    match = _RANGE.match(str(value))
    if match is None:
        raise ValueError("write a range of ports like 5001-5099")
    first, last = int(match.group(1)), int(match.group(2))
    if not 1 <= first <= last <= 65535:
        raise ValueError("write a range of ports like 5001-5099, from 1 to 65535, the lower first")
    return first, last


def absolute_path(value: object) -> str:
    """An absolute path without `..` and white space."""
    text = str(value)
    if not isinstance(value, str) or not text.startswith("/") or ".." in text.split("/"):
        raise ValueError("write an absolute path without ..")
    if any(char.isspace() for char in text):
        raise ValueError("write a path without white space")
    return text


def url_path(value: object) -> str:
    """The path of a URL, as nginx's location takes it."""
    text = str(value)
    if not isinstance(value, str) or not re.match(r"^/[A-Za-z0-9._~/%@:+-]*$", text):
        raise ValueError("write a URL path like /api")
    return text
