"""The nginx role's core: syntax, sizes, and faults that are named all at once."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils import nginx as n
from ansible_collections.berth.platform.plugins.module_utils import nginx_workers as w
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "render"))
from nginx_syntax import parse

UPSTREAM = {"name": "shop", "servers": [{"address": "10.0.0.5:5001"}]}


def site(**changes: Any) -> dict[str, Any]:
    base = {"name": "shop", "domains": ["shop.test"], "locations": [location()]}
    return {**base, **changes}


def location(**changes: Any) -> dict[str, Any]:
    return {"path": "/", "upstream": "shop", **changes}


def resolve(**given_: Any) -> dict[str, Any]:
    return n.resolve({"upstreams": [UPSTREAM], "sites": [site()], **given_})


def faults(**given_: Any) -> str:
    with pytest.raises(n.NginxError) as caught:
        resolve(**given_)
    return str(caught.value)


class TestSyntax:
    @given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
    def test_what_is_quoted_is_read_back(self, text: str) -> None:
        (block,) = parse(f"directive {n.quote(text)};").body
        assert block.args == [text]

    @pytest.mark.parametrize("text", ["a\nb", "a\0", "\x7f"])
    def test_control_characters_are_refused(self, text: str) -> None:
        with pytest.raises(n.NginxError, match="control"):
            n.quote(text)

    def test_plain_words_stay_plain(self) -> None:
        assert n.quote("/health") == "/health"
        assert n.quote("$host") == "$host"
        assert n.quote(r"\.(js|css)$") == r'"\.(js|css)$"'

    def test_directives(self) -> None:
        lines = n.directives(
            {"gzip": True, "autoindex": False, "set_real_ip_from": ["10.0.0.1", "::1"], "x": None}
        )
        assert lines == [
            "gzip on",
            "autoindex off",
            "set_real_ip_from 10.0.0.1",
            "set_real_ip_from ::1",
        ]

    @pytest.mark.parametrize("value", ["on; user root", "a { b", "x }", "on # the rest", "a\nb"])
    def test_one_key_is_one_directive(self, value: str) -> None:
        with pytest.raises(n.NginxError, match="more than one"):
            n.directives({"gzip": value})

    def test_quotes_and_variables_may_hold_anything(self) -> None:
        value = 'json escape=json \'{ "a": "${host}#;" }\''
        assert n.directives({"log_format": value}) == [f"log_format {value}"]

    @pytest.mark.parametrize(
        ("version", "wanted", "expected"),
        [
            ("1.22.1-9+deb12u3", "1.25.1", False),
            ("1.26.3-3+deb13u1", "1.25.1", True),
            ("1:1.25.1", "1.25.1", True),
            ("1.25", "1.25.1", False),
            ("2.0", "1.25.1", True),
            ("1.9.15", "1.19.4", False),
        ],
    )
    def test_versions(self, version: str, wanted: str, expected: bool) -> None:
        assert n.at_least(version, wanted) is expected


class TestHashSizes:
    def test_short_names_need_what_nginx_has(self) -> None:
        assert n.hash_sizes(["shop.test"]) == (64, 512)

    @pytest.mark.parametrize(
        ("length", "bucket"), [(46, 64), (47, 128), (110, 128), (111, 256), (253, 512)]
    )
    def test_a_long_name_fits_its_bucket(self, length: int, bucket: int) -> None:
        assert n.hash_sizes(["a" * length])[0] == bucket

    def test_many_names(self) -> None:
        assert n.hash_sizes(f"shop{i}.test" for i in range(1000))[1] == 4096


class TestFaults:
    def test_all_at_once(self) -> None:
        text = faults(
            sites=[
                site(domains=["bad name"], header_set="strict"),
                site(name="two", domains=["two.test"], locations=[location(upstream="shap")]),
            ],
            upstreams=[UPSTREAM, {"name": "empty", "servers": []}],
            header_sets={"default": {}, "strikt": {}},
        )
        for words in (
            "nginx_sites[shop].domains is 'bad name': is no domain name",
            "did you mean 'strikt'?",
            "nginx_sites[two].locations[/].upstream is 'shap': did you mean 'shop'?",
            "nginx_upstreams[empty].servers: has no server",
        ):
            assert words in text

    @pytest.mark.parametrize(
        "address",
        [
            "shop:5001",
            "10.0.0.5",
            "10.0.0.5:0",
            "10.0.0.5:70000",
            "::1:80",
            "unix:rel",
            "[x]:1",
            "",
        ],
    )
    def test_addresses_only(self, address: str) -> None:
        upstream = {"name": "shop", "servers": [{"address": address}]}
        assert "resolved once, at start" in faults(upstreams=[upstream])

    @pytest.mark.parametrize("address", ["10.0.0.5:5001", "[2001:db8::5]:80", "unix:/run/a.sock"])
    def test_good_addresses(self, address: str) -> None:
        upstream = {"name": "shop", "servers": [{"address": address}]}
        assert resolve(upstreams=[upstream])["upstreams"][0]["servers"] == [address]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"balance": "random"}, "known are ip_hash, least_conn, round_robin"),
            ({"servers": [{"address": "10.0.0.5:1", "backup": True}]}, "backups of nothing"),
            ({"servers": [{"address": "10.0.0.5:1", "fail_timeout": "soon"}]}, "no time"),
            ({"name": "a b"}, "no name for an upstream"),
            (
                {
                    "balance": "ip_hash",
                    "servers": [
                        {"address": "10.0.0.5:1"},
                        {"address": "10.0.0.6:1", "backup": True},
                    ],
                },
                "cannot go with balance ip_hash",
            ),
        ],
    )
    def test_upstreams(self, change: dict[str, Any], words: str) -> None:
        assert words in faults(upstreams=[{**UPSTREAM, **change}])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"name": "../x"}, "no name for a site"),
            ({"domains": []}, "only a default site has none"),
            ({"domains": ["a.test", "A.test."]}, "served by shop already"),
            ({"certificate": "../../x"}, "no directory name"),
            ({"log_name": "a/b"}, "no file name"),
            ({"client_max_body": "lots"}, "no size"),
            ({"settings": {"return": "200; deny all"}}, "more than one directive"),
            ({"locations": [location(), location()]}, "'/': is there twice"),
        ],
    )
    def test_sites(self, change: dict[str, Any], words: str) -> None:
        assert words in faults(sites=[site(**change)])

    def test_two_sites(self) -> None:
        text = faults(sites=[site(default=True), site(default=True, domains=["b.test"])])
        assert "is what shop is already" in text
        assert "nginx_sites[shop]: is there twice" in text
        assert "served by shop already" in faults(sites=[site(), site(name="b")])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"match": "suffix"}, "known are exact, prefix, regex, strong_prefix"),
            ({"path": "health"}, "does not start with a slash"),
            ({"root": "/var/www"}, "has upstream and root"),
            ({"upstream": None}, "has none"),
            ({"allow": ["10.0.0.0/33"]}, "neither an address nor a network"),
            ({"rate_limit": {"name": "apy"}}, "did you mean 'api'?"),
            ({"timeouts": {"read": "long"}}, "no time"),
            ({"buffers": {"size": "16k", "busy": "8k"}}, "between 16k"),
            ({"buffers": {"number": 1}}, "must be 2 at least"),
            ({"headers": {"X Y": "1"}}, "no name of an HTTP header"),
            ({"headers": {"X-A": "1\r\nX-B: 2"}}, "control character"),
            ({"proxy_scheme": "ftp"}, "neither http nor https"),
            ({"match": "regex", "upstream_path": "/"}, "cannot go with a regex"),
            ({"cache": {"name": "nope"}}, "there are none"),
            ({"expires": "soon"}, "no time such as 1y"),
            ({"upstream": None, "return": {"code": 301}}, "where a redirection leads"),
            ({"upstream": None, "return": {"code": 999}}, "no HTTP status"),
            (
                {"upstream": None, "return": {"code": 204}, "allow": ["::1"]},
                "no effect beside return",
            ),
            ({"upstream": None, "root": "www"}, "no absolute path"),
            ({"upstream": None, "alias": "/var/www"}, "exactly if the path does"),
            (
                {"upstream": None, "root": "/w", "spa": True, "match": "exact"},
                "matches a prefix",
            ),
        ],
    )
    def test_locations(self, change: dict[str, Any], words: str) -> None:
        limits = [{"name": "api", "rate": "10r/s"}]
        assert words in faults(sites=[site(locations=[location(**change)])], rate_limits=limits)

    @pytest.mark.parametrize(
        ("given_", "words"),
        [
            ({"rate_limits": [{"name": "api", "rate": "10"}]}, "no rate such as 10r/s"),
            ({"rate_limits": [{"name": "api", "rate": "1r/s", "size": "1k"}]}, "below 32k"),
            ({"rate_limits": [{"name": "a", "rate": "1r/s"}] * 2}, "is there twice"),
            ({"caches": [{"name": "a", "size": "big"}]}, "no size"),
            ({"settings": {"server": "x"}}, "no directive to be set here"),
            ({"settings": {"gzip on; x": 1}}, "no directive to be set here"),
            ({"listen_addresses": ["eth0"]}, "no IP address"),
            ({"trusted_proxies": ["cdn"]}, "neither an address"),
            ({"proxy": {"timeouts": {"read": "x"}}}, "nginx_proxy.timeouts.read"),
            ({"proxy": {"buffers": {"busy": "1k"}}}, "nginx_proxy.buffers.busy"),
            ({"tls": {"ciphers": "a; b"}}, "nginx_tls"),
        ],
    )
    def test_the_rest(self, given_: dict[str, Any], words: str) -> None:
        assert words in faults(**given_)


class TestChecksum:
    def test_tells_configurations_apart(self) -> None:
        one = resolve()["checksum"]
        assert resolve()["checksum"] == one
        assert resolve(settings={"gzip": True})["checksum"] != one
        assert resolve(templates=["new"])["checksum"] != one


class TestBuffers:
    @pytest.mark.parametrize(
        ("given_", "busy"),
        [({}, "8k"), ({"size": "16k"}, "32k"), ({"number": 2}, "4k"), ({"size": 512}, "1k")],
    )
    def test_busy_follows(self, given_: dict[str, Any], busy: str) -> None:
        assert resolve(proxy={"buffers": given_})["proxy"]["buffers"]["busy"] == busy


class TestWorkers:
    TITLES = [
        (10, "nginx: worker process"),
        (11, "nginx: worker process is shutting down"),
        (12, "nginx: cache manager process"),
    ]

    def test_sorted_by_title(self) -> None:
        found = w.sort_workers(self.TITLES)
        assert found == w.Workers(frozenset({10}), frozenset({11}))

    @pytest.mark.parametrize(
        ("before", "now", "expected"),
        [({1, 2}, {3, 4}, True), ({1, 2}, {2, 3}, False), ({1}, set(), False), (set(), {1}, True)],
    )
    def test_taken_over(self, before: set[int], now: set[int], expected: bool) -> None:
        none: frozenset[int] = frozenset()
        assert (
            w.took_over(w.Workers(frozenset(before), none), w.Workers(frozenset(now), none))
            is expected
        )

    @pytest.mark.parametrize(
        ("log", "expected"),
        [
            ("", False),
            ("[notice] 1#1: signal process started\n", False),
            ("[emerg] 1#1: bind() to 0.0.0.0:80 failed (98: Address already in use)\n", False),
            (
                "[emerg] 1#1: bind() to 0.0.0.0:80 failed\n[emerg] 1#1: still could not bind()\n",
                True,
            ),
            ('[emerg] 1#1: open() "/var/log/x.log" failed (13: Permission denied)\n', True),
        ],
    )
    def test_nginx_says_when_it_gives_up(self, log: str, expected: bool) -> None:
        assert w.gave_up(log) is expected

    def test_children_of_a_process(self, tmp_path: Path) -> None:
        for pid, parent, title in ((7, 1, "a\0b"), (8, 7, "nginx: worker process\0")):
            (tmp_path / str(pid)).mkdir()
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (odd) name) S {parent} 0 0")
            (tmp_path / str(pid) / "cmdline").write_text(title)
        (tmp_path / "9").mkdir()
        assert w.children_titles(7, str(tmp_path)) == [(8, "nginx: worker process")]

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\nabc\n", "abc"),
            (b"HTTP/1.1 404 Not Found\r\n\r\nabc", ""),
            (b"rubbish", ""),
            (b"", ""),
        ],
    )
    def test_ask(self, tmp_path: Path, answer: bytes, expected: str) -> None:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()

            def serve() -> None:
                connection, _ = server.accept()
                connection.recv(999)
                connection.sendall(answer)
                connection.close()

            thread = threading.Thread(target=serve)
            thread.start()
            assert w.ask(path, "/checksum") == expected
            thread.join()

    def test_ask_nobody(self, tmp_path: Path) -> None:
        assert w.ask(str(tmp_path / "none"), "/") == ""
