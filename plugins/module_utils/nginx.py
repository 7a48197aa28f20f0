# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From sites, upstreams and settings to what the templates of the nginx role print.

Pure. What has to be decided or computed is decided here, with every fault reported at once; how
it is written down stands in the role's templates.

Sources: https://nginx.org/en/docs/ (directives and their contexts), src/core/ngx_hash.h (sizes of
the server names' hash).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import MISSING, Faults, nearest

BALANCES = ("round_robin", "least_conn", "ip_hash")
MATCHES = {"prefix": "", "strong_prefix": "^~ ", "exact": "= ", "regex": "~* "}
# Directives that stand outside http {}; every other one given in the settings stands inside.
MAIN_DIRECTIVES = frozenset(
    {"env", "error_log", "lock_file", "master_process", "pcre_jit", "pid", "thread_pool"}
    | {"timer_resolution", "user", "worker_cpu_affinity", "worker_priority", "worker_processes"}
    | {"worker_rlimit_core", "worker_rlimit_nofile", "worker_shutdown_timeout"}
    | {"working_directory"}
)
EVENTS_DIRECTIVES = frozenset(
    {"accept_mutex", "accept_mutex_delay", "debug_connection", "multi_accept", "use"}
    | {"worker_aio_requests", "worker_connections"}
)
# What the role writes by itself: twice is an error of nginx that names a line nobody wrote.
OWN_DIRECTIVES = frozenset(
    {"include", "server", "location", "upstream", "events", "http", "listen"}
)
ASSETS = r"\.(?:js|mjs|css|map|png|jpe?g|gif|ico|svg|webp|avif|woff2?|ttf|eot|wasm)$"

PROXY_HEADERS = {
    "Host": "$host",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host",
    "X-Request-ID": "$request_id",
    # Both are empty unless the client asks for a WebSocket: an empty header is not sent, and
    # without `Connection: close` or `upgrade` the connection to the upstream is kept.
    "Upgrade": "$berth_upgrade",
    "Connection": "$berth_connection",
}
WEBSOCKET_HEADERS = {"Upgrade": "", "Connection": ""}
_DEFAULT_TIMEOUTS = {"connect": "60s", "send": "60s", "read": "60s"}
_DEFAULT_BUFFERS: dict[str, Any] = {"size": "4k", "number": 8, "busy": "8k"}

_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOMAIN = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwMy]) ?)+|\d+")
_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_RATE = re.compile(r"[1-9]\d*r/[sm]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BARE = re.compile(r"[A-Za-z0-9_./:=@%+,*$-]+")
# The escapes that nginx undoes when it reads a parameter; any other backslash stays as it is.
_ESCAPED = re.compile(r"\\(?=[\"'\\trn]|$)")
_SEVERAL = re.compile(r"[;{}]|(?:^|\s)#")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class NginxError(ValueError):
    """All that is wrong with what the role was given."""


# -- writing nginx's syntax -----------------------------------------------------------------


def quote(value: object) -> str:
    """A parameter as nginx reads it back: bare where that is safe, else in double quotes.

    Variables (``$host``) keep their meaning. A control character has no place in a configuration.
    """
    text = str(value)
    if _CONTROL.search(text):
        raise NginxError(f"{text!r} holds a control character")
    if _BARE.fullmatch(text):
        return text
    return '"' + _ESCAPED.sub(r"\\\\", text).replace('"', '\\"') + '"'


def directives(settings: Mapping[str, Any]) -> list[str]:
    """A dictionary of directives, one line each without the semicolon.

    ``true`` and ``false`` are ``on`` and ``off``, a list repeats the directive, ``null`` leaves it
    out. A value is written as given, for it may hold several parameters.
    """
    lines = []
    for name, value in settings.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if each is None:
                continue
            text = {True: "on", False: "off"}[each] if isinstance(each, bool) else str(each)
            if _CONTROL.search(text) or _SEVERAL.search(_unquoted(text)):
                raise NginxError(
                    f"{name}: {text!r} is more than one directive; give each its own key"
                )
            lines.append(f"{name} {text}".rstrip())
    return lines


def _unquoted(text: str) -> str:
    """The text without its quoted parts and variables in braces, where any character may stand."""
    text = re.sub(r"\$\{\w+\}", "", text)
    return re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "", text)


