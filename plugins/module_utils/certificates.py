# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small certificate authority: issue, judge and check certificates. Values in, values out.

Runs on the controller. `cryptography` comes with ansible-core. The profile is RFC 5280's: a
self-signed authority (basicConstraints, keyUsage critical), leaves that name everything in
subjectAltName (RFC 9525: the common name is not looked at).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
except ImportError as error:  # targets import the collection, too, and have no cryptography
    MISSING: ImportError | None = error
else:
    MISSING = None

# Clocks of hosts and clients differ a little: a certificate is valid an hour before it is made.
BACKDATE = timedelta(hours=1)
AUTHORITY_YEARS = 10
KEY_TYPES = ("p256", "p384", "rsa2048", "rsa4096")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_COMMON_NAME_LIMIT = 64  # ub-common-name, RFC 5280 appendix A
_KEY_BLOCK = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----.*?-----END (?P=kind)-----\s*", re.DOTALL
)


class CertificateError(ValueError):
    """What is wrong with an input, in words for the person who gave it. Holds no secret."""


@dataclass(frozen=True)
class Authority:
    """The issuing key, and its certificate followed by what signed it, if anything did."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def expires(self) -> datetime:
        return min(certificate.not_valid_after_utc for certificate in self.chain)

    @property
    def pem(self) -> str:
        """The certificates alone: what clients trust."""
        return _pem(self.chain)

    @property
    def fingerprints(self) -> list[str]:
        return [certificate.fingerprint(hashes.SHA256()).hex() for certificate in self.chain]


@dataclass(frozen=True)
class Wanted:
    """A certificate as it should be."""

    name: str
    domains: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    days: int = 90
    renew_before: int = 30
    key_type: str = "p256"


@dataclass(frozen=True)
class Found:
    """A certificate as it is on a host: public parts, and what the host could tell of the key."""

    fullchain: str = ""
    ca: str = ""
    key_matches: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """The three files of one certificate."""

    fullchain: str
    privkey: str
    ca: str
    warnings: tuple[str, ...] = field(default=())


def utcnow() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


# -- authority ------------------------------------------------------------------------------


def new_authority(common_name: str, years: int = AUTHORITY_YEARS) -> str:
    """A new certificate authority as one PEM bundle: its private key, then its certificate."""
    if not 0 < len(common_name) <= _COMMON_NAME_LIMIT:
        raise CertificateError(f"an authority's name has 1 to {_COMMON_NAME_LIMIT} characters")
    key = ec.generate_private_key(ec.SECP256R1())
    now = utcnow()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=365 * years + years // 4))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key) + _pem([certificate])


def load_authority(bundle: str) -> Authority:
    """Reads what new_authority wrote, or a key with a certificate chain from elsewhere."""
    block = _KEY_BLOCK.search(bundle)
    if block is None:
        raise CertificateError("the authority's bundle holds no private key (PEM)")
    chain = _certificates(bundle, "the authority's bundle")
    key = _load_key(block.group(0), "the authority's private key")
    if not _same_key(key, chain[0]):
        raise CertificateError(
            "the authority's private key does not belong to the first certificate of its bundle"
        )
    try:
        basic = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        basic = None
    if basic is None or not basic.ca:
        raise CertificateError(
            f"{chain[0].subject.rfc4514_string()} is not a certificate authority"
            " (basicConstraints CA is not set)"
        )
    return Authority(key=key, chain=tuple(chain))


# -- what is wanted -------------------------------------------------------------------------


def validate(wanted: Wanted) -> list[str]:
    """What is wrong with a request; empty when nothing is."""
    faults = []
    if not _NAME.fullmatch(wanted.name):
        faults.append(f"{wanted.name!r} is no safe directory name (letters, digits, . _ -)")
    if not wanted.domains and not wanted.addresses:
        faults.append(f"{wanted.name}: has neither domains nor addresses")
    for domain in wanted.domains:
        try:
            ascii_domain(domain)
        except CertificateError as error:
            faults.append(f"{wanted.name}: {error}")
    for address in wanted.addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            faults.append(f"{wanted.name}: {address!r} is no IP address")
    if wanted.days < 1:
        faults.append(f"{wanted.name}: days is {wanted.days}, at least 1 is right")
    if not 0 <= wanted.renew_before < wanted.days:
        faults.append(
            f"{wanted.name}: renew_before is {wanted.renew_before} days of {wanted.days}; it must"
            " be less, or the certificate would be renewed at every run"
        )
    if wanted.key_type not in KEY_TYPES:
        faults.append(
            f"{wanted.name}: key_type {wanted.key_type!r} is none of {', '.join(KEY_TYPES)}"
        )
    return faults


def validate_all(all_wanted: Sequence[Wanted]) -> None:
    """Raises one CertificateError with everything that is wrong with any of them."""
    faults = [fault for wanted in all_wanted for fault in validate(wanted)]
    names = [wanted.name for wanted in all_wanted]
    faults += [f"{name}: is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    if faults:
        raise CertificateError("; ".join(faults))


def ascii_domain(domain: str) -> str:
    """The form that goes into a certificate: lower case, internationalised labels encoded."""
    text = domain.rstrip(".").lower()
    try:
        encoded = text.encode("ascii" if text.isascii() else "idna").decode("ascii")
    except UnicodeError as error:
        raise CertificateError(f"{domain!r} is no domain name") from error
    labels = encoded.split(".")
    tail = labels[1:] if labels[0] == "*" else labels
    if not tail or len(encoded) > 253 or not all(_LABEL.fullmatch(label) for label in tail):
        raise CertificateError(f"{domain!r} is no domain name")
    return encoded


def names_of(wanted: Wanted) -> frozenset[str]:
    domains = {ascii_domain(domain) for domain in wanted.domains}
    return frozenset(domains | {str(ipaddress.ip_address(a)) for a in wanted.addresses})


# -- judging --------------------------------------------------------------------------------


def due(wanted: Wanted, found: Found, authority: Authority, now: datetime) -> str:
    """Why a certificate of the platform's authority must be issued anew; empty if it need not."""
    if not found.fullchain:
        return "it is not there"
    if found.problems:
        return "; ".join(found.problems)
    try:
        chain = _certificates(found.fullchain, "fullchain.pem")
    except CertificateError:
        return "fullchain.pem cannot be read"
    leaf = chain[0]
    if not found.key_matches:
        return "the private key is missing or belongs to another certificate"
    if not _issued_by(leaf, authority.certificate):
        return "it was issued by another authority"
    if found.ca != authority.pem or found.fullchain != _pem([leaf]) + _intermediates(authority):
        return "the authority's certificate changed"
    reason = differs(wanted, leaf)
    if reason:
        return reason
    expires = leaf.not_valid_after_utc
    # An authority near its own end cannot give more: a new certificate must gain something.
    if expires - timedelta(days=wanted.renew_before) <= now and expires < _end(
        wanted, authority, now
    ):
        return f"it expires on {_day(expires)}"
    return ""


