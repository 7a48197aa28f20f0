"""What is backed up and where to: restic's words for it, and every fault by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.file_backup import LayoutError, layout

LOCAL = {"name": "local", "path": "/srv/restic", "password": "hush-local"}
S3 = {
    "name": "offsite",
    "type": "s3",
    "endpoint": "s3.example.com",
    "bucket": "backups",
    "access_key": "AK",
    "secret_key": "hush-key",
    "password": "hush-offsite",
}


def made(
    *repositories: dict[str, Any],
    paths: tuple[str, ...] = ("/srv/shop",),
    excludes: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    return layout(paths, excludes, repositories or (LOCAL,), own, **more)


def test_a_directory_of_the_host() -> None:
    (one,) = made({**LOCAL, "port": None})["repositories"]
    assert one == {
        "name": "local",
        "url": "/srv/restic",
        "options": [],
        "password_file": "/etc/berth/file-backup/local.password",
        "keys_file": "",
        "keep": ["--keep-within=7d"],
    }


def test_a_bucket() -> None:
    (one,) = made({**S3, "port": 9000, "ca_file": "/etc/ca.pem", "path": "/h1"})["repositories"]
    assert one["url"] == "s3:https://s3.example.com:9000/backups/h1"
    assert one["options"] == [
        "--option=s3.region=us-east-1",
        "--option=s3.bucket-lookup=path",
        "--cacert=/etc/ca.pem",
    ]
    assert made(S3)["repositories"][0]["url"] == "s3:https://s3.example.com/backups/restic"
    (one,) = made({**S3, "uri_style": "host", "path": "/"})["repositories"]
    assert one["url"] == "s3:https://s3.example.com/backups"
    assert "--option=s3.bucket-lookup=dns" in one["options"]


def test_secrets_are_in_files_of_root_alone() -> None:
    found = made(LOCAL, S3)
    files = {one["path"]: one for one in found.pop("files")}
    assert "hush" not in json.dumps(found)
    assert files["/etc/berth/file-backup/local.password"]["content"] == "hush-local\n"
    keys = json.loads(files["/etc/berth/file-backup/offsite.keys"]["content"])
    assert keys == {"access_key": "AK", "secret_key": "hush-key"}
    assert {(one["mode"], one["secret"]) for one in files.values()} == {("0600", True)}


def test_retention() -> None:
    (one,) = made({**LOCAL, "retention_days": 14, "retention_weeks": 8, "retention_months": 6})[
        "repositories"
    ]
    assert one["keep"] == ["--keep-within=14d", "--keep-weekly=8", "--keep-monthly=6"]


def test_what_backups_write_is_excluded_where_it_is_in_a_path() -> None:
    found = made(paths=("/srv/", "/var/log"), excludes=("*.tmp",), own=("/var/cache/x", "/srv/s"))
    assert found["paths"] == ["/srv", "/var/log"]
    assert found["excludes"] == ["*.tmp", "/srv/restic", "/srv/s"]
    assert made(paths=("/",), own=("/var/cache/x",))["excludes"] == ["/srv/restic", "/var/cache/x"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"password": ""}, "repository local: password is missing"),
        ({"password": "a\nb"}, "password has a line break"),
        ({"name": "a/b"}, "letters, digits"),
        ({"path": "srv"}, "path is 'srv'"),
        ({"path": "/"}, "path is '/'"),
        ({"path": "/srv/*"}, "without wildcards"),
        ({"path": "/srv/../x"}, "give an absolute one"),
        ({"bucket": "b"}, "bucket goes with type s3 only"),
        ({"retention": 3}, "unknown key 'retention'"),
        ({"type": "sftp"}, "type is 'sftp'; give one of posix, s3"),
        ({"retention_days": 0}, "retention_days is 0; give a number from 1"),
        ({"retention_weeks": True}, "retention_weeks is True"),
    ],
)
def test_a_faulty_directory(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(LayoutError, match=words.replace("(", r"\(").replace("*", r"\*")):
        made({**LOCAL, **changed})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"endpoint": None}, "endpoint is missing"),
        ({"endpoint": "https://x"}, "without https://"),
        ({"bucket": "B_"}, "bucket is 'B_'"),
        ({"secret_key": " x"}, "secret_key has a line break or blanks"),
        ({"access_key": ""}, "access_key is missing"),
        ({"port": 0}, "port is 0"),
        ({"uri_style": "dns"}, "uri_style is 'dns'"),
        ({"ca_file": "ca.pem"}, "ca_file is 'ca.pem'"),
    ],
)
def test_a_faulty_bucket(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        made({**S3, **changed})


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ((), "there is no path"),
        (("srv",), "'srv' is not absolute"),
        (("/srv/../etc",), "has '..'"),
        (("/proc/1",), "kernel's"),
        (("/a", "/a/"), "/a is listed twice"),
        (("/srv/restic/data",), r"is in the repository local \(/srv/restic\) itself"),
    ],
)
def test_faulty_paths(paths: tuple[str, ...], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        made(paths=paths)


def test_all_faults_at_once_and_no_secret_in_them() -> None:
    with pytest.raises(LayoutError) as error:
        made(
            {**LOCAL, "secret_key": "hush"},
            {**LOCAL, "password": " hush "},
            excludes=("",),
            check_parts=300,
            check_repositories=["tape"],
        )
    words = str(error.value)
    assert "hush" not in words
    for part in ("secret_key goes", "listed twice", "share one place", "blanks", "exclude ''"):
        assert part in words
    assert "check_parts is 300; give a number from 1 to 256" in words
    assert "'tape', which is no repository; there are local, local" in words
    with pytest.raises(LayoutError, match="give at least one"):
        layout(["/srv"], [], [], [])
