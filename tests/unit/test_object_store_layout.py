"""Buckets and their owners, as the store keeps them on disk."""

from __future__ import annotations

import json

import pytest
from ansible_collections.berth.platform.plugins.module_utils.object_store import (
    ObjectStoreError,
    layout,
    owners,
)

BUCKETS = [{"name": "images"}, {"name": "reports"}]


def test_a_bucket_belongs_to_who_lists_it_and_else_to_root() -> None:
    users = [{"access_key": "shop", "buckets": ["images"]}]
    assert owners(BUCKETS, users, "root") == {"images": "shop", "reports": "root"}


@pytest.mark.parametrize(
    ("buckets", "users", "told"),
    [
        ([{"name": "No"}], [], "'No' is no bucket name"),
        ([{"name": "a..b"}], [], "'a..b' is no bucket name"),
        (BUCKETS, [{"access_key": "a"}, {"access_key": "a"}], "'a' is there twice"),
        (BUCKETS, [{"access_key": "root"}], "'root' is there twice"),
        (BUCKETS, [{"access_key": "a", "buckets": ["x"]}], "owns 'x', which object_store_buckets"),
        (
            BUCKETS,
            [
                {"access_key": "a", "buckets": ["images"]},
                {"access_key": "b", "buckets": ["images"]},
            ],
            "'images' is owned by 'a' and 'b'; a bucket has one owner",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    buckets: list[dict[str, str]], users: list[dict[str, object]], told: str
) -> None:
    with pytest.raises(ObjectStoreError) as error:
        owners(buckets, users, "root")
    assert told in str(error.value)


def test_a_bucket_is_a_directory_and_an_owner_beside_it() -> None:
    entries = {entry["path"]: entry for entry in layout("/srv", {"images": "shop"}, "store")}
    assert entries["/srv/data/images"]["state"] == "directory"
    acl = json.loads(entries["/srv/meta/images/meta/acl"]["content"])
    assert acl["Owner"] == "shop"
    assert acl["Grantees"] == [
        {"Permission": "FULL_CONTROL", "Access": "shop", "Type": "CanonicalUser"}
    ]
    assert {entry["owner"] for entry in entries.values()} == {"store"}