def differs(wanted: Wanted, leaf: x509.Certificate) -> str:
    """How a certificate's names or kind of key are others than they should be."""
    return _names_differ(wanted, leaf) or _key_differs(wanted, leaf)


def given_differs(wanted: Wanted, found: Found, given: Material) -> str:
    """Why a given certificate must be shipped; empty if the host has it."""
    if not found.fullchain:
        return "it is not there"
    if found.problems:
        return "; ".join(found.problems)
    if found.fullchain != given.fullchain or found.ca != given.ca:
        return "another certificate was given"
    if not found.key_matches:
        return "the private key is missing or belongs to another certificate"
    return ""


def authority_warning(authority: Authority, now: datetime, longest: int) -> str:
    """A word in time, before the authority itself runs out. Raises when it has."""
    left = authority.expires - now
    if left <= timedelta(0):
        raise CertificateError(
            f"the platform's certificate authority expired on {_day(authority.expires)}:"
            " rotate it and converge again"
        )
    if left < timedelta(days=longest):
        return (
            f"the platform's certificate authority expires on {_day(authority.expires)};"
            " certificates cannot outlive it: rotate it"
        )
    return ""


# -- issuing --------------------------------------------------------------------------------


def issue(wanted: Wanted, authority: Authority, now: datetime) -> Material:
    """A new key and a certificate for it, signed by the authority."""
    key = _new_key(wanted.key_type)
    domains = list(dict.fromkeys(ascii_domain(domain) for domain in wanted.domains))
    addresses = list(dict.fromkeys(ipaddress.ip_address(a) for a in wanted.addresses))
    first = domains[0] if domains else str(addresses[0])
    subject = (
        [x509.NameAttribute(NameOID.COMMON_NAME, first)] if len(first) <= _COMMON_NAME_LIMIT else []
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(domain) for domain in domains]
    alternatives += [x509.IPAddress(address) for address in addresses]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(_end(wanted, authority, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # RFC 5280, 4.2.1.6: critical if the subject is empty.
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(authority), critical=False)
        .sign(authority.key, _digest(authority.key))
    )
    return Material(_pem([leaf]) + _intermediates(authority), _key_pem(key), authority.pem)


