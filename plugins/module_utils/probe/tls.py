# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS: the handshake succeeds, the certificate speaks for the name and is valid for a while yet."""

from __future__ import annotations

import datetime

from ansible_collections.berth.platform.plugins.module_utils.probe.connection import connected
from ansible_collections.berth.platform.plugins.module_utils.probe.model import (
    Attempt,
    Detail,
    ProbeFailed,
    clean,
)
from ansible_collections.berth.platform.plugins.module_utils.probe.x509 import (
    CertificateUnreadable,
    days_left,
    matches,
    parse,
)


async def check(attempt: Attempt) -> Detail:
    probe = attempt.probe
    async with connected(attempt, tls=True) as connection:
        ssl_object = connection.ssl_object
        if ssl_object is None:
            raise ProbeFailed("connection closed during the TLS handshake")
        protocol = ssl_object.version()
        der = ssl_object.getpeercert(binary_form=True) or b""
    try:
        certificate = parse(der)
    except CertificateUnreadable as error:
        raise ProbeFailed(f"the certificate is unreadable: {error}") from None
    left = days_left(certificate)
    detail: Detail = {
        "days": round(left, 1),
        "not_after": certificate.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "subject": clean(certificate.subject, 80),
        "issuer": clean(certificate.issuer, 80),
        "names": [clean(name, 80) for name in certificate.names[:20]],
        "self_signed": certificate.self_signed,
        "protocol": protocol,
    }
    if left < 0:
        raise ProbeFailed(f"the certificate expired {-left:.1f} days ago", detail)
    if left < probe.days:
        raise ProbeFailed(
            f"the certificate expires in {left:.1f} days, fewer than {probe.days:g}", detail
        )
    if certificate.not_before > datetime.datetime.now(datetime.timezone.utc):
        raise ProbeFailed("the certificate is not valid yet", detail)
    # With verify, OpenSSL has matched the name already.
    if not probe.verify and probe.server_name and not matches(certificate, probe.server_name):
        raise ProbeFailed(f"the certificate is not for {probe.server_name}", detail)
    return detail
