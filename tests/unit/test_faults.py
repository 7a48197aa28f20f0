"""Faulty catalogs, each with what it must be told: key, value, and what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from catalogs import RIGHT, changed, inventory, lock, plan_of

API = "platform_services.api"

FAULTY: list[tuple[dict[str, Any], str]] = [
    # unknown keys
    ({"platform_nam": "x"}, "platform_nam: is not a known key; did you mean 'platform_name'?"),
    ({f"{API}.prot": 1}, f"{API}.prot: is not a known key; did you mean 'port'?"),
    ({f"{API}.depends_on": []}, f"{API}.depends_on: is not a known key; did you mean 'needs'?"),
    ({f"{API}.environment": {}}, f"{API}.environment: is not a known key; did you mean 'env'?"),
    ({f"{API}.limits": {"mem": "1G"}}, f"{API}.limits.mem: is not a known key"),
    ({f"{API}.health": {"path": "/h"}}, f"{API}.health.path: is not a known key; write live"),
    ({f"{API}.routes.0.domian": "x"}, f"{API}.routes[0].domian: is not a known key; did you mean"),
    ({"platform_ports.rnage": "1-2"}, "platform_ports.rnage: is not a known key; did you mean"),
    (
        {"platform_firewall": {}},
        "platform_firewall: is not a known key; did you mean 'platform_acc",
    ),
    # missing
    ({"platform_name": None}, "platform_name: is required and missing"),
    ({"platform_env": None}, "platform_env: is required and missing"),
    ({f"{API}.command": None}, f"{API}.command: is required and missing"),
    ({f"{API}.hosts": None}, f"{API}.hosts: is required and missing; name a group or a host"),
    # wrong types
    ({"platform_services": []}, "platform_services is []: write a mapping of services by name"),
    ({f"{API}.needs": "postgresql"}, f"{API}.needs is 'postgresql': write a list"),
    ({f"{API}.instances": "two"}, f"{API}.instances is 'two': write a whole number from 1 to 100"),
    ({f"{API}.instances": 0}, f"{API}.instances is 0: write a whole number from 1 to 100"),
    ({f"{API}.env": ["A=1"]}, f"{API}.env is ['A=1']: write a mapping"),
    ({f"{API}.env": {"A": {}}}, f"{API}.env.A is {{}}: write a string, a number or a boolean"),
    ({f"{API}.env": {"A-B": 1}}, f"{API}.env.A-B: is not a safe name: write a name of letters"),
    ({f"{API}.runtime": "docker"}, f"{API}.runtime is 'docker': known are pm2, static, systemd"),
    ({f"{API}.restart": True}, f"{API}.restart is True: known are"),
    ({f"{API}.hosts": 5}, f"{API}.hosts is 5: write a group, a host, or a list of them"),
    ({"platform_name": ["a"]}, "platform_name is ['a']: is a single value, not a list"),
    # ports
    ({f"{API}.port": 70000}, f"{API}.port is 70000: write a port, a whole number from 1 to 65535"),
    ({f"{API}.port": 0}, f"{API}.port is 0: write a port, a whole number from 1 to 65535"),
    ({f"{API}.port": "5001"}, f"{API}.port is '5001': write a port, a whole number"),
    ({f"{API}.port": True}, f"{API}.port is True: write a port, a whole number"),
    ({f"{API}.port": 5010}, f"{API}.port is 5010: is reserved by platform_ports.reserved"),
    (
        {f"{API}.port": 443},
        f"{API}.port is 443: platform_ports.components.https has port 443 on web1",
    ),
    ({f"{API}.port": 22}, f"{API}.port is 22: ssh has port 22 on web1 already"),
    (
        {"platform_services.mail.port": 5001},
        "platform_services.mail.port is 5001: platform_services.api.port has port 5001 on web1 "
        "already; pin another port, or none",
    ),
    ({f"{API}.port": [5001, 5002]}, f"{API}.port is [5001, 5002]: pins 2 ports for 1 instances"),
    (
        {"platform_ports.range": "5001-5002"},
        "platform_services.api.port: finds no free port on web1",
    ),
    ({"platform_ports.range": "9-1"}, "platform_ports.range is '9-1': write a range of ports like"),
    ({"platform_ports.range": "all"}, "platform_ports.range is 'all': write a range of ports like"),
    ({"platform_ports.reserved": [0]}, "platform_ports.reserved[0] is 0: write a port"),
    (
        {"platform_ports.components": {"postgres": 1}},
        "platform_ports.components.postgres: is no component's port; did you mean 'postgresql'?",
    ),
    ({f"{API}.port": "none"}, f"{API}.port is 'none': a service with routes needs a port"),
    # needs
    (
        {f"{API}.needs": ["postgres"]},
        f"{API}.needs[0] is 'postgres': is no service and no component",
    ),
    ({f"{API}.needs": ["api"]}, f"{API}.needs[0] is 'api': a service cannot need itself"),
    ({"platform_services.mail.needs": ["api"]}, "is a cycle; let one of them do without the other"),
    (
        {f"{API}.needs": ["object_store"]},
        f"{API}.needs[0] is 'object_store': needs a host in the group 'object_store'; it has none",
    ),
    (
        {"platform_services.mail.port": "none"},
        f"{API}.needs[2] is 'mail': has no port to be reached",
    ),
    ({"platform_services.mail.database": "m"}, "mail.database: needs postgresql among its needs"),
    # hosts
    (
        {f"{API}.hosts": "app"},
        f"{API}.hosts is 'app': is no host and no group; did you mean 'apps'?",
    ),
    ({f"{API}.hosts": "empty"}, f"{API}.hosts is 'empty': is an empty group; add a host to it"),
    ({f"{API}.hosts": ["web1", "web9"]}, f"{API}.hosts is 'web9': is no host and no group"),
    # domains and routes
    (
        {f"{API}.routes.0.domain": "api_1.x"},
        f"{API}.routes[0].domain is 'api_1.x': write a lower-c",
    ),
    ({f"{API}.routes.0.domain": "{servce}.x"}, "'{servce}': is no placeholder here; did you mean"),
    (
        {"platform_domain": "Shop.example.com"},
        "platform_domain is 'Shop.example.com': write a lower",
    ),
    ({f"{API}.routes.0.path": "api"}, f"{API}.routes[0].path is 'api': write a URL path like /api"),
    (
        {f"{API}.routes.0.path": "/a b"},
        f"{API}.routes[0].path is '/a b': write a URL path like /api",
    ),
    (
        {"platform_services.mail.routes": [{"domain": "api.shop.example.com"}]},
        "platform_services.mail.routes[0] is 'api.shop.example.com/': is "
        "platform_services.api.routes[0] already; change domain or path",
    ),
    (
        {f"{API}.routes": [{"domain": "a.example.com"}, {"domain": "a.example.com"}]},
        f"{API}.routes[1] is 'a.example.com/': is {API}.routes[0] already",
    ),
    ({f"{API}.routes.0.rate_limit": "web"}, f"{API}.routes[0].rate_limit is 'web': is not in plat"),
    (
        {f"{API}.routes.0.allow": ["10.0.0.1/8"]},
        "allow[0] is '10.0.0.1/8': has host bits set: write 10.0.0.0/8",
    ),
    # networks
    (
        {"platform_access": {"ssh": ["10.0.0/8"]}},
        "platform_access.ssh[0] is '10.0.0/8': write a net",
    ),
    ({"platform_access": {"ssh": "any"}}, "platform_access.ssh is 'any': write a list"),
    (
        {"platform_access": {"postgres": ["any"]}},
        "platform_access.postgres: is no listener; did you",
    ),
    ({f"{API}.access": ["300.0.0.0/8"]}, f"{API}.access[0] is '300.0.0.0/8': write a network"),
    # quantities
    (
        {f"{API}.limits": {"memory": "2 GB"}},
        f"{API}.limits.memory is '2 GB': write an amount of mem",
    ),
    ({f"{API}.limits": {"memory": 0}}, f"{API}.limits.memory is 0: write an amount of memory"),
    ({f"{API}.limits": {"cpu": "two"}}, f"{API}.limits.cpu is 'two': write per cent of one core"),
    ({f"{API}.limits": {"cpu": 2}}, f"{API}.limits.cpu is 2: write per cent of one core"),
    ({f"{API}.limits": {"files": 1}}, f"{API}.limits.files is 1: write a whole number from 64"),
    ({f"{API}.health": {"timeout": "soon"}}, f"{API}.health.timeout is 'soon': write a duration"),
    (
        {"platform_rate_limits": {"web": {"rate": "10"}}},
        "platform_rate_limits.web.rate is '10': write a request rate",
    ),
    (
        {"platform_backup": {"retention_days": 0}},
        "platform_backup.retention_days is 0: write a whole",
    ),
    (
        {"platform_backup": {"schedule": {"full": "@"}}},
        "schedule.full is '@': write a systemd calendar",
    ),
    # names and paths
    (
        {"platform_services.Api_v2": {}},
        "platform_services.Api_v2: is not a safe name: use lower-case",
    ),
    ({"platform_services.a..b": {}}, "platform_services.a"),
    (
        {"platform_services.postgresql": {}},
        "platform_services.postgresql: is the name of a component",
    ),
    ({"platform_name": "My Shop"}, "platform_name is 'My Shop': use lower-case letters"),
    ({f"{API}.home": "srv/api"}, f"{API}.home is 'srv/api': write an absolute path without .."),
    ({f"{API}.home": "/srv/../etc"}, f"{API}.home is '/srv/../etc': write an absolute path"),
    ({f"{API}.user": "root"}, f"{API}.user is 'root': services do not run as root"),
    ({f"{API}.user": "u" * 33}, "is longer than 32 characters; set user"),
    ({f"{API}.unit": "a b"}, f"{API}.unit is 'a b': use letters, digits, . _ and -, at most 100"),
    (
        {f"{API}.unit": "x", "platform_services.mail.unit": "x"},
        "platform_services.mail.unit is 'x': is platform_services.api's on web1 already",
    ),
    (
        {f"{API}.home": "/srv/x", "platform_services.mail.home": "/srv/x"},
        "platform_services.mail.home is '/srv/x': is platform_services.api's on web1 already",
    ),
    (
        {f"{API}.command": "node server.js"},
        f"{API}.command is 'node server.js': start with the abs",
    ),
    (
        {f"{API}.command": "/bin/a {prot}"},
        f"{API}.command is '{{prot}}': is no placeholder here; did",
    ),
    (
        {f"{API}.database": {"name": "d" * 64}},
        f"{API}.database is '{'d' * 58}…: use a name of 1 to 63",
    ),
    # secrets
    (
        {f"{API}.secrets": ["jwt"]},
        f"{API}.secrets[0] is 'jwt': is named and not provided; declare it",
    ),
    (
        {f"{API}.env": {"K": "{secret:nope}"}},
        "'{secret:nope}': names a secret that is not provided",
    ),
    (
        {"platform_secrets": {"k": {"kind": "given"}}},
        "platform_secrets.k.value: is required for kind",
    ),
    (
        {"platform_secrets": {"k": {"kind": "hex", "bits": 65}}},
        "platform_secrets.k.bits is 65: write a",
    ),
    (
        {"platform_secrets": {"K!": {}}},
        "platform_secrets.K!: is not a safe name: write a name of low",
    ),
    # artifacts
    (
        {f"{API}.artifact": {"path": "a", "git": "b"}},
        f"{API}.artifact is 'path and git': name exactly",
    ),
    (
        {f"{API}.artifact": {"url": "https://x/a.tar.gz"}},
        f"{API}.artifact.checksum: a url needs a che",
    ),
    (
        {f"{API}.artifact": {"git": "https://x/a.git"}},
        f"{API}.artifact.version: git needs the version",
    ),
    # static sites
    (
        {"platform_services.site": {"runtime": "static", "hosts": "edge"}},
        "platform_services.site.routes: a static site is reached by a route: add one",
    ),
    (
        {
            "platform_services.site": {
                "runtime": "static",
                "hosts": "db1",
                "artifact": {"path": "a"},
                "routes": [{"domain": "a.example.com"}],
            }
        },
        "platform_services.site.hosts is 'db1': a static site is served by the edge",
    ),
    # components
    ({"platform_access": {"object_store": ["any"]}}, "platform_access.object_store: is given, but"),
    (
        {
            "platform_backup": {
                "repositories": [{"name": "s3", "type": "s3", "endpoint": "object_store"}]
            }
        },
        "platform_backup.repositories is 'object_store': needs a host in the group 'object_store'",
    ),
    (
        {"platform_backup": {"repositories": [{"type": "posix"}]}},
        "repositories[0].name: is required",
    ),
    # layers
    (
        {"platform_layer_lab": []},
        "platform_layer_lab is []: write a mapping of keys without the plat",
    ),
    ({"platform_layer_lab": {"services": {"api": {"prot": 1}}}}, f"{API}.prot: is not a known key"),
]


def test_the_right_catalog_has_no_fault() -> None:
    plan, faults = plan_of(RIGHT)
    assert faults == []
    assert plan is not None


def test_the_table_is_as_large_as_promised() -> None:
    assert len(FAULTY) >= 60


@pytest.mark.parametrize(("changes", "told"), FAULTY, ids=[told[:50] for _c, told in FAULTY])
def test_a_fault_is_told_by_key_value_and_remedy(changes: dict[str, Any], told: str) -> None:
    plan, faults = plan_of(changed(changes))
    assert plan is None or faults
    assert any(told in line for line in faults), "\n".join(faults)


def test_all_faults_come_together() -> None:
    _plan, faults = plan_of(
        changed(
            {
                f"{API}.port": 70000,
                "platform_services.mail.needs": ["nobody"],
                "platform_domain": "-",
                "platform_nam": "x",
            }
        )
    )
    assert len(faults) == 4


def test_a_host_without_address_is_named_when_another_needs_it() -> None:
    from ansible_collections.berth.platform.plugins.module_utils.inventory import Host, Inventory

    known = inventory()
    hosts = {**known.hosts, "db1": Host("db1", None)}
    _plan, faults = plan_of(RIGHT, Inventory(hosts, known.groups))
    assert any("host db1: is needed by another host and has no address" in f for f in faults)


def test_routes_without_an_edge_are_refused() -> None:
    _plan, faults = plan_of(RIGHT, inventory(apps=["web1"], postgresql=["db1"], rabbitmq=["db1"]))
    assert any("group edge: has no host, and platform_services.api has routes" in f for f in faults)


def test_another_environment_keeps_its_port() -> None:
    ledger = lock("version: 1\nhosts:\n  web1:\n    ports:\n      5001: shop-qa/api/1/a\n")
    _plan, faults = plan_of(RIGHT, ledger=ledger)
    assert any("5001: shop-qa has it on web1 already (shop-qa/api/1/a)" in f for f in faults)


def test_faults_of_the_reference_documents_are_refused() -> None:
    """CoreFlow's documents put dashboard and cms on 3001, payments and the Kafka UI on 8080."""
    service = {"hosts": "apps", "command": "/usr/bin/node index.js"}
    variables = changed({})
    variables["platform_services"] = {
        "dashboard": {**service, "port": 3001},
        "cms-service": {**service, "port": 3001},
        "payments-service": {**service, "port": 8080},
        "kafka-ui": {**service, "port": 8080},
    }
    _plan, faults = plan_of(variables)
    assert any(
        "platform_services.dashboard.port is 3001: platform_services.cms-service.port has port" in f
        for f in faults
    )
    assert any(
        "platform_services.payments-service.port is 8080: platform_services.kafka-ui.port has" in f
        for f in faults
    )
