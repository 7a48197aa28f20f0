"""Redis and Kafka in the plan: ports, users, what each service may do, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.plan import Plan
from ansible_collections.berth.platform.plugins.module_utils.plan_result import result_of
from ansible_collections.berth.platform.plugins.module_utils.wiring_kafka import cluster_id
from catalogs import RIGHT, changed, inventory, plan_of

API = "platform_services.api"
ENGINES = {
    f"{API}.needs": ["redis", "kafka"],
    f"{API}.routes": [],
    f"{API}.redis": {"instance": "queue"},
    f"{API}.kafka": {"produce": ["orders", "audit"], "consume": ["orders"]},
    "platform_redis": {"instances": {"main": {}, "queue": {"eviction": "noeviction"}}},
    "platform_kafka": {
        "topics": {"orders": {"partitions": 3, "config": {"retention.ms": 1000}}, "audit": {}}
    },
}


def plan(
    changes: dict[str, Any] | None = None, host: str = "db1", ledger: Any = None
) -> tuple[Plan, dict[str, Any]]:
    found, faults = plan_of(
        changed({**ENGINES, **(changes or {})}),
        inventory(apps=["web1"], redis=[host], kafka=[host]),
        ledger,
    )
    assert not faults
    assert found is not None
    return found, result_of(found, Faults())


def environment(result: dict[str, Any]) -> dict[str, str]:
    (service,) = [
        each for each in result["hosts"]["web1"]["app"]["services"] if "api" in each["name"]
    ]
    instance = service["instances"][0]
    return {**instance["environment"], **instance["secret_environment"]}


def test_the_main_instance_has_the_known_port_and_others_are_given_theirs() -> None:
    found, result = plan()
    redis = {each["name"]: each for each in result["hosts"]["db1"]["redis"]["instances"]}
    assert redis["main"]["port"] == 6379
    assert redis["queue"]["port"] in range(5001, 5021)
    assert redis["queue"]["eviction"] == "noeviction"
    # Nobody on another host uses the first.
    assert redis["main"]["listen"] == ["127.0.0.1"]
    assert redis["queue"]["listen"] == ["127.0.0.1", "10.0.0.2"]
    reached = {(rule.port, rule.sources) for rule in found.rules if rule.host == "db1"}
    assert (redis["queue"]["port"], ("10.0.0.1/32",)) in reached
    assert 6379 not in {port for port, _sources in reached}


def test_a_port_once_given_stays() -> None:
    first, _result = plan()
    ledger = first.allocation.ledger
    more = {"platform_redis": {"instances": {"a": {}, "queue": {}, "main": {}}}}
    second, _result = plan(more, ledger=ledger)
    assert second.component_ports["redis_queue"] == first.component_ports["redis_queue"]
    pinned, _result = plan({"platform_ports.components": {"redis_queue": 6380}}, ledger=ledger)
    assert pinned.component_ports["redis_queue"] == 6380


def test_a_service_keeps_to_its_prefix() -> None:
    _found, result = plan()
    redis = {each["name"]: each for each in result["hosts"]["db1"]["redis"]["instances"]}
    assert redis["main"]["users"] == []
    assert redis["queue"]["users"] == [
        {
            "name": "prod-shop-api",
            "password": "{secret:redis-api}",
            "keys": ["api:*"],
            "channels": ["api:*"],
            "commands": [],
        }
    ]
    port = redis["queue"]["port"]
    told = environment(result)
    assert told["REDIS_URL"] == (
        f"redis://prod-shop-api:{{secret:redis-api|urlencode}}@10.0.0.2:{port}/0"
    )
    assert told["REDIS_PREFIX"] == "api:"


def test_what_is_produced_and_consumed_becomes_acls() -> None:
    _found, result = plan()
    kafka = result["hosts"]["db1"]["kafka"]
    assert kafka["topics"] == [
        {"name": "orders", "partitions": 3, "replication": 0, "config": {"retention.ms": "1000"}},
        {"name": "audit", "partitions": 1, "replication": 0, "config": {}},
    ]
    (user,) = kafka["users"]
    assert user["name"] == "prod-shop-api"
    assert user["acls"] == [
        {"resource": "topic", "name": "orders", "operations": ["read", "write", "describe"]},
        {"resource": "topic", "name": "audit", "operations": ["write", "describe"]},
        {
            "resource": "group",
            "name": "api",
            "pattern": "prefixed",
            "operations": ["read", "describe"],
        },
    ]
    told = environment(result)
    assert told["KAFKA_BROKERS"] == "10.0.0.2:9092"
    assert told["KAFKA_PASSWORD"] == "{secret:kafka-api}"
    assert told["KAFKA_GROUP"] == "api"


@pytest.mark.parametrize(("host", "address"), [("db1", "10.0.0.2"), ("web1", "127.0.0.1")])
def test_a_broker_has_one_address_for_all(host: str, address: str) -> None:
    _found, result = plan(host=host)
    kafka = result["hosts"][host]["kafka"]
    assert [each["address"] for each in kafka["listeners"]] == [address]
    assert environment(result)["KAFKA_BROKERS"] == f"{address}:9092"
    (probe,) = [
        each for each in result["hosts"][host]["health"]["probes"] if each["type"] == "kafka"
    ]
    assert probe["address"] == address


def test_the_cluster_s_id_is_kafka_s_and_stays() -> None:
    assert cluster_id("shop-prod") == cluster_id("shop-prod") != cluster_id("shop-qa")
    for number in range(2000):
        found = cluster_id(f"p{number}")
        assert len(found) == 22
        assert not found.startswith("-")


def test_every_port_has_a_holder() -> None:
    _found, result = plan()
    held = {each["owner"]: each for each in result["hosts"]["db1"]["listeners"]["planned"]}
    assert held["shop-prod/redis"]["units"] == ["redis-server@main.service"]
    assert held["shop-prod/redis_queue"]["units"] == ["redis-server@queue.service"]
    assert held["shop-prod/kafka_controller"]["units"] == ["kafka.service"]
    assert "shop-prod/kafka_jmx_exporter" in held


def test_units_start_after_the_instance_they_use() -> None:
    _found, result = plan(host="web1")
    (service,) = [
        each for each in result["hosts"]["web1"]["app"]["services"] if "api" in each["name"]
    ]
    assert service["after"] == ["redis-server@queue.service", "kafka.service"]


def test_the_admin_password_of_kafka_is_not_rotated() -> None:
    found, _result = plan()
    assert found.secrets["kafka-admin"]["rotatable"] is False
    assert {"redis-admin", "redis-probe", "redis-api", "kafka-api"} <= set(found.secrets)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {f"{API}.needs": ["redis"]},
            f"{API}.kafka: needs kafka among its needs",
        ),
        (
            {f"{API}.redis": {"instance": "que"}},
            f"{API}.redis.instance is 'que': is not in platform_redis.instances; did you mean",
        ),
        (
            {f"{API}.kafka": {"produce": ["order"]}},
            f"{API}.kafka.produce[0] is 'order': is not in platform_kafka.topics; did you mean",
        ),
        (
            {f"{API}.kafka": {"topics": ["orders"]}},
            f"{API}.kafka.topics: is not a known key; write produce or consume",
        ),
        (
            {"platform_kafka": {"topics": {"a b": {}}}},
            "platform_kafka.topics.a b: is not a safe name: write a name of letters, digits, . _",
        ),
        (
            {"platform_kafka": {"topics": {"orders": {"partitions": 0}}}},
            "platform_kafka.topics.orders.partitions is 0: write a whole number from 1",
        ),
        (
            {"platform_redis": {"instances": {"queue": {"eviction": "lru"}}}},
            "platform_redis.instances.queue.eviction is 'lru': known are",
        ),
        (
            {"platform_access": {"redis_cache": ["10.0.0.0/8"]}},
            "platform_access.redis_cache: is no listener; did you mean 'redis_queue'?",
        ),
        (
            {"platform_ports.components": {"redis_cue": 6380}},
            "platform_ports.components.redis_cue: is no component's port; did you mean",
        ),
        (
            {"platform_services.redis": RIGHT["platform_services"]["mail"]},
            "platform_services.redis: is the name of a component",
        ),
    ],
)
def test_faults(changes: dict[str, Any], words: str) -> None:
    hosts = inventory(apps=["web1"], redis=["db1"], kafka=["db1"])
    found, faults = plan_of(changed({**ENGINES, **changes}), hosts)
    assert found is None
    assert any(line.startswith(words) for line in faults), faults