def check_given(wanted: Wanted, certificate: str, key: str, ca: str, now: datetime) -> Material:
    """A certificate and key from the user's own authority, normalised, or what is wrong with it."""
    chain = _certificates(certificate, f"{wanted.name}: certificate_file")
    leaf = chain[0]
    if not _same_key(_load_key(key, f"{wanted.name}: key_file"), leaf):
        raise CertificateError(
            f"{wanted.name}: the key of key_file does not belong to the first certificate of"
            " certificate_file (the leaf comes first, then what signed it)"
        )
    missing = sorted(n for n in names_of(wanted) if not _covers(_names(leaf), n))
    if missing:
        raise CertificateError(
            f"{wanted.name}: the given certificate does not cover {', '.join(missing)};"
            f" it names {', '.join(sorted(_names(leaf))) or 'nothing'}"
        )
    expires = leaf.not_valid_after_utc
    if expires <= now:
        raise CertificateError(f"{wanted.name}: the given certificate expired on {_day(expires)}")
    if leaf.not_valid_before_utc > now:
        raise CertificateError(
            f"{wanted.name}: the given certificate is not valid before"
            f" {_day(leaf.not_valid_before_utc)}"
        )
    warnings = []
    if expires - timedelta(days=wanted.renew_before) <= now:
        warnings.append(f"{wanted.name}: the given certificate expires on {_day(expires)}")
    for lower, upper in pairwise(chain):
        if not _issued_by(lower, upper):
            warnings.append(
                f"{wanted.name}: in certificate_file, {upper.subject.rfc4514_string()} did not sign"
                f" {lower.subject.rfc4514_string()}: clients may reject the chain"
            )
    trusted = _certificates(ca, f"{wanted.name}: ca_file") if ca else (chain[1:] or chain)
    return Material(_pem(chain), key.strip() + "\n", _pem(trusted), tuple(warnings))


def describe(fullchain: str) -> str:
    """A certificate in a few lines, for a diff."""
    if not fullchain:
        return ""
    try:
        leaf = _certificates(fullchain, "fullchain.pem")[0]
    except CertificateError:
        return "unreadable\n"
    return (
        f"names: {', '.join(sorted(_names(leaf)))}\n"
        f"issuer: {leaf.issuer.rfc4514_string()}\n"
        f"expires: {_day(leaf.not_valid_after_utc)}\n"
    )


def expires_of(fullchain: str) -> str:
    return _certificates(fullchain, "fullchain.pem")[0].not_valid_after_utc.isoformat()


# -- small parts ----------------------------------------------------------------------------


def _end(wanted: Wanted, authority: Authority, now: datetime) -> datetime:
    return min(now + timedelta(days=wanted.days), authority.expires)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _pem(certificates: Iterable[x509.Certificate]) -> str:
    encoding = serialization.Encoding.PEM
    return "".join(c.public_bytes(encoding).decode("ascii") for c in certificates)


def _intermediates(authority: Authority) -> str:
    """A server sends what signed it, but not the self-signed root: clients hold that."""
    return _pem(c for c in authority.chain if c.issuer != c.subject)


def _certificates(pem: str, what: str) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CertificateError(f"{what} holds no certificate that can be read (PEM)") from error


def _load_key(pem: str, what: str) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except TypeError as error:
        raise CertificateError(f"{what} has a passphrase: services cannot ask for one") from error
    except ValueError as error:
        raise CertificateError(f"{what} cannot be read (PEM)") from error
    kinds = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
    if not isinstance(key, kinds):
        raise CertificateError(f"{what} is of a kind that TLS servers do not use")
    return key


def _new_key(kind: str) -> PrivateKey:
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))


def _kind_of(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "p256", "secp384r1": "p384"}.get(key.curve.name, key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    return type(key).__name__


def _key_pem(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def _same_key(key: PrivateKey, certificate: x509.Certificate) -> bool:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ours = key.public_key().public_bytes(encoding, form)
    return ours == certificate.public_key().public_bytes(encoding, form)


def _digest(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    domains = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return frozenset({d.lower() for d in domains} | {str(a) for a in addresses})


def _covers(names: frozenset[str], name: str) -> bool:
    """Exact, or by a wildcard for the first label (RFC 9525, 6.3)."""
    return name in names or ("." in name and "*." + name.partition(".")[2] in names)


def _names_differ(wanted: Wanted, leaf: x509.Certificate) -> str:
    has, should = _names(leaf), names_of(wanted)
    if has == should:
        return ""
    words = [f"lacks {n}" for n in sorted(should - has)]
    words += [f"names {n} needlessly" for n in sorted(has - should)]
    return "it " + ", ".join(words)


def _key_differs(wanted: Wanted, leaf: x509.Certificate) -> str:
    has = _kind_of(leaf)
    return "" if has == wanted.key_type else f"its key is {has}, not {wanted.key_type}"


def _authority_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