def hash_sizes(names: Iterable[str]) -> tuple[int, int]:
    """server_names_hash_bucket_size and server_names_hash_max_size for these names.

    An element takes a pointer and the aligned name (NGX_HASH_ELT_SIZE), a bucket also holds a
    closing pointer; sizes are powers of two, 64 (a cache line) at least.
    """
    known = set(names)
    pointer = 8
    longest = max((len(name) for name in known), default=1)
    element = pointer + -(-(longest + 2) // pointer) * pointer
    bucket, slots = 64, 512
    while bucket < element + pointer:
        bucket *= 2
    while slots < 4 * len(known):
        slots *= 2
    return bucket, slots


def bytes_of(size: str) -> int | None:
    match = _SIZE.fullmatch(str(size))
    return int(match.group(1)) * _UNITS[match.group(2).lower()] if match else None


def at_least(version: str, wanted: str) -> bool:
    """Whether a version, with whatever the distribution added to it, is this one or later."""
    plain = re.match(r"(?:\d+:)?([\d.]+)", version)
    numbers = [int(n) for n in plain.group(1).split(".") if n] if plain else []
    return numbers >= [int(n) for n in wanted.split(".")]


# -- resolving ------------------------------------------------------------------------------


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the templates need, from the role's variables. Raises NginxError."""
    faults = Faults()
    resolver = _Resolver(given, faults)
    result = resolver.all()
    if faults:
        raise NginxError("; ".join(faults.lines()))
    result["site_files"] = [
        {
            "path": f"/etc/nginx/sites-enabled/{site['file']}",
            "template": "site.conf.j2",
            "vars": {
                "nginx_site": site,
                "nginx_server": {
                    key: result[key] for key in ("http_listen", "https_listen", "http2_directive")
                },
            },
        }
        for site in result["sites"]
    ]
    result["checksum"] = hashlib.sha256(
        json.dumps([result, given.get("templates", "")], sort_keys=True, default=str).encode()
    ).hexdigest()
    return result


class _Resolver:
    def __init__(self, given: Mapping[str, Any], faults: Faults) -> None:
        self.given = given
        self.faults = faults
        self.version = str(given.get("version") or "1.26")
        self.header_sets: Mapping[str, Mapping[str, Any]] = given.get("header_sets") or {}
        self.upstreams = {str(u.get("name")): u for u in given.get("upstreams") or []}
        self.rate_limits = {str(r.get("name")): r for r in given.get("rate_limits") or []}
        self.caches = {str(c.get("name")): c for c in given.get("caches") or []}
        proxy = given.get("proxy") or {}
        self.timeouts = {**_DEFAULT_TIMEOUTS, **_set(proxy.get("timeouts"))}
        self.buffers = self.buffer_sizes(_set(proxy.get("buffers")), "nginx_proxy.buffers")
        for kind, value in self.timeouts.items():
            self.duration(value, f"nginx_proxy.timeouts.{kind}")

    def all(self) -> dict[str, Any]:
        settings = self.given.get("settings") or {}
        sites = self.sites()
        names = [name for site in sites for name in site["server_names"]]
        bucket, slots = hash_sizes(names)
        hashes = {"server_names_hash_bucket_size": bucket, "server_names_hash_max_size": slots}
        contexts = self.contexts({**hashes, **settings})
        return {
            **contexts,
            "upstreams": self.all_upstreams(),
            "rate_limits": self.all_rate_limits(),
            "caches": self.all_caches(),
            "proxy": {
                "headers": self.header_lines(PROXY_HEADERS, "proxy", ""),
                "timeouts": self.timeouts,
                "buffers": self.buffers,
            },
            "trusted_proxies": self.networks(
                self.given.get("trusted_proxies") or [], "nginx_trusted_proxies"
            ),
            "tls": self.tls(),
            "sites": sites,
            "http_listen": self.listen(tls=False),
            "https_listen": self.listen(tls=True),
            "default_http": not any(site["default"] for site in sites),
            "default_https": any(site["tls"] for site in sites)
            and not any(site["default"] and site["tls"] for site in sites),
            "http2_directive": self.http2 and at_least(self.version, "1.25.1"),
            "reject_handshake": at_least(self.version, "1.19.4"),
            "certificate": next((site["certificate"] for site in sites if site["tls"]), ""),
        }

    # -- the whole server

    @property
    def http2(self) -> bool:
        return bool(self.given.get("http2", True))

    def contexts(self, settings: Mapping[str, Any]) -> dict[str, list[str]]:
        split: dict[str, dict[str, Any]] = {"main": {}, "events": {}, "http": {}}
        for name, value in settings.items():
            if not _WORD.fullmatch(str(name)) or name in OWN_DIRECTIVES:
                self.faults.add(f"nginx_settings.{name}", MISSING, "is no directive to be set here")
            elif name in MAIN_DIRECTIVES:
                split["main"][name] = value
            elif name in EVENTS_DIRECTIVES:
                split["events"][name] = value
            else:
                split["http"][name] = value
        return {context: self.lines(values, "nginx_settings") for context, values in split.items()}

    def lines(self, settings: Mapping[str, Any], key: str) -> list[str]:
        try:
            return directives(settings)
        except NginxError as error:
            self.faults.add(key, MISSING, str(error))
            return []

    def listen(self, *, tls: bool) -> list[str]:
        """The addresses to listen on, each with the parameters that all servers there share."""
        port = int(self.given.get("https_port" if tls else "http_port") or (443 if tls else 80))
        addresses = list(self.given.get("listen_addresses") or [])
        if not addresses:
            addresses = ["", "[::]"] if self.given.get("ipv6") else [""]
        words = " ssl" if tls else ""
        if tls and self.http2 and not at_least(self.version, "1.25.1"):
            words += " http2"
        result = []
        for address in addresses:
            if address not in ("", "[::]"):
                try:
                    parsed = ipaddress.ip_address(str(address))
                except ValueError:
                    self.faults.add("nginx_listen_addresses", address, "is no IP address")
                    continue
                address = f"[{parsed}]" if parsed.version == 6 else str(parsed)
            result.append((f"{address}:{port}" if address else str(port)) + words)
        return result

    def tls(self) -> list[str]:
        given = dict(self.given.get("tls") or {})
        settings: dict[str, Any] = {}
        for name, value in given.items():
            if isinstance(value, (list, tuple)):
                value = " ".join(str(each) for each in value)
            settings[f"ssl_{name}"] = value
        return self.lines(settings, "nginx_tls")

    def all_upstreams(self) -> list[dict[str, Any]]:
        result = []
        names: set[str] = set()
        for number, upstream in enumerate(self.given.get("upstreams") or []):
            name = str(upstream.get("name", ""))
            key = f"nginx_upstreams[{name or number}]"
            if not _SLUG.fullmatch(name):
                self.faults.add(key, name, "is no name for an upstream (letters, digits, . _ -)")
            if name in names:
                self.faults.add(key, MISSING, "is there twice")
            names.add(name)
            balance = str(upstream.get("balance") or "round_robin")
            if balance not in BALANCES:
                self.faults.add(f"{key}.balance", balance, nearest(balance, BALANCES))
            keepalive = upstream.get("keepalive")
            servers = upstream.get("servers") or []
            if not servers:
                self.faults.add(f"{key}.servers", MISSING, "has no server, nginx needs one")
            elif all(server.get("backup") for server in servers):
                self.faults.add(f"{key}.servers", MISSING, "are all backups of nothing")
            result.append(
                {
                    "name": name,
                    "balance": balance,
                    "keepalive": 32 if keepalive is None else int(keepalive),
                    "servers": [
                        self.server(server, f"{key}.servers[{index}]", balance)
                        for index, server in enumerate(servers)
                    ],
                }
            )
        return result

    def server(self, server: Mapping[str, Any], key: str, balance: str) -> str:
        address = str(server.get("address", ""))
        if not _endpoint(address):
            self.faults.add(
                f"{key}.address",
                address,
                "is not <IP>:<port>, [<IPv6>]:<port> or unix:/<path>; a host name would be"
                " resolved once, at start",
            )
        words = [address]
        weight = server.get("weight")
        if weight is not None and int(weight) != 1:
            words.append(f"weight={int(weight)}")
        if server.get("max_fails") is not None:
            words.append(f"max_fails={int(server['max_fails'])}")
        if server.get("fail_timeout") is not None:
            self.duration(server["fail_timeout"], f"{key}.fail_timeout")
            words.append(f"fail_timeout={server['fail_timeout']}")
        if server.get("backup"):
            if balance == "ip_hash":
                self.faults.add(f"{key}.backup", MISSING, "cannot go with balance ip_hash")
            words.append("backup")
        return " ".join(words)

    def all_rate_limits(self) -> list[dict[str, str]]:
        result = []
        for name, limit in self.rate_limits.items():
            key = f"nginx_rate_limits[{name}]"
            if not _WORD.fullmatch(name.replace("-", "_")):
                self.faults.add(key, name, "is no name for a zone (letters, digits, _ -)")
            rate, size = str(limit.get("rate", "")), str(limit.get("size") or "10m")
            if not _RATE.fullmatch(rate):
                self.faults.add(f"{key}.rate", rate, "is no rate such as 10r/s or 30r/m")
            if (bytes_of(size) or 0) < 32 << 10:
                self.faults.add(f"{key}.size", size, "is no size such as 10m, or below 32k")
            result.append(
                {
                    "name": name,
                    "rate": rate,
                    "size": size,
                    "key": self.quoted(limit.get("key") or "$binary_remote_addr", f"{key}.key"),
                }
            )
        self.twice([str(r.get("name")) for r in self.given.get("rate_limits") or []], "rate_limits")
        return result

    def all_caches(self) -> list[dict[str, str]]:
        result = []
        for name, cache in self.caches.items():
            key = f"nginx_caches[{name}]"
            if not _SLUG.fullmatch(name):
                self.faults.add(key, name, "is no name for a cache (letters, digits, . _ -)")
            entry = {"name": name}
            for part, default in (("memory", "10m"), ("size", "1g")):
                entry[part] = str(cache.get(part) or default)
                if not bytes_of(entry[part]):
                    self.faults.add(f"{key}.{part}", entry[part], "is no size such as 10m")
            entry["inactive"] = str(cache.get("inactive") or "10m")
            self.duration(entry["inactive"], f"{key}.inactive")
            result.append(entry)
        self.twice([str(c.get("name")) for c in self.given.get("caches") or []], "caches")
        return result

    def twice(self, names: Sequence[str], what: str) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.faults.add(f"nginx_{what}[{name}]", MISSING, "is there twice")

    # -- sites

    def sites(self) -> list[dict[str, Any]]:
        result = []
        files: dict[str, str] = {}
        owners: dict[str, str] = {}
        default = ""
        for number, site in enumerate(self.given.get("sites") or []):
            name = str(site.get("name", ""))
            key = f"nginx_sites[{name or number}]"
            file = name.replace("*", "_")
            if not _SLUG.fullmatch(file):
                self.faults.add(key, name, "is no name for a site (letters, digits, . _ -)")
            if file in files:
                self.faults.add(key, MISSING, "is there twice")
            files[file] = name
            if site.get("default"):
                if default:
                    self.faults.add(f"{key}.default", MISSING, f"is what {default} is already")
                default = name
            resolved = self.site(site, file, key)
            for domain in resolved["server_names"]:
                if domain in owners:
                    self.faults.add(
                        f"{key}.domains", domain, f"is served by {owners[domain]} already"
                    )
                owners[domain] = name
            result.append(resolved)
        return result

    def site(self, site: Mapping[str, Any], file: str, key: str) -> dict[str, Any]:
        names = []
        for domain in site.get("domains") or []:
            text = _ascii(str(domain))
            if len(text) > 253 or not _DOMAIN.fullmatch(text):
                self.faults.add(f"{key}.domains", domain, "is no domain name")
            names.append(text)
        if not names and not site.get("default"):
            self.faults.add(f"{key}.domains", MISSING, "are missing; only a default site has none")
        tls = bool(site.get("certificate"))
        certificate = str(site.get("certificate") or "").replace("*", "_")
        if tls and not _SLUG.fullmatch(certificate):
            self.faults.add(f"{key}.certificate", certificate, "is no directory name")
        log_name = str(site.get("log_name") or file)
        if not _SLUG.fullmatch(log_name):
            self.faults.add(f"{key}.log_name", log_name, "is no file name")
        headers = self.header_set(site, key, tls=tls)
        body = str(site.get("client_max_body") or "")
        if body and bytes_of(body) is None:
            self.faults.add(f"{key}.client_max_body", body, "is no size such as 10m")
        locations = [
            self.location(location, f"{key}.locations[{location.get('path', number)}]", headers)
            for number, location in enumerate(site.get("locations") or [])
        ]
        matches = [location["match"] for location in locations]
        for match in sorted({match for match in matches if matches.count(match) > 1}):
            self.faults.add(f"{key}.locations", match, "is there twice")
        directory = str(self.given.get("tls_directory") or "/etc/berth/tls").rstrip("/")
        return {
            "name": str(site.get("name", "")),
            "file": f"{file}.conf",
            "server_names": names,
            "default": bool(site.get("default")),
            "tls": tls,
            "certificate": f"{directory}/{certificate}" if tls else "",
            "redirect": tls and bool(site.get("redirect_http", True)),
            "plain": not tls or not site.get("redirect_http", True),
            "log_name": log_name,
            "headers": self.header_lines(headers, key),
            "client_max_body": body,
            "gzip": bool(site.get("gzip", True)),
            "settings": self.lines(site.get("settings") or {}, f"{key}.settings"),
            "locations": locations,
            # Without this, nginx would serve its own welcome page from a compiled-in root.
            "closed": "/" not in matches,
        }

    def header_set(self, site: Mapping[str, Any], key: str, *, tls: bool) -> dict[str, str]:
        name = str(site.get("header_set") or "default")
        if name not in self.header_sets and (name != "default" or self.header_sets):
            self.faults.add(f"{key}.header_set", name, nearest(name, self.header_sets))
        headers = _set(self.header_sets.get(name))
        if not tls:  # RFC 6797, 7.2: never over plain HTTP
            headers = {k: v for k, v in headers.items() if k.lower() != _HSTS}
        return headers

    def header_lines(self, headers: Mapping[str, Any], key: str, end: str = " always") -> list[str]:
        """Names and quoted values; a null value drops what was inherited."""
        lines = []
        for name, value in headers.items():
            if not _HEADER.fullmatch(str(name)):
                self.faults.add(f"{key}.headers", name, "is no name of an HTTP header")
            elif value is not None:
                text = self.quoted(value, f"{key}.headers.{name}") or '""'
                lines.append(f"{name} {text}{end}")
        return lines

    # -- locations

    def location(
        self, location: Mapping[str, Any], key: str, inherited: Mapping[str, Any]
    ) -> dict[str, Any]:
        path, match = str(location.get("path") or "/"), str(location.get("match") or "prefix")
        if match not in MATCHES:
            self.faults.add(f"{key}.match", match, nearest(match, MATCHES))
            match = "prefix"
        if match != "regex" and not path.startswith("/"):
            self.faults.add(f"{key}.path", path, "does not start with a slash")
        kinds = [kind for kind in ("upstream", "root", "alias", "return") if location.get(kind)]
        if len(kinds) != 1:
            self.faults.add(
                key,
                MISSING,
                "needs exactly one of upstream, root, alias and return, has "
                + (" and ".join(kinds) or "none"),
            )
        kind = {"root": "files", "alias": "files"}.get(kinds[0], kinds[0]) if kinds else "return"
        headers = _merged(inherited, _set(location.get("headers"), nulls=True))
        allow = self.networks(location.get("allow") or [], f"{key}.allow")
        result: dict[str, Any] = {
            "match": MATCHES[match] + self.quoted(path, key),
            "kind": kind,
            "log": bool(location.get("log", True)),
            "allow": allow,
            "rate_limit": self.limit(location.get("rate_limit"), f"{key}.rate_limit"),
            "auth_file": self.quoted(location.get("auth_file") or "", key),
            # Only a location that adds a header says them all: adding one drops the inherited.
            "headers": (self.header_lines(headers, key) or [_NO_HEADER])
            if location.get("headers")
            else [],
            "expires": self.expires(location.get("expires"), f"{key}.expires"),
            "assets": "",
            "settings": self.lines(location.get("settings") or {}, f"{key}.settings"),
        }
        if kind == "upstream":
            result.update(self.proxied(location, key, match))
        elif kind == "files":
            result.update(self.served(location, key, path, match, headers))
        elif kinds:
            # `return` comes first, in nginx's rewrite phase: whoever asks would get it.
            for limit in ("allow", "rate_limit", "auth_file"):
                if location.get(limit):
                    self.faults.add(f"{key}.{limit}", MISSING, "has no effect beside return")
            result.update(self.returned(location["return"], f"{key}.return"))
        return result

    def proxied(self, location: Mapping[str, Any], key: str, match: str) -> dict[str, Any]:
        name = str(location["upstream"])
        if name not in self.upstreams:
            self.faults.add(f"{key}.upstream", name, nearest(name, self.upstreams))
        scheme = str(location.get("proxy_scheme") or "http")
        if scheme not in ("http", "https"):
            self.faults.add(f"{key}.proxy_scheme", scheme, "is neither http nor https")
        target = str(location.get("upstream_path") or "")
        if target and (match == "regex" or not target.startswith("/")):
            self.faults.add(
                f"{key}.upstream_path", target, "starts with a slash, and cannot go with a regex"
            )
        changed = _set(location.get("proxy_headers"), nulls=True)
        if not location.get("websocket", True):
            changed = {**WEBSOCKET_HEADERS, **changed}
        timeouts = _set(location.get("timeouts"))
        for kind, value in timeouts.items():
            self.duration(value, f"{key}.timeouts.{kind}")
        buffers = _set(location.get("buffers"))
        return {
            "pass": self.quoted(f"{scheme}://{name}{target}", key),
            "proxy_headers": self.header_lines(_merged(PROXY_HEADERS, changed), key, "")
            if changed
            else [],
            "timeouts": timeouts,
            "buffers": self.buffer_sizes(buffers, f"{key}.buffers") if buffers else {},
            "cache": self.cache(location.get("cache"), f"{key}.cache"),
        }

    def served(
        self,
        location: Mapping[str, Any],
        key: str,
        path: str,
        match: str,
        headers: Mapping[str, Any],
    ) -> dict[str, Any]:
        spa = bool(location.get("spa"))
        # In a regular expression's location, the location itself is about the assets.
        nested = match in ("prefix", "strong_prefix")
        if spa and not nested:
            self.faults.add(f"{key}.spa", MISSING, "is for a location that matches a prefix")
        directory = str(location.get("root") or location.get("alias"))
        if not directory.startswith("/"):
            self.faults.add(f"{key}.root", directory, "is no absolute path")
        if location.get("alias") and (
            match == "regex" or path.endswith("/") != directory.endswith("/")
        ):
            self.faults.add(
                f"{key}.alias", directory, "ends with a slash exactly if the path does, no regex"
            )
        expires = self.expires(location.get("expires"), f"{key}.expires") or ("1y" if spa else "")
        result: dict[str, Any] = {
            "directory": self.quoted(directory, key),
            "alias": bool(location.get("alias")),
            "index": self.quoted(location.get("index") or "index.html", key),
            "spa": spa,
            "nested": nested,
            "fallback": self.quoted(f"{path.rstrip('/')}/index.html", key),
        }
        if nested:
            others = _merged(headers, {"Cache-Control": None})
            fresh = _merged(headers, {"Cache-Control": "no-cache"})
            # Here it is about the assets below, not about the pages.
            result["expires"] = ""
            result["assets"] = quote(ASSETS) if expires not in ("", "off") else ""
            result["assets_expires"] = expires
            # Not "always": a missing asset must not be remembered as missing for ever.
            result["assets_headers"] = [
                *self.header_lines(others, key),
                'Cache-Control "public, immutable"',
            ]
            result["fresh_headers"] = self.header_lines(fresh, key) if spa else []
        return result

    def returned(self, given: Mapping[str, Any], key: str) -> dict[str, Any]:
        code = given.get("code")
        if not isinstance(code, int) or not 100 <= code <= 599:
            self.faults.add(f"{key}.code", code, "is no HTTP status (200 to 599)")
            code = 404
        words = [str(code)]
        if given.get("to") is not None:
            words.append(self.quoted(given["to"], f"{key}.to"))
        elif code in (301, 302, 303, 307, 308):
            self.faults.add(f"{key}.to", MISSING, "is missing: where a redirection leads to")
        return {"return": " ".join(words)}

    # -- parts

    def limit(self, given: Mapping[str, Any] | None, key: str) -> str:
        if not given:
            return ""
        name = str(given.get("name", ""))
        if name not in self.rate_limits:
            self.faults.add(key, name, nearest(name, self.rate_limits))
        words = [f"zone={name}"]
        if given.get("burst"):
            words.append(f"burst={int(given['burst'])}")
            if given.get("nodelay", True):
                words.append("nodelay")
        return " ".join(words)

    def cache(self, given: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
        if not given:
            return {}
        name = str(given.get("name", ""))
        if name not in self.caches:
            self.faults.add(key, name, nearest(name, self.caches))
        valid = given.get("valid") or ["200 10m"]
        return {
            "name": name,
            "valid": self.lines({"proxy_cache_valid": list(valid)}, f"{key}.valid"),
            "key": self.quoted(given.get("key") or "$scheme$host$request_uri", f"{key}.key"),
        }

    def buffer_sizes(self, changed: Mapping[str, Any], key: str) -> dict[str, Any]:
        """nginx's own rules: busy at least one buffer, and all buffers but one at most."""
        base = dict(getattr(self, "buffers", _DEFAULT_BUFFERS))
        result = {**base, **changed}
        one, number = bytes_of(str(result["size"])), int(result["number"])
        if one is None or one == 0:
            self.faults.add(f"{key}.size", result["size"], "is no size such as 4k")
            return result
        if number < 2:
            self.faults.add(f"{key}.number", number, "must be 2 at least")
            return result
        if "busy" not in changed and ("size" in changed or "number" in changed):
            result["busy"] = _short(min(2, number - 1) * one)
        busy = bytes_of(str(result["busy"]))
        if busy is None or not one <= busy <= one * (number - 1):
            self.faults.add(
                f"{key}.busy",
                result["busy"],
                f"must be between {_short(one)} (one buffer) and {_short(one * (number - 1))}"
                " (all but one)",
            )
        return result

    def duration(self, value: object, key: str) -> None:
        if not _DURATION.fullmatch(str(value)):
            self.faults.add(key, value, "is no time such as 60s, 5m or 1h")

    def expires(self, value: object, key: str) -> str:
        text = "" if value is None else str(value)
        if (
            text
            and text not in ("off", "epoch", "max")
            and not _DURATION.fullmatch(text.lstrip("-"))
        ):
            self.faults.add(key, text, "is no time such as 1y, nor off, epoch or max")
        return text

    def networks(self, given: Iterable[Any], key: str) -> list[str]:
        result = []
        for each in given:
            try:
                result.append(str(ipaddress.ip_network(str(each), strict=False)))
            except ValueError:
                self.faults.add(key, each, "is neither an address nor a network (CIDR)")
        return result

    def quoted(self, value: object, key: str) -> str:
        try:
            return quote(value) if str(value) else ""
        except NginxError as error:
            self.faults.add(key, MISSING, str(error))
            return ""


_HSTS = "strict-transport-security"
# Not sent, since it is empty, but it keeps the inherited ones away.
_NO_HEADER = 'X-None ""'


def _set(given: Any, *, nulls: bool = False) -> dict[str, Any]:
    """The keys that have a value: an option left out and one that is null are the same."""
    return {str(k): v for k, v in (given or {}).items() if nulls or v is not None}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Headers with changes put in their place; names are alike in any case of letters."""
    lower = {name.lower() for name in changes}
    return {**{k: v for k, v in base.items() if k.lower() not in lower}, **changes}


def _ascii(domain: str) -> str:
    text = domain.lower().rstrip(".")
    try:
        return text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        return text


def _endpoint(address: str) -> bool:
    if address.startswith("unix:/"):
        return not re.search(r"[\s;{}\"'\\]", address)
    host, _colon, port = address.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        return False
    try:
        if host.startswith("[") and host.endswith("]"):
            return bool(ipaddress.IPv6Address(host[1:-1]))
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False


def _short(size: int) -> str:
    return f"{size >> 10}k" if size % 1024 == 0 else str(size)
