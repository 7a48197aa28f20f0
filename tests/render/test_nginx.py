"""What the nginx role writes for edge values, read back with nginx's own rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
from nginx_syntax import Block, parse
from render import evaluate, host, render, role_vars, spec_errors

HSTS = "max-age=31536000; includeSubDomains"
DEFAULT_HEADERS = {
    "Strict-Transport-Security": HSTS,
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
}
SALES = {
    "name": "dhanman-sales-prod",
    "servers": [{"address": "127.0.0.1:5006"}],
}


def site_blocks(site: dict[str, Any], **variables: Any) -> list[Block]:
    """The server blocks of one site, as the role's own file list renders them."""
    given = {"nginx_upstreams": [SALES], "nginx_sites": [site], **variables}
    assert spec_errors("nginx", {k: v for k, v in given.items() if k != "ansible_facts"}) == []
    (entry,) = evaluate("nginx", "__nginx_resolved.site_files", given)
    text = render("nginx", entry["template"], given | entry["vars"])
    return parse(text).all("server")


def site_block(site: dict[str, Any], **variables: Any) -> Block:
    return site_blocks(site, **variables)[-1]


def main_blocks(**variables: Any) -> tuple[Block, Block]:
    """nginx.conf, and its http block."""
    root = parse(render("nginx", "nginx.conf.j2", variables))
    (http,) = root.all("http")
    return root, http


def sales(**changes: Any) -> dict[str, Any]:
    return {
        "name": "sales",
        "domains": ["sales.dhanman.com"],
        "certificate": "sales.dhanman.com",
        "locations": [{"path": "/", "upstream": SALES["name"]}],
        **changes,
    }


def upstreams(*given: dict[str, Any], **variables: Any) -> Block:
    return parse(
        render("nginx", "upstreams.conf.j2", {"nginx_upstreams": list(given), **variables})
    )


