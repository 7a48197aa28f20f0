"""What follows from the catalog: places, addresses, rules, and the roles' variables."""

from __future__ import annotations

from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.plan_result import result_of
from catalogs import RIGHT, changed, inventory, plan_of


def planned(variables: dict[str, Any] | None = None, **groups: list[str]) -> dict[str, Any]:
    plan, faults = plan_of(variables or RIGHT, inventory(**groups) if groups else None)
    assert plan is not None, faults
    return result_of(plan, Faults())


def rules(plan: dict[str, Any], host: str) -> dict[int, list[str]]:
    return {r["port"]: r["sources"] for r in plan["reachability"] if r["host"] == host}


def service(plan: dict[str, Any], host: str, name: str) -> dict[str, Any]:
    (found,) = [s for s in plan["hosts"][host]["app"]["services"] if s["name"] == name]
    return dict(found)


def test_only_what_is_needed_is_reachable() -> None:
    plan = planned()
    assert rules(plan, "web1") == {22: ["any"], 80: ["any"], 443: ["any"]}
    # db1 is 10.0.0.2, web1 is 10.0.0.1
    assert rules(plan, "db1") == {
        22: ["any"],
        5432: ["10.0.0.1/32"],
        5672: ["10.0.0.1/32"],
    }


def test_on_one_host_nothing_but_the_edge_is_reachable_and_all_is_on_loopback() -> None:
    one = {name: ["web1"] for name in ("edge", "apps", "postgresql", "rabbitmq")}
    plan = planned(RIGHT, **one)
    assert rules(plan, "web1") == {22: ["any"], 80: ["any"], 443: ["any"]}
    host = plan["hosts"]["web1"]
    assert host["postgresql"]["listen_addresses"] == ["127.0.0.1"]
    assert host["rabbitmq"]["listeners"] == ["127.0.0.1:5672"]
    assert {i["bind"] for s in host["app"]["services"] for i in s["instances"]} == {"127.0.0.1"}


def test_access_opens_a_listener_and_binds_it() -> None:
    plan = planned(
        changed(
            {
                "platform_access": {
                    "postgresql": ["10.0.0.0/8"],
                    "ssh": ["10.1.0.0/16"],
                    "rabbitmq_management": ["10.0.0.0/8"],
                }
            }
        )
    )
    assert rules(plan, "db1") == {
        22: ["10.1.0.0/16"],
        5432: ["10.0.0.0/8", "10.0.0.1/32"],
        5672: ["10.0.0.1/32"],
        15672: ["10.0.0.0/8"],
    }
    database = plan["hosts"]["db1"]["postgresql"]
    assert database["listen_addresses"] == ["127.0.0.1", "10.0.0.2"]
    assert {(line["user"], line["address"]) for line in database["hba"]} == {
        ("prod-shop-api", each) for each in ("10.0.0.1/32", "127.0.0.1/32", "10.0.0.0/8")
    }
    assert plan["hosts"]["db1"]["rabbitmq"]["management_listener"]["address"] == "10.0.0.2"


def test_needs_become_the_services_environment() -> None:
    instance = service(planned(), "web1", "api")["instances"][0]
    assert instance["command"] == "/usr/bin/api --port 5001"
    assert instance["environment"] == {
        "MAIL_URL": "http://127.0.0.1:5002",
        "PORT": "5001",
        "BIND": "127.0.0.1",
    }
    assert instance["secret_environment"] == {
        "DATABASE_URL": "postgresql://prod-shop-api:{secret:postgresql-api|urlencode}"
        "@10.0.0.2:5432/prod-shop-api",
        "AMQP_URL": "amqp://prod-shop-api:{secret:rabbitmq-api|urlencode}"
        "@10.0.0.2:5672/prod-shop-api",
    }


def test_units_are_ordered_after_what_they_need_on_their_own_host() -> None:
    assert service(planned(), "web1", "api")["after"] == ["shop-mail-prod.service"]
    one = {name: ["web1"] for name in ("edge", "apps", "postgresql", "rabbitmq")}
    assert service(planned(RIGHT, **one), "web1", "api")["after"] == [
        "postgresql.service",
        "rabbitmq-server.service",
        "shop-mail-prod.service",
    ]


