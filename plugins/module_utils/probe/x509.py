# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Just enough of X.509 to judge a certificate that was not verified.

C(ssl) gives the contents of a certificate only after it has verified it; for one that is
self-signed or expired there is only DER (ITU-T X.690), read here as RFC 5280 lays it out.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

INTEGER, OID, UTC_TIME, GENERALIZED_TIME = 0x02, 0x06, 0x17, 0x18
OCTET_STRING, BOOLEAN, SEQUENCE, SET = 0x04, 0x01, 0x30, 0x31
VERSION, EXTENSIONS = 0xA0, 0xA3
DNS_NAME, IP_ADDRESS = 0x82, 0x87
COMMON_NAME = bytes.fromhex("550403")
SUBJECT_ALT_NAME = bytes.fromhex("551d11")


class CertificateUnreadable(ValueError):
    """The bytes are no certificate."""


@dataclass(frozen=True)
class Certificate:
    subject: str
    issuer: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    names: tuple[str, ...]
    self_signed: bool


@dataclass(frozen=True)
class Item:
    """One value: its tag and its contents."""

    tag: int
    body: bytes

    def items(self) -> list[Item]:
        """The values inside."""
        found = []
        at = 0
        while at < len(self.body):
            item, at = _item(self.body, at)
            found.append(item)
        return found


def _item(data: bytes, at: int) -> tuple[Item, int]:
    try:
        tag, length = data[at], data[at + 1]
    except IndexError:
        raise CertificateUnreadable("cut short") from None
    at += 2
    if tag & 0x1F == 0x1F:
        raise CertificateUnreadable("a tag of several bytes")
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise CertificateUnreadable("a length that DER does not have")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > len(data):
        raise CertificateUnreadable("cut short")
    return Item(tag, data[at : at + length]), at + length


def _expect(item: Item, *tags: int) -> Item:
    if item.tag not in tags:
        raise CertificateUnreadable(f"tag {item.tag:#x} in place of {tags[0]:#x}")
    return item


def _time(item: Item) -> datetime.datetime:
    """RFC 5280, 4.1.2.5: to the second, in UTC."""
    _expect(item, UTC_TIME, GENERALIZED_TIME)
    text = item.body.decode("ascii", "replace")
    if item.tag == UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    try:
        found = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    except ValueError:
        raise CertificateUnreadable("a malformed time") from None
    return found.replace(tzinfo=datetime.timezone.utc)


def _common_name(name: Item) -> str:
    for group in _expect(name, SEQUENCE).items():
        for pair in _expect(group, SET).items():
            parts = _expect(pair, SEQUENCE).items()
            if len(parts) == 2 and parts[0] == Item(OID, COMMON_NAME):
                # BMPString is UTF-16; the others are read well enough as UTF-8.
                coding = "utf-16-be" if parts[1].tag == 0x1E else "utf-8"
                return parts[1].body.decode(coding, "replace")
    return ""


def _alternative_names(extensions: Item) -> tuple[str, ...]:
    names: list[str] = []
    for wrapped in extensions.items():
        for extension in _expect(wrapped, SEQUENCE).items():
            parts = _expect(extension, SEQUENCE).items()
            if len(parts) < 2 or parts[0] != Item(OID, SUBJECT_ALT_NAME):
                continue
            (general_names, _end) = _item(_expect(parts[-1], OCTET_STRING).body, 0)
            for name in _expect(general_names, SEQUENCE).items():
                if name.tag == DNS_NAME:
                    names.append(name.body.decode("ascii", "replace"))
                elif name.tag == IP_ADDRESS and len(name.body) in (4, 16):
                    names.append(str(ipaddress.ip_address(name.body)))
    return tuple(names)


def parse(der: bytes) -> Certificate:
    """The parts of a certificate that a probe judges."""
    outer, _end = _item(der, 0)
    inner = _expect(outer, SEQUENCE).items()
    if not inner:
        raise CertificateUnreadable("cut short")
    fields = _expect(inner[0], SEQUENCE).items()
    if fields and fields[0].tag == VERSION:
        fields = fields[1:]
    if len(fields) < 6:
        raise CertificateUnreadable("cut short")
    _expect(fields[0], INTEGER)
    issuer, validity, subject = fields[2], _expect(fields[3], SEQUENCE).items(), fields[4]
    if len(validity) != 2:
        raise CertificateUnreadable("a malformed validity")
    names: tuple[str, ...] = ()
    for field in fields[6:]:
        if field.tag == EXTENSIONS:
            names = _alternative_names(field)
    return Certificate(
        subject=_common_name(subject),
        issuer=_common_name(issuer),
        not_before=_time(validity[0]),
        not_after=_time(validity[1]),
        names=names,
        self_signed=issuer == subject,
    )


def days_left(certificate: Certificate, now: datetime.datetime | None = None) -> float:
    """Days until it expires, negative when it has."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return (certificate.not_after - now).total_seconds() / 86400


def matches(certificate: Certificate, name: str) -> bool:
    """Whether it speaks for *name* (RFC 9525): a wildcard is the whole of the first label."""
    try:
        address = str(ipaddress.ip_address(name))
    except ValueError:
        pass
    else:
        return address in certificate.names
    wanted = name.rstrip(".").lower()
    for candidate in certificate.names:
        given = candidate.lower()
        if given == wanted:
            return True
        label, dot, rest = wanted.partition(".")
        if label and dot and "." in rest and given == f"*.{rest}":
            return True
    return False