class TestDhanman:
    """Every number of the document's nginx section, from defaults where it can be one."""

    def test_proxy_settings_hold_everywhere(self) -> None:
        _root, http = main_blocks()
        for name, value in {
            "proxy_http_version": "1.1",
            "proxy_connect_timeout": "60s",
            "proxy_send_timeout": "60s",
            "proxy_read_timeout": "60s",
            "proxy_buffering": "on",
            "proxy_buffer_size": "4k",
            "proxy_buffers": "8 4k",
            "proxy_busy_buffers_size": "8k",
            "proxy_cache_bypass": "$http_upgrade",
            "ssl_protocols": "TLSv1.2 TLSv1.3",
            "ssl_ciphers": "HIGH:!aNULL:!MD5",
            "ssl_prefer_server_ciphers": "on",
            "gzip": "on",
            "gzip_vary": "on",
            "gzip_min_length": "1024",
            "server_tokens": "off",
            "limit_req_status": "429",
        }.items():
            assert http.one(name) == value
        sent = {block.args[0]: block.args[1] for block in http.all("proxy_set_header")}
        assert sent["Host"] == "$host"
        assert sent["X-Real-IP"] == "$remote_addr"
        assert sent["X-Forwarded-For"] == "$proxy_add_x_forwarded_for"
        assert sent["X-Forwarded-Proto"] == "$scheme"
        types = http.one("gzip_types").split()
        assert {"text/css", "application/json", "application/xml+rss"} <= set(types)

    def test_keepalive_survives_websockets(self) -> None:
        _root, http = main_blocks()
        upgrade, connection = http.all("map")
        assert [b.name + " " + " ".join(b.args) for b in connection.body] == [
            "default ",
            "~*^websocket$ upgrade",
        ]
        assert upgrade.args == ["$http_upgrade", "$berth_upgrade"]
        sent = {block.args[0]: block.args[1] for block in http.all("proxy_set_header")}
        assert (sent["Upgrade"], sent["Connection"]) == ("$berth_upgrade", "$berth_connection")

    def test_site(self) -> None:
        redirect, https = site_blocks(sales(log_name="dhanman-sales-prod"))
        assert redirect.values("listen") == ["80"]
        assert redirect.location("/").one("return") == "301 https://$host$request_uri"
        assert "/etc/nginx/snippets/berth-acme.conf" in redirect.values("include")
        assert https.values("listen") == ["443 ssl"]
        assert https.one("http2") == "on"
        assert https.one("server_name") == "sales.dhanman.com"
        certificate = "/etc/berth/tls/sales.dhanman.com/fullchain.pem"
        assert https.one("ssl_certificate") == certificate
        assert https.one("access_log") == "/var/log/nginx/dhanman-sales-prod-access.log main"
        assert https.one("error_log") == "/var/log/nginx/dhanman-sales-prod-error.log"
        assert https.headers() == DEFAULT_HEADERS
        assert https.location("/").one("proxy_pass") == "http://dhanman-sales-prod"

    def test_load_balancing(self) -> None:
        servers = [
            {"address": f"10.0.0.{i}:5006", "weight": 1, "max_fails": 3, "fail_timeout": "30s"}
            for i in (1, 2, 3)
        ]
        cluster = {"name": "dhanman-sales-cluster", "servers": servers, "balance": "least_conn"}
        (block,) = upstreams(cluster).all("upstream")
        assert block.all("least_conn")
        assert block.values("server")[0] == "10.0.0.1:5006 max_fails=3 fail_timeout=30s"
        assert len(block.values("server")) == 3
        assert block.one("keepalive") == "32"
        names = [each.name for each in block.body]
        assert names.index("least_conn") < names.index("keepalive")

    def test_quiet_health_and_restricted_dashboard(self) -> None:
        locations = [
            {"path": "/", "upstream": SALES["name"]},
            {"path": "/health", "upstream": SALES["name"], "log": False},
            {
                "path": "/hangfire",
                "upstream": SALES["name"],
                "allow": ["10.0.0.0/8", "2001:db8::/32"],
                "auth_file": "/etc/nginx/.htpasswd",
            },
        ]
        block = site_block(sales(locations=locations))
        assert block.location("/health").one("access_log") == "off"
        hangfire = block.location("/hangfire")
        assert hangfire.values("allow") == ["10.0.0.0/8", "2001:db8::/32"]
        assert hangfire.one("deny") == "all"
        names = [each.name for each in hangfire.body]
        assert names.index("deny") > max(i for i, name in enumerate(names) if name == "allow")
        assert hangfire.one("auth_basic_user_file") == "/etc/nginx/.htpasswd"

    def test_frontend(self) -> None:
        root = "/var/www/frontend/prod/build"
        block = site_block(sales(locations=[{"path": "/", "root": root, "spa": True}]))
        spa = block.location("/")
        assert spa.one("root") == root
        assert spa.one("index") == "index.html"
        assert spa.one("try_files") == "$uri $uri/ /index.html"
        (assets,) = [each for each in spa.all("location") if each.args[0] == "~*"]
        for name in ("a.js", "b.CSS", "c.jpeg", "d.jpg", "e.woff", "f.woff2", "g.eot", "h.ico"):
            assert re.search(assets.args[1], name, re.IGNORECASE)
        for name in ("js", "a.json", "a.jsx", "a.html"):
            assert not re.search(assets.args[1], name, re.IGNORECASE)
        assert assets.one("expires") == "1y"
        assert assets.headers() == DEFAULT_HEADERS | {"Cache-Control": "public, immutable"}
        fresh = spa.location("= /index.html")
        assert fresh.headers() == DEFAULT_HEADERS | {"Cache-Control": "no-cache"}


class TestHeaders:
    def test_a_location_that_adds_one_says_them_all(self) -> None:
        block = site_block(
            sales(
                locations=[
                    {"path": "/", "upstream": SALES["name"]},
                    {
                        "path": "/frame",
                        "upstream": SALES["name"],
                        "headers": {
                            "x-frame-options": None,
                            "Content-Security-Policy": "frame-ancestors 'self'; x \"y\"",
                        },
                    },
                ]
            )
        )
        assert block.location("/").headers() == {}
        expected = dict(DEFAULT_HEADERS)
        del expected["X-Frame-Options"]
        expected["Content-Security-Policy"] = "frame-ancestors 'self'; x \"y\""
        assert block.location("/frame").headers() == expected

    def test_all_removed_is_not_all_inherited(self) -> None:
        block = site_block(
            sales(
                header_set="one",
                locations=[{"path": "/", "upstream": SALES["name"], "headers": {"X-One": None}}],
            ),
            nginx_header_sets={"one": {"X-One": "1"}},
        )
        assert block.headers() == {"X-One": "1"}
        assert block.location("/").headers() == {"X-None": ""}

    def test_hsts_is_never_said_over_plain_http(self) -> None:
        block = site_block(sales(certificate=None))
        assert "Strict-Transport-Security" not in block.headers()
        assert block.headers()["X-Frame-Options"] == "SAMEORIGIN"

    @pytest.mark.parametrize("match", ["exact", "regex", "strong_prefix"])
    def test_files_under_any_match(self, match: str) -> None:
        entry = {"path": "/a", "match": match, "root": "/var/www", "expires": "1h"}
        block = site_block(sales(locations=[entry]))
        (location,) = [b for b in block.all("location") if b.args[-1] == "/a"]
        if match == "strong_prefix":
            assert location.values("expires") == []
            assert [b.one("expires") for b in location.all("location") if b.args[0] == "~*"]
        else:
            assert location.one("expires") == "1h"
            assert location.all("location") == []


