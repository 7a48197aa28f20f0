"""What the static_site role asks of the release module."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.berth.platform.plugins.filter.static_site_releases import (
    static_site_releases,
)

SITE: dict[str, Any] = {"name": "app", "root": "/var/www/app", "artifact": {"path": "build"}}


def test_defaults() -> None:
    assert static_site_releases([SITE]) == [
        {
            "name": "app",
            "directory": "/var/www/app.releases",
            "link": "/var/www/app",
            "artifact": {"path": "build"},
            "group": "www-data",
            "keep": 3,
        }
    ]


def test_what_is_given_wins() -> None:
    given = {"releases": "/r", "version": "1", "owner": "me", "group": "web", "keep": 5}
    (release,) = static_site_releases([{**SITE, **given, "root": "/w/"}], 2)
    assert release["directory"] == "/r"
    assert release["link"] == "/w"
    assert (release["version"], release["owner"], release["group"]) == ("1", "me", "web")
    assert release["keep"] == 5
    assert static_site_releases([SITE], 2)[0]["keep"] == 2


def test_what_is_null_is_not_given() -> None:
    site = {**SITE, "version": None, "artifact": {"path": "a", "url": None}}
    (release,) = static_site_releases([site])
    assert "version" not in release
    assert release["artifact"] == {"path": "a"}


def test_faults_come_at_once() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        static_site_releases([SITE, {**SITE, "name": "two"}, {"name": "three", "root": "/x"}])
    assert "two: app is served from /var/www/app, too" in str(caught.value)
    assert "three: artifact must be given" in str(caught.value)


def test_placing_switches_nothing() -> None:
    sites = [SITE, {**SITE, "name": "b", "root": "/b", "artifact": {"git": "https://example.com"}}]
    assert [
        (each["name"], each["activate"]) for each in static_site_releases(sites, place=True)
    ] == [("app", False)]
