"""The store as an S3 client meets it: signed requests over TLS, and what they are refused."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

SECRETS = {
    "root": 'root-secret-"$key\\',  # what a file of systemd would take for its own
    "shop": "shop-secret-key",
    "billing": "billing-secret-key",
}


def signed(method: str, url: str, body: bytes, key: str, secret: str) -> urllib.request.Request:
    """A request signed as AWS's Signature Version 4 says."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    request = urllib.request.Request(url, data=body or None, method=method)
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": request.host, "x-amz-content-sha256": digest, "x-amz-date": now}
    path, _, query = request.selector.partition("?")
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([method, path, query, lines, names, digest])
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashed])
    derived = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(derived, text.encode(), hashlib.sha256).hexdigest()
    for name, value in headers.items():
        request.add_header(name, value)
    request.add_header(
        "Authorization",
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}",
    )
    return request


Store = Callable[..., tuple[int, bytes]]


@pytest.fixture
def store(host: Any) -> Store:
    """Ask the store: store("PUT", "/images/a", b"…", key="shop")."""
    address = host.ansible.get_variables()["ansible_host"]
    trusted = ssl.create_default_context(
        cadata=host.file("/etc/store-certificate/fullchain.pem").content_string
    )

    def ask(
        method: str, path: str, body: bytes = b"", *, key: str = "shop", secret: str | None = None
    ) -> tuple[int, bytes]:
        url = f"https://{address}:9000{path}"
        request = signed(method, url, body, key, SECRETS[key] if secret is None else secret)
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return ask


def test_objects_are_put_listed_got_and_deleted(store: Store) -> None:
    assert store("PUT", "/images/a/b.txt", b"hello")[0] == 200
    assert b"<Key>a/b.txt</Key>" in store("GET", "/images?list-type=2")[1]
    assert store("GET", "/images/a/b.txt") == (200, b"hello")
    assert store("DELETE", "/images/a/b.txt")[0] == 204
    assert store("GET", "/images/a/b.txt")[0] == 404


@pytest.mark.parametrize("bucket", ["reports", "nobodys"])
def test_another_accounts_bucket_is_refused(store: Store, bucket: str) -> None:
    assert store("PUT", f"/{bucket}/x", b"x", key="shop")[0] == 403
    assert store("GET", f"/{bucket}?list-type=2", key="shop")[0] == 403
    assert store("PUT", f"/{bucket}/x", b"x", key="root")[0] == 200


def test_it_says_that_it_is_well_without_an_account(host: Any) -> None:
    address = host.ansible.get_variables()["ansible_host"]
    certificate = host.file("/etc/store-certificate/fullchain.pem").content_string
    trusted = ssl.create_default_context(cadata=certificate)
    url = f"https://{address}:9000/.health"
    with urllib.request.urlopen(url, context=trusted, timeout=10) as answer:
        assert answer.status == 200


def test_a_wrong_secret_is_refused(store: Store) -> None:
    assert store("GET", "/images?list-type=2", secret="shop-secret-kez")[0] == 403


def test_an_account_makes_no_bucket(store: Store) -> None:
    assert store("PUT", "/another", key="shop")[0] == 403


def test_secrets_are_nobody_elses(host: Any) -> None:
    for path in ("/etc/object-store/environment", "/var/lib/object-store/iam/users.json"):
        assert host.file(path).mode == 0o600
    pid = host.check_output("systemctl show -P MainPID object-store")
    arguments = host.file(f"/proc/{pid}/cmdline").content_string
    assert "secret" not in arguments and "root-secret" not in arguments
    assert host.check_output(f"stat -c %U /proc/{pid}") == "object-store"


def test_a_renewed_certificate_is_loaded(host: Any) -> None:
    before = host.check_output("systemctl show -P MainPID object-store")
    host.check_output(
        "cp -a /etc/store-certificate/fullchain.pem /root/x; "
        "cat /root/x > /etc/store-certificate/fullchain.pem"
    )
    until = time.monotonic() + 10
    while host.check_output("systemctl show -P MainPID object-store") == before:
        assert time.monotonic() < until, "the store was not restarted"
        time.sleep(0.5)


def test_what_was_written_survives_a_reboot(host: Any, store: Store, lab: Any) -> None:
    name = host.check_output("hostname")
    assert store("PUT", "/images/kept", b"kept")[0] == 200
    lab("restart", name)
    until = time.monotonic() + 30
    while True:
        try:
            assert store("GET", "/images/kept") == (200, b"kept")
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < until
            time.sleep(0.5)