class TestSites:
    def test_plain_http(self) -> None:
        (block,) = site_blocks(sales(certificate=None))
        assert block.values("listen") == ["80"]
        assert block.values("ssl_certificate") == []
        assert block.values("http2") == []
        assert "/etc/nginx/snippets/berth-acme.conf" in block.values("include")

    def test_both(self) -> None:
        (block,) = site_blocks(sales(redirect_http=False))
        assert block.values("listen") == ["80", "443 ssl"]

    def test_old_nginx_says_http2_elsewhere(self) -> None:
        facts = host(version="12", codename="bookworm")
        block = site_block(sales(), ansible_facts=facts)
        assert block.values("listen") == ["443 ssl http2"]
        assert block.values("http2") == []

    def test_installed_version_counts(self) -> None:
        facts = host(version="12", packages={"nginx": "1.26.0-1~bpo12+1"})
        assert site_block(sales(), ansible_facts=facts).one("http2") == "on"

    def test_no_http2(self) -> None:
        block = site_block(sales(), nginx_http2_enabled=False)
        assert block.values("listen") == ["443 ssl"]
        assert block.values("http2") == []

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, ["443 ssl"]),
            ({"nginx_ipv6": "always"}, ["443 ssl", "[::]:443 ssl"]),
            ({"ansible_facts": host(addresses=["10.0.0.1", "2001:db8::1"])},
             ["443 ssl", "[::]:443 ssl"]),
            ({"ansible_facts": host(addresses=["2001:db8::1"]), "nginx_ipv6": "never"},
             ["443 ssl"]),
            ({"nginx_listen_addresses": ["10.0.0.1", "2001:DB8::1"], "nginx_https_port": 8443},
             ["10.0.0.1:8443 ssl", "[2001:db8::1]:8443 ssl"]),
        ],
    )  # fmt: skip
    def test_addresses(self, given: dict[str, Any], expected: list[str]) -> None:
        assert site_block(sales(), **given).values("listen") == expected

    def test_redirect_names_an_unusual_port(self) -> None:
        redirect, _ = site_blocks(sales(), nginx_https_port=8443)
        assert redirect.location("/").one("return") == "301 https://$host:8443$request_uri"

    def test_many_and_long_domains(self) -> None:
        domains = [f"shop{i}.dhanman.com" for i in range(300)]
        domains += ["*.apps.dhanman.com", "Bücher.example", ".".join(["a" * 60] * 4)]
        block = site_block(sales(domains=domains))
        names = block.one("server_name").split()
        assert len(names) == 303
        assert "xn--bcher-kva.example" in names
        _root, http = main_blocks(nginx_sites=[sales(domains=domains)], nginx_upstreams=[SALES])
        assert int(http.one("server_names_hash_bucket_size")) == 512
        assert int(http.one("server_names_hash_max_size")) == 2048

    def test_a_default_site_takes_what_is_left(self) -> None:
        site = sales(default=True, domains=None)
        for block in site_blocks(site):
            assert block.one("server_name") == "_"
            assert block.values("listen")[0].endswith("default_server")
        _root, http = main_blocks(nginx_sites=[site], nginx_upstreams=[SALES])
        assert len(http.all("server")) == 1  # the status server

    def test_nothing_is_served_by_accident(self) -> None:
        block = site_block(sales(locations=[{"path": "/api", "upstream": SALES["name"]}]))
        assert block.location("/").one("return") == "404"
        assert site_block(sales(locations=[])).location("/").one("return") == "404"

    def test_further_settings(self) -> None:
        block = site_block(
            sales(client_max_body="50m", gzip=False, settings={"keepalive_timeout": "5s"})
        )
        assert block.one("client_max_body_size") == "50m"
        assert block.one("gzip") == "off"
        assert block.one("keepalive_timeout") == "5s"

    def test_wildcard_names_make_plain_paths(self) -> None:
        name = "*.dhanman.com"
        site = sales(name=name, domains=[name], certificate=name)
        given = {"nginx_upstreams": [SALES], "nginx_sites": [site]}
        (entry,) = evaluate("nginx", "__nginx_resolved.site_files", given)
        assert entry["path"] == "/etc/nginx/sites-enabled/_.dhanman.com.conf"
        assert entry["vars"]["nginx_site"]["certificate"] == "/etc/berth/tls/_.dhanman.com"


