"""Certificates: what is issued is what TLS clients accept, and only what must be is issued anew."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from ansible_collections.berth.platform.plugins.module_utils import certificates as c
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW = c.utcnow()
WANTED = c.Wanted("sales", ("sales.dhanman.com", "*.apps.dhanman.com"), ("10.0.0.5", "2001:db8::5"))


@pytest.fixture(scope="module")
def authority() -> c.Authority:
    return c.load_authority(c.new_authority("dhanman prod"))


@pytest.fixture(scope="module")
def material(authority: c.Authority) -> c.Material:
    return c.issue(WANTED, authority, NOW)


def found(material: c.Material, **changes: object) -> c.Found:
    return dataclasses.replace(c.Found(material.fullchain, material.ca, True), **changes)  # type: ignore[arg-type]


def leaf_of(material: c.Material) -> x509.Certificate:
    return x509.load_pem_x509_certificate(material.fullchain.encode())


def handshake(
    material: c.Material, name: str, folder: Path, *, client: c.Material | None = None
) -> str:
    """A real TLS connection, checked as browsers check it; returns the protocol agreed on."""
    for part in ("fullchain", "privkey", "ca"):
        (folder / f"{part}.pem").write_text(getattr(material, part))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
    if client:
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(cadata=material.ca)
    context = ssl.create_default_context(cadata=material.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client:
        (folder / "client.pem").write_text(client.fullchain + client.privkey)
        context.load_cert_chain(folder / "client.pem")
    left, right = socket.socketpair()
    errors: list[Exception] = []

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as connection:
                connection.sendall(b"x")
        except (ssl.SSLError, OSError) as error:
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context.wrap_socket(right, server_hostname=name) as connection:
            assert connection.recv(1) == b"x"
            return str(connection.version())
    finally:
        right.close()
        thread.join(5)
        left.close()


class TestAuthority:
    def test_lasts_ten_years_and_may_only_sign_leaves(self, authority: c.Authority) -> None:
        certificate = authority.certificate
        assert timedelta(days=3650) < certificate.not_valid_after_utc - NOW < timedelta(days=3656)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, 0)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert "dhanman prod" in certificate.subject.rfc4514_string()

    def test_two_are_never_the_same(self) -> None:
        assert c.new_authority("a") != c.new_authority("a")

    @pytest.mark.parametrize("name", ["", "x" * 65])
    def test_a_name_must_fit(self, name: str) -> None:
        with pytest.raises(c.CertificateError, match="64"):
            c.new_authority(name)

    def test_bundle_faults_are_told_apart_and_show_no_key(self, authority: c.Authority) -> None:
        one, two = c.new_authority("one"), c.new_authority("two")
        key, certificate = one.split("-----BEGIN CERT")[0], two[two.index("-----BEGIN CERT") :]
        leaf = c.issue(WANTED, authority, NOW)
        cases = {
            "": "no private key",
            certificate: "no private key",
            key: "no certificate",
            key + certificate: "does not belong",
            key.replace("MIG", "AAA") + certificate: "cannot be read",
            leaf.privkey + leaf.fullchain: "not a certificate authority",
        }
        for bundle, words in cases.items():
            with pytest.raises(c.CertificateError, match=words) as caught:
                c.load_authority(bundle)
            assert "BEGIN" not in str(caught.value)


class TestIssue:
    def test_names_usage_and_time(self, authority: c.Authority) -> None:
        leaf = leaf_of(c.issue(WANTED, authority, NOW))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == list(WANTED.domains)
        assert names.get_values_for_type(x509.IPAddress) == [
            ipaddress.ip_address(a) for a in WANTED.addresses
        ]
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
        assert leaf.not_valid_after_utc == NOW + timedelta(days=90)

    @pytest.mark.parametrize("name", ["sales.dhanman.com", "x.apps.dhanman.com", "10.0.0.5"])
    @pytest.mark.parametrize("kind", c.KEY_TYPES[:3])
    def test_clients_accept_it(
        self, authority: c.Authority, tmp_path: Path, name: str, kind: str
    ) -> None:
        material = c.issue(dataclasses.replace(WANTED, key_type=kind), authority, NOW)
        assert handshake(material, name, tmp_path) == "TLSv1.3"

    def test_clients_refuse_another_name(self, authority: c.Authority, tmp_path: Path) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            handshake(c.issue(WANTED, authority, NOW), "other.dhanman.com", tmp_path)

    def test_servers_accept_it_from_a_client(self, authority: c.Authority, tmp_path: Path) -> None:
        material = c.issue(WANTED, authority, NOW)
        client = c.issue(c.Wanted("etcd", (), ("10.0.0.9",)), authority, NOW)
        assert handshake(material, "10.0.0.5", tmp_path, client=client)

    def test_a_name_too_long_for_a_subject_is_still_served(
        self, authority: c.Authority, tmp_path: Path
    ) -> None:
        name = ".".join(["a" * 60, "b" * 60, "dhanman.com"])
        material = c.issue(c.Wanted("long", (name,)), authority, NOW)
        assert handshake(material, name, tmp_path)

    def test_international_names_are_encoded(self, authority: c.Authority) -> None:
        leaf = leaf_of(c.issue(c.Wanted("x", ("Bücher.example",)), authority, NOW))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["xn--bcher-kva.example"]

    def test_never_outlives_the_authority(self) -> None:
        short = c.load_authority(c.new_authority("short", years=1))
        material = c.issue(dataclasses.replace(WANTED, days=3000), short, NOW)
        assert leaf_of(material).not_valid_after_utc == short.expires

    def test_an_intermediate_is_sent_along_but_not_its_root(self, authority: c.Authority) -> None:
        root = _root()
        middle = _intermediate(root)
        material = c.issue(WANTED, middle, NOW)
        assert material.fullchain.count("BEGIN CERT") == 2
        assert material.ca.count("BEGIN CERT") == 2
        assert c.due(WANTED, found(material), middle, NOW) == ""


class TestDue:
    def test_a_good_one_is_left_alone(self, authority: c.Authority, material: c.Material) -> None:
        assert c.due(WANTED, found(material), authority, NOW) == ""

    def test_order_and_case_of_names_do_not_matter(
        self, authority: c.Authority, material: c.Material
    ) -> None:
        turned = c.Wanted(
            "sales",
            ("*.APPS.dhanman.com.", "sales.dhanman.com"),
            ("2001:DB8:0::5", "10.0.0.5"),
        )
        assert c.due(turned, found(material), authority, NOW) == ""

    @pytest.mark.parametrize(
        ("days", "renew", "after", "expected"),
        [
            (90, 30, 59, ""),
            (90, 30, 60, "expires"),
            (45, 15, 29, ""),
            (45, 15, 30, "expires"),
            (6, 2, 3, ""),
            (6, 2, 5, "expires"),
            (90, 0, 89, ""),
            (90, 0, 91, "expires"),
        ],
    )
    def test_renewal_comes_in_time_for_any_lifetime(
        self, authority: c.Authority, days: int, renew: int, after: int, expected: str
    ) -> None:
        wanted = dataclasses.replace(WANTED, days=days, renew_before=renew)
        material = c.issue(wanted, authority, NOW)
        reason = c.due(wanted, found(material), authority, NOW + timedelta(days=after))
        assert (expected in reason) if expected else reason == ""

    def test_reasons(self, authority: c.Authority, material: c.Material) -> None:
        other = c.load_authority(c.new_authority("dhanman prod"))
        more = dataclasses.replace(WANTED, domains=(*WANTED.domains, "new.dhanman.com"))
        less = dataclasses.replace(WANTED, addresses=())
        cases = [
            (WANTED, c.Found(), authority, "not there"),
            (WANTED, found(material, fullchain="rubbish"), authority, "cannot be read"),
            (WANTED, found(material, key_matches=False), authority, "private key"),
            (WANTED, found(material, problems=("mode is 0666",)), authority, "mode is 0666"),
            (WANTED, found(material), other, "another authority"),
            (WANTED, found(material, ca=""), authority, "authority's certificate changed"),
            (more, found(material), authority, "lacks new.dhanman.com"),
            (less, found(material), authority, "10.0.0.5 needlessly"),
            (dataclasses.replace(WANTED, key_type="rsa2048"), found(material), authority, "p256"),
        ]
        for wanted, state, signer, words in cases:
            assert words in c.due(wanted, state, signer, NOW)

    def test_an_authority_at_its_end_does_not_renew_for_nothing(self) -> None:
        short = c.load_authority(c.new_authority("short", years=1))
        late = NOW + timedelta(days=350)
        material = c.issue(WANTED, short, late)
        assert c.due(WANTED, found(material), short, late) == ""
        assert "rotate" in c.authority_warning(short, late, 90)
        assert c.authority_warning(short, NOW, 90) == ""
        with pytest.raises(c.CertificateError, match="expired"):
            c.authority_warning(short, NOW + timedelta(days=400), 90)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        days=st.integers(1, 400),
        part=st.floats(0, 0.99),
        hosts=st.lists(st.from_regex(r"[a-z]{1,9}\.test", fullmatch=True), min_size=1, max_size=5),
    )
    def test_what_was_just_issued_is_never_due(
        self, authority: c.Authority, days: int, part: float, hosts: list[str]
    ) -> None:
        wanted = c.Wanted("x", tuple(hosts), (), days, int(days * part))
        assert c.validate(wanted) == []
        assert c.due(wanted, found(c.issue(wanted, authority, NOW)), authority, NOW) == ""


class TestValidate:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"name": "../etc"}, "safe directory name"),
            ({"name": ""}, "safe directory name"),
            ({"domains": (), "addresses": ()}, "neither"),
            ({"domains": ("a b.com",)}, "'a b.com' is no domain"),
            ({"domains": ("-a.com",)}, "no domain"),
            ({"domains": ("*",)}, "no domain"),
            ({"domains": ("a..b",)}, "no domain"),
            ({"domains": ("a." * 127 + "com",)}, "no domain"),
            ({"addresses": ("10.0.0.256",)}, "no IP address"),
            ({"days": 0, "renew_before": 0}, "at least 1"),
            ({"renew_before": 90}, "every run"),
            ({"key_type": "dsa"}, "p256, p384"),
        ],
    )
    def test_faults_are_named(self, change: dict[str, object], words: str) -> None:
        (fault, *_) = c.validate(dataclasses.replace(WANTED, **change))  # type: ignore[arg-type]
        assert words in fault

    def test_a_good_one_has_none(self) -> None:
        assert c.validate(WANTED) == []
        c.validate_all([WANTED, dataclasses.replace(WANTED, name="other")])

    def test_all_faults_come_at_once(self) -> None:
        bad = dataclasses.replace(WANTED, addresses=("x",), days=0)
        with pytest.raises(c.CertificateError) as caught:
            c.validate_all([bad, WANTED])
        for words in ("'x' is no IP", "at least 1", "there twice"):
            assert words in str(caught.value)


class TestGiven:
    def test_is_taken_as_it_is(self, authority: c.Authority) -> None:
        made = c.issue(WANTED, authority, NOW)
        got = c.check_given(WANTED, made.fullchain, made.privkey, authority.pem, NOW)
        assert got == made
        assert c.given_differs(WANTED, found(made), got) == ""
        assert c.given_differs(WANTED, c.Found(), got)
        assert c.given_differs(WANTED, found(made, key_matches=False), got)
        other = c.issue(WANTED, authority, NOW)
        assert "another" in c.given_differs(WANTED, found(other), got)

    def test_wildcards_cover_one_label(self, authority: c.Authority) -> None:
        made = c.issue(WANTED, authority, NOW)
        one = dataclasses.replace(WANTED, domains=("x.apps.dhanman.com",))
        assert c.check_given(one, made.fullchain, made.privkey, "", NOW)
        two = dataclasses.replace(WANTED, domains=("x.y.apps.dhanman.com",))
        with pytest.raises(c.CertificateError, match=r"does not cover x\.y\.apps"):
            c.check_given(two, made.fullchain, made.privkey, "", NOW)

    def test_faults(self, authority: c.Authority) -> None:
        made, other = c.issue(WANTED, authority, NOW), c.issue(WANTED, authority, NOW)
        late, early = NOW + timedelta(days=91), NOW - timedelta(days=1)
        locked = _with_passphrase(made.privkey)
        cases = [
            (made.fullchain, other.privkey, NOW, "does not belong"),
            ("", made.privkey, NOW, "certificate_file"),
            (made.fullchain, "", NOW, "key_file"),
            (made.fullchain, locked, NOW, "passphrase"),
            (made.fullchain, made.privkey, late, "expired on"),
            (made.fullchain, made.privkey, early, "not valid before"),
        ]
        for certificate, key, when, words in cases:
            with pytest.raises(c.CertificateError, match=words) as caught:
                c.check_given(WANTED, certificate, key, "", when)
            assert "PRIVATE KEY" not in str(caught.value)

    def test_warns_before_the_end_and_of_a_broken_chain(self, authority: c.Authority) -> None:
        made = c.issue(WANTED, authority, NOW)
        soon = NOW + timedelta(days=70)
        got = c.check_given(WANTED, made.fullchain, made.privkey, "", soon)
        assert "expires on" in got.warnings[0]
        stranger = c.load_authority(c.new_authority("stranger")).pem
        got = c.check_given(WANTED, made.fullchain + stranger, made.privkey, "", NOW)
        assert "did not sign" in got.warnings[0]


def test_descriptions_name_what_people_ask_for(authority: c.Authority) -> None:
    material = c.issue(WANTED, authority, NOW)
    words = c.describe(material.fullchain)
    assert "10.0.0.5" in words
    assert "dhanman prod" in words
    assert (NOW + timedelta(days=90)).strftime("%Y-%m-%d") in words
    assert c.describe("") == ""
    assert c.describe("rubbish") == "unreadable\n"
    assert c.expires_of(material.fullchain).startswith(
        (NOW + timedelta(days=90)).strftime("%Y-%m-%d")
    )


def _with_passphrase(key: str) -> str:
    from cryptography.hazmat.primitives import serialization as s

    loaded = s.load_pem_private_key(key.encode(), None)
    encryption = s.BestAvailableEncryption(b"x")
    return loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption).decode()


def _root() -> c.Authority:
    return c.load_authority(c.new_authority("root"))


def _intermediate(root: c.Authority) -> c.Authority:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "middle")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=900))
        .add_extension(x509.BasicConstraints(True, 0), True)
        .sign(root.key, hashes.SHA256())
    )
    return c.Authority(key, (certificate, root.certificate))
