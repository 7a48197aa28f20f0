"""Who may connect: what is written, and what is refused before it is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.postgresql_hba import (
    HbaError,
    own_host_rules,
    render,
    rules,
)


def line(**entry: Any) -> list[str]:
    return render([entry]).split()


def test_a_rule_has_safe_defaults() -> None:
    assert line(address="10.0.0.0/8") == ["host", "all", "all", "10.0.0.0/8", "scram-sha-256"]


def test_names_are_quoted_and_words_are_not() -> None:
    assert line(database="prod-sales", user="sales", address="10.0.0.7") == [
        "host",
        '"prod-sales"',
        '"sales"',
        "10.0.0.7/32",
        "scram-sha-256",
    ]
    assert line(database="replication", user="+team", address="samenet")[1:4] == [
        "replication",
        '+"team"',
        "samenet",
    ]
    assert line(database=["a", 'b"c'], user=["all"], address="::1")[1:4] == [
        '"a","b""c"',
        "all",
        "::1/128",
    ]


def test_local_rules_have_no_address() -> None:
    assert line(type="local", user="postgres", method="peer") == [
        "local",
        "all",
        '"postgres"',
        "peer",
    ]


def test_options_follow_the_method() -> None:
    text = render(
        [
            {
                "type": "hostssl",
                "address": "0.0.0.0/0",
                "method": "cert",
                "options": {"map": "m", "note": "a b"},
            }
        ]
    )
    assert text.split("cert ")[1] == 'map=m note="a b"\n'


def test_order_is_kept_and_repeats_are_dropped() -> None:
    entries = [
        {"address": "10.0.0.2", "method": "reject"},
        {"address": "10.0.0.0/8"},
        {"address": "10.0.0.2/32", "method": "reject"},
    ]
    assert [one.address for one in rules(entries)] == ["10.0.0.2/32", "10.0.0.0/8"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"address": "10.0.0.1/8"}, "did you mean 10.0.0.0/8"),
        ({"address": "10.0.0.300"}, "no address"),
        ({"address": "10.0.0.0/33"}, "no address"),
        ({"address": "bad host"}, "no address"),
        ({"address": "x:y"}, "no address"),
        ({}, "address is missing"),
        ({"type": "local", "address": "10.0.0.0/8"}, "has none"),
        ({"type": "tcp", "address": "10.0.0.0/8"}, "type is 'tcp'"),
        ({"address": "10.0.0.0/8", "method": "trust"}, "lie open"),
        ({"address": "10.0.0.0/8", "method": "md5"}, "lie open"),
        ({"address": "10.0.0.0/8", "method": "peer"}, "local socket"),
        ({"address": "10.0.0.0/8", "method": "cert"}, "hostssl"),
        ({"address": "10.0.0.0/8", "database": []}, "admits nobody"),
        ({"address": "10.0.0.0/8", "user": "a\nhost all all all trust"}, "is no name"),
        ({"adress": "10.0.0.0/8"}, "unknown key 'adress'"),
    ],
)
def test_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(HbaError) as caught:
        render([{"address": "10.1.0.0/16"}, entry])
    assert "rule 2" in str(caught.value)
    assert words in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(HbaError) as caught:
        render([{"address": "x y"}, {"method": "trust", "address": "all"}])
    assert "rule 1" in str(caught.value)
    assert "rule 2" in str(caught.value)


def test_from_its_own_host_a_user_reaches_its_own_databases_only() -> None:
    users: list[dict[str, Any]] = [
        {"name": "sales", "databases": [{"name": "prod-sales"}, {"name": "shared"}]},
        {"name": "idle", "databases": []},
        {"name": "gone", "databases": [{"name": "prod-sales"}], "state": "absent"},
    ]
    assert [one.fields() for one in rules(own_host_rules(users))] == [
        ("local", '"prod-sales","shared"', '"sales"', "", "scram-sha-256"),
        ("host", '"prod-sales","shared"', '"sales"', "127.0.0.1/32", "scram-sha-256"),
        ("host", '"prod-sales","shared"', '"sales"', "::1/128", "scram-sha-256"),
    ]


def test_columns_are_aligned() -> None:
    text = render([{"address": "10.0.0.0/8"}, {"address": "all", "database": "long-name"}])
    first, second = text.splitlines()
    assert first.index("scram") == second.index("scram")