class TestLocations:
    def location(self, **changes: Any) -> Block:
        entry = {"path": "/x", "upstream": SALES["name"], **changes}
        variables = {
            "nginx_rate_limits": [{"name": "api", "rate": "10r/s"}],
            "nginx_caches": [{"name": "pages"}],
        }
        block = site_block(sales(locations=[entry]), **variables)
        (found,) = [b for b in block.all("location") if b.args[-1] != "/"]
        return found

    def test_nothing_but_the_pass_by_default(self) -> None:
        assert [block.name for block in self.location().body] == ["proxy_pass"]

    def test_without_websocket(self) -> None:
        found = self.location(websocket=False)
        sent = {block.args[0]: block.args[1] for block in found.all("proxy_set_header")}
        assert (sent["Upgrade"], sent["Connection"]) == ("", "")
        assert sent["Host"] == "$host"

    def test_headers_for_the_upstream(self) -> None:
        found = self.location(proxy_headers={"host": "inner.test", "X-Real-IP": None})
        sent = {block.args[0]: block.args[1] for block in found.all("proxy_set_header")}
        assert sent["host"] == "inner.test"
        assert "Host" not in sent
        assert "X-Real-IP" not in sent
        assert sent["Connection"] == "$berth_connection"

    def test_numbers(self) -> None:
        found = self.location(
            timeouts={"read": "1h"},
            buffers={"size": "16k", "number": 4},
            rate_limit={"name": "api", "burst": 20},
            cache={"name": "pages", "valid": ["200 301 5m", "any 1m"]},
        )
        assert found.one("proxy_read_timeout") == "1h"
        assert found.values("proxy_send_timeout") == []
        assert found.one("proxy_buffers") == "4 16k"
        assert found.one("proxy_busy_buffers_size") == "32k"
        assert found.one("limit_req") == "zone=api burst=20 nodelay"
        assert found.one("proxy_cache") == "cache-pages"
        assert found.values("proxy_cache_valid") == ["200 301 5m", "any 1m"]

    def test_delayed_burst(self) -> None:
        found = self.location(rate_limit={"name": "api", "burst": 5, "nodelay": False})
        assert found.one("limit_req") == "zone=api burst=5"

    def test_path_and_scheme_of_the_upstream(self) -> None:
        found = self.location(path="/x/", upstream_path="/", proxy_scheme="https")
        assert found.one("proxy_pass") == "https://dhanman-sales-prod/"

    def test_regex(self) -> None:
        found = self.location(path=r"^/(a|b)\d{2}$", match="regex")
        assert found.args == ["~*", r"^/(a|b)\d{2}$"]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"code": 301, "to": "https://x.test$request_uri"}, "301 https://x.test$request_uri"),
            ({"code": 200, "to": 'it is "up"; really'}, '200 it is "up"; really'),
            ({"code": 444}, "444"),
        ],
    )
    def test_return(self, given: dict[str, Any], expected: str) -> None:
        assert self.location(**{"upstream": None, "return": given}).one("return") == expected

    def test_an_application_below_a_path(self) -> None:
        found = self.location(path="/admin/", upstream=None, alias="/srv/admin/", spa=True)
        assert found.one("alias") == "/srv/admin/"
        assert found.one("try_files") == "$uri $uri/ /admin/index.html"
        assert found.location("= /admin/index.html")


