# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a public authority (RFC 8555): what is asked for, and what holds their place.

Runs on the controller. Orders are made on the host, by the program that the role C(tls) installs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import certificates as core

try:
    from cryptography import x509
    from cryptography.x509.oid import NameOID
except ImportError:  # certificates.MISSING says so
    pass

SERVERS = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
# Who signed what stands in for a certificate until the first order.
PLACEHOLDER = "Berth placeholder"
PLACEHOLDER_DAYS = 7
_ADDRESS = re.compile(r"(?:[0-9.]+|\[[0-9a-f:.]+\]):[0-9]{1,5}")
_EMAIL = re.compile(r"[^\s@,<>\"]+@[^\s@,<>\"]+\.[^\s@,<>\".]+")


class AcmeError(ValueError):
    """What is wrong with the settings, in words for the person who gave them."""


def faults_of(wanted: core.Wanted) -> list[str]:
    """What no server could issue by HTTP-01; empty when an order can be made."""
    faults = []
    if wanted.addresses:
        faults.append(
            f"{wanted.name}: addresses ({', '.join(wanted.addresses)}) are not for provider acme,"
            " whose certificates name domains; use provider platform"
        )
    if not wanted.domains:
        faults.append(f"{wanted.name}: has no domains, and provider acme certifies nothing else")
    for domain in wanted.domains:
        if domain.startswith("*"):
            faults.append(
                f"{wanted.name}: {domain} cannot be proven over HTTP; list its names, or use"
                " provider files"
            )
        elif "." not in domain.rstrip("."):
            faults.append(f"{wanted.name}: {domain} is no public name: it has no dot")
    return faults


def due(wanted: core.Wanted, found: core.Found, renew_share: float, now: datetime) -> str:
    """Why the host's program has something to do; empty if it has not."""
    if not found.fullchain:
        return "it is not there"
    if not found.key_matches:
        return "the private key is missing or belongs to another certificate"
    try:
        leaf = x509.load_pem_x509_certificate(found.fullchain.encode())
    except ValueError:
        return "fullchain.pem cannot be read"
    if found.problems:
        return "; ".join(found.problems)
    if is_placeholder(leaf):
        return "only a placeholder is there"
    reason = core.differs(wanted, leaf)
    if reason:
        return reason
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    left = (ends - now) / (ends - begins)
    if left < renew_share:
        return (
            f"it ends on {ends:%Y-%m-%d}: {max(left, 0):.0%} of its lifetime is left, fewer than"
            f" {renew_share:.0%}"
        )
    return ""


def is_placeholder(leaf: x509.Certificate) -> bool:
    names = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any(name.value == PLACEHOLDER for name in names)


def needs_placeholder(found: core.Found) -> bool:
    """Whether a service that is told to load the certificate could not start."""
    return not found.fullchain or not found.key_matches


def placeholder(wanted: core.Wanted, now: datetime) -> core.Material:
    """A certificate that nobody trusts: what signed it is thrown away."""
    authority = core.load_authority(core.new_authority(PLACEHOLDER))
    brief = core.Wanted(
        wanted.name, wanted.domains, days=PLACEHOLDER_DAYS, key_type=wanted.key_type
    )
    return core.issue(brief, authority, now)


def configuration(
    certificates: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the host's program reads, or every fault in one error."""
    faults: list[str] = []
    entries = [
        _entry(raw, str(settings["group"]), faults)
        for raw in certificates
        if raw.get("provider") == "acme"
    ]
    renew, alert = _shares(settings, faults)
    email = str(settings["email"])
    if email and not _EMAIL.fullmatch(email):
        faults.append(f"tls_acme_email: {email!r} is no e-mail address")
    served_at = str(settings["served_at"])
    if served_at and not _ADDRESS.fullmatch(served_at):
        faults.append(
            f"tls_acme_served_at: {served_at!r} is not <IP>:<port>, such as 127.0.0.1:443;"
            " empty asks nobody"
        )
    server = SERVERS.get(str(settings["server"]), str(settings["server"]))
    if not re.fullmatch(r"https://[^\s/]+/\S*", server):
        faults.append(
            f"tls_acme_server: {server!r} is neither the https:// URL of a directory nor one of"
            f" {', '.join(SERVERS)}"
        )
    if faults:
        raise AcmeError("\n".join(faults))
    return {
        "server": server,
        "ca_file": str(settings["ca_file"]),
        "email": email,
        "webroot": str(settings["webroot"]),
        "tls_directory": str(settings["tls_directory"]),
        "renew_share": renew,
        "alert_share": alert,
        "reload": [str(unit) for unit in settings["reload"]],
        "served_at": served_at,
        "certificates": entries,
    }


def _entry(raw: Mapping[str, Any], group: str, faults: list[str]) -> dict[str, Any]:
    wanted = core.Wanted(
        name=str(raw["name"]).replace("*", "_"),
        domains=tuple(str(domain) for domain in raw.get("domains") or ()),
        addresses=tuple(str(address) for address in raw.get("addresses") or ()),
        key_type=str(raw.get("key_type") or "p256"),
    )
    faults += core.validate(wanted) or faults_of(wanted)
    return {
        "name": wanted.name,
        "domains": _domains(wanted.domains),
        "key_type": wanted.key_type,
        "owner": str(raw.get("owner") or "root"),
        "group": str(raw.get("group") or group),
        "mode": str(raw.get("mode") or "0640"),
    }


def _domains(domains: Sequence[str]) -> list[str]:
    found = []
    for domain in domains:
        try:
            found.append(core.ascii_domain(domain))
        except core.CertificateError:
            continue  # validate() has said so
    return list(dict.fromkeys(found))


def _shares(settings: Mapping[str, Any], faults: list[str]) -> tuple[float, float]:
    renew, alert = float(settings["renew_share"]), float(settings["alert_share"])
    if not 0 < renew < 1:
        faults.append(f"tls_acme_renew_share: {renew:g} is no share; it lies between 0 and 1")
    elif not 0 <= alert < renew:
        faults.append(
            f"tls_acme_alert_share: {alert:g} must be less than tls_acme_renew_share ({renew:g}),"
            " or every renewal would be preceded by an alert"
        )
    return renew, alert