def test_every_instance_is_an_upstream_and_reachable_by_the_edge_alone() -> None:
    variables = changed(
        {
            "platform_services.api.hosts": ["web1", "web2"],
            "platform_services.api.port": None,
            "platform_services.api.instances": 2,
            "platform_services.api.upstream": {"balance": "least_conn"},
        }
    )
    plan = planned(
        variables,
        edge=["web1"],
        apps=["web1"],
        postgresql=["db1"],
        rabbitmq=["db1"],
        others=["web2"],
    )
    (upstream,) = plan["hosts"]["web1"]["nginx"]["upstreams"]
    assert upstream["balance"] == "least_conn"
    addresses = [server["address"] for server in upstream["servers"]]
    assert len(set(addresses)) == 4
    edge = plan["hosts"]["web1"]["address"]
    opened = {port: s for port, s in rules(plan, "web2").items() if port != 22}
    assert len(opened) == 4  # two instances, each on its port or the one it switches to
    assert set(map(tuple, opened.values())) == {(f"{edge}/32",)}


def test_every_port_of_the_ledger_has_a_holder_in_the_listeners_plan() -> None:
    plan = planned()
    for host in ("web1", "db1"):
        entries = plan["hosts"][host]["listeners"]["planned"]
        assert {e["port"] for e in entries} == {
            p["port"] for p in plan["ports"] if p["host"] == host
        }
        assert all(entry.get("units") or entry.get("processes") for entry in entries)


def test_defaults_lie_under_services_and_layers_over_them() -> None:
    plan = planned(
        changed(
            {
                "platform_service_defaults": {
                    "env": {"A": "under", "B": "{service}"},
                    "stop_seconds": 7,
                },
                "platform_services.api.env": {"A": "own"},
                "platform_layer_20": {
                    "services": {"api": {"env": {"C": "over"}, "stop_seconds": 9}}
                },
            }
        )
    )
    api = service(plan, "web1", "api")
    environment = api["instances"][0]["environment"]
    assert (environment["A"], environment["B"], environment["C"]) == ("own", "api", "over")
    assert (api["stop_seconds"], service(plan, "web1", "mail")["stop_seconds"]) == (9, 7)


def test_a_given_secret_is_in_no_plan() -> None:
    plan = planned(
        changed(
            {
                "platform_secrets": {"jwt": {"value": "canary-in-the-plan"}},
                "platform_services.api.secrets": ["jwt"],
            }
        )
    )
    assert "canary-in-the-plan" not in str(plan)
    assert (
        service(plan, "web1", "api")["instances"][0]["secret_environment"]["JWT"] == "{secret:jwt}"
    )


def test_health_is_served_unlogged_and_a_restricted_route_stays_restricted() -> None:
    plan = planned(
        changed(
            {
                "platform_services.api.health": {"live": "/health", "ready": "/health/ready"},
                "platform_services.api.routes": [
                    {"domain": "a.example.com"},
                    {"domain": "a.example.com", "path": "/jobs", "allow": ["10.0.0.0/8"]},
                ],
            }
        )
    )
    (site,) = plan["hosts"]["web1"]["nginx"]["sites"]
    by_path = {location["path"]: location for location in site["locations"]}
    assert by_path["/health"]["log"] is False
    assert by_path["/jobs"]["allow"] == ["10.0.0.0/8"]
    assert "allow" not in by_path["/"]


def test_a_platform_without_tls_is_plain_http() -> None:
    plan = planned(changed({"platform_tls": {"provider": "none"}}))
    assert 443 not in rules(plan, "web1")
    (site,) = plan["hosts"]["web1"]["nginx"]["sites"]
    assert "certificate" not in site and site["redirect_http"] is False


def test_backups_go_to_the_platforms_own_store_when_asked() -> None:
    variables = changed(
        {
            "platform_backup": {
                "retention_days": 30,
                "repositories": [
                    {"name": "local", "type": "posix", "path": "/backups"},
                    {"name": "store", "type": "s3", "endpoint": "object_store", "encrypted": True},
                ],
            }
        }
    )
    plan = planned(
        variables,
        edge=["web1"],
        apps=["web1"],
        postgresql=["db1"],
        rabbitmq=["db1"],
        object_store=["web1"],
    )
    local, store = plan["hosts"]["db1"]["backup"]["repositories"]
    assert (local["type"], local["retention_full"]) == ("posix", 30)
    assert (store["endpoint"], store["port"], store["uri_style"]) == ("web1.internal", 9000, "path")
    assert store["cipher_pass"] == "{secret:backup-cipher-store}"
    # The database's host may reach the store, and nobody else.
    assert rules(plan, "web1")[9000] == [plan["hosts"]["db1"]["address"] + "/32"]