class TestServer:
    def test_unknown_names_are_refused(self) -> None:
        _root, http = main_blocks(nginx_sites=[sales()], nginx_upstreams=[SALES])
        plain, tls, status = http.all("server")
        assert plain.values("listen") == ["80 default_server"]
        assert plain.location("/").one("return") == "444"
        assert tls.values("listen") == ["443 ssl default_server"]
        assert tls.one("ssl_reject_handshake") == "on"
        assert status.values("listen") == ["unix:/run/nginx-status.sock"]

    def test_without_certificates_nobody_listens_for_tls(self) -> None:
        _root, http = main_blocks(nginx_sites=[sales(certificate=None)], nginx_upstreams=[SALES])
        assert [server.values("listen") for server in http.all("server")] == [
            ["80 default_server"],
            ["unix:/run/nginx-status.sock"],
        ]

    def test_nginx_too_old_to_reject_a_handshake(self) -> None:
        facts = host("ubuntu", "22.04", "jammy")
        _root, http = main_blocks(
            nginx_sites=[sales()], nginx_upstreams=[SALES], ansible_facts=facts
        )
        tls = http.all("server")[1]
        assert tls.values("ssl_reject_handshake") == []
        assert tls.one("ssl_certificate").endswith("/sales.dhanman.com/fullchain.pem")

    def test_settings_find_their_context(self) -> None:
        root, http = main_blocks(
            nginx_settings={
                "worker_connections": 512,
                "worker_processes": "auto",
                "keepalive_timeout": "5s",
                "gzip_vary": None,
                "map_hash_bucket_size": 128,
            }
        )
        (events,) = root.all("events")
        assert events.one("worker_connections") == "512"
        assert root.one("worker_processes") == "auto"
        assert http.one("keepalive_timeout") == "5s"
        assert http.values("gzip_vary") == []
        assert http.one("map_hash_bucket_size") == "128"

    def test_workers_follow_the_cores_of_the_host(self) -> None:
        root, _http = main_blocks(ansible_facts=host(cores=3))
        assert root.one("worker_processes") == "3"
        assert root.one("worker_shutdown_timeout") == "60s"

    def test_proxies_in_front(self) -> None:
        _root, http = main_blocks(nginx_trusted_proxies=["10.0.0.0/8", "2001:db8::1"])
        assert http.values("set_real_ip_from") == ["10.0.0.0/8", "2001:db8::1/128"]
        assert http.one("real_ip_recursive") == "on"
        assert main_blocks()[1].values("real_ip_header") == []

    def test_limits_and_caches(self) -> None:
        root = upstreams(
            nginx_rate_limits=[
                {"name": "api", "rate": "10r/s"},
                {"name": "login", "rate": "30r/m", "key": "$host$uri", "size": "1m"},
            ],
            nginx_caches=[{"name": "pages", "size": "2g"}],
        )
        assert root.values("limit_req_zone") == [
            "$binary_remote_addr zone=api:10m rate=10r/s",
            "$host$uri zone=login:1m rate=30r/m",
        ]
        assert "keys_zone=cache-pages:10m max_size=2g" in root.one("proxy_cache_path")

    def test_an_upstream_and_a_limit_may_share_a_name(self) -> None:
        root = upstreams(
            {"name": "api", "servers": [{"address": "[::1]:80", "backup": False}], "keepalive": 0},
            nginx_rate_limits=[{"name": "api", "rate": "1r/s"}],
        )
        (block,) = root.all("upstream")
        assert block.one("zone") == "upstream-api 128k"
        assert block.values("keepalive") == []

    def test_the_answer_is_the_checksum(self) -> None:
        given = {"nginx_sites": [sales()], "nginx_upstreams": [SALES]}
        _root, http = main_blocks(**given)
        checksum = evaluate("nginx", "__nginx_resolved.checksum", given)
        assert http.all("server")[-1].location("= /checksum").one("return") == f"200 {checksum}"


def test_the_defaults_are_valid() -> None:
    defaults = {k: v for k, v in role_vars("nginx").items() if k.startswith("nginx_")}
    assert spec_errors("nginx", defaults) == []


@pytest.mark.parametrize(
    "given",
    [
        {"nginx_sites": [{"name": "a", "locations": [{"path": "/", "upstrean": "x"}]}]},
        {"nginx_upstreams": [{"name": "a", "servers": [], "balancer": "x"}]},
        {"nginx_proxy": {"timeout": {}}},
        {"nginx_ipv6": "maybe"},
    ],
)
def test_unknown_keys_are_errors(given: dict[str, Any]) -> None:
    assert spec_errors("nginx", given)


@pytest.mark.parametrize("template", ["acme.conf.j2", "service.conf.j2"])
def test_the_rest_renders(template: str) -> None:
    assert "Ansible managed" in render("nginx", template)
