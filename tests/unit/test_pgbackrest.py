"""Backup repositories: the options they become, and the ones that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.pgbackrest import (
    RepositoryError,
    repositories,
)

S3 = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "backups",
    "access_key": "AK",
    "secret_key": "SK",
}


def options(entry: dict[str, Any]) -> dict[str, str]:
    return dict(repositories([entry])[0].options)


def test_a_directory() -> None:
    assert options({}) == {
        "type": "posix",
        "path": "/var/lib/pgbackrest",
        "bundle": "y",
        "retention-full-type": "time",
        "retention-full": "30",
    }


def test_an_s3_server() -> None:
    more = {
        "port": 9000,
        "ca_file": "/etc/ssl/ca.pem",
        "verify_tls": False,
        "cipher_pass": "secret",
        "retention_full": 4,
        "retention_full_type": "count",
        "retention_diff": 7,
        "region": "eu-1",
        "uri_style": "host",
        "path": "/pg/",
    }
    assert options({**S3, **more}) == {
        "type": "s3",
        "path": "/pg",
        "bundle": "y",
        "s3-endpoint": "s3.example.com",
        "s3-bucket": "backups",
        "s3-region": "eu-1",
        "s3-uri-style": "host",
        "s3-key": "AK",
        "s3-key-secret": "SK",
        "storage-port": "9000",
        "storage-ca-file": "/etc/ssl/ca.pem",
        "storage-verify-tls": "n",
        "cipher-type": "aes-256-cbc",
        "cipher-pass": "secret",
        "retention-full-type": "count",
        "retention-full": "4",
        "retention-diff": "7",
    }


def test_defaults_of_s3_suit_a_server_of_ones_own() -> None:
    given = options(S3)
    assert (given["s3-region"], given["s3-uri-style"]) == ("us-east-1", "path")
    assert given["path"] == "/pgbackrest"
    assert "storage-port" not in given


def test_what_is_null_is_not_given() -> None:
    assert options({**S3, "port": None, "cipher_pass": None}) == options(S3)


def test_numbers_follow_the_order_and_names_are_made_up() -> None:
    found = repositories([{"path": "/a"}, {"name": "b", "path": "/b"}])
    assert [(one.key, one.name) for one in found] == [(1, "repo1"), (2, "b")]


def test_what_may_be_read_by_all_holds_no_secret() -> None:
    (one,) = repositories([{**S3, "cipher_pass": "secret"}])
    public = one.as_dict()["public"]
    assert public == {"key": 1, "name": "offsite", "path": ""}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "there is no repository"),
        ([{"type": "ftp"}], "type is 'ftp'"),
        ([{"name": "a b"}], "the name may have"),
        ([{"path": "relative"}], "path is 'relative'"),
        ([{"path": "/"}], "path is '/'"),
        ([{"bucket": "x"}], "bucket goes with type s3 only"),
        ([{"keep": 3}], "unknown key 'keep'"),
        ([{**S3, "bucket": ""}], "bucket is missing"),
        ([{**S3, "endpoint": "https://s3"}], "without https://"),
        ([{**S3, "uri_style": "dns"}], "uri_style is 'dns'"),
        ([{"retention_full": 0}], "retention_full is 0"),
        ([{"retention_diff": "7"}], "retention_diff is '7'"),
        ([{"retention_full_type": "weeks"}], "retention_full_type is 'weeks'"),
        ([{"cipher_pass": "a\nrepo1-type=x"}], "line break"),
        ([{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}], "a is listed twice"),
        ([{"name": "a"}, {"name": "b"}], "a and b share one place"),
        ([S3, {**S3, "name": "copy"}], "offsite and copy share one place"),
    ],
)
def test_refused(entries: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        repositories(entries)
    assert words in str(caught.value)


def test_secrets_are_in_no_complaint() -> None:
    with pytest.raises(RepositoryError) as caught:
        repositories([{**S3, "secret_key": "hush\n", "cipher_pass": " hush"}])
    assert "hush" not in str(caught.value)
