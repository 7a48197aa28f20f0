# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: everything that follows from the catalog, the inventory and the port ledger.

`build` is pure. It places every service instance, gives out the ports, follows every need to the
host that serves it, and holds the result as data from which `wiring` derives the roles' variables.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import ports as ledger_
from ansible_collections.berth.platform.plugins.module_utils import quantities
from ansible_collections.berth.platform.plugins.module_utils.catalog import (
    COMPONENT_PORTS,
    MAIN_REDIS,
    NEEDABLE,
    PRIVATE_PORTS,
    Catalog,
    Service,
    redis_listener,
)
from ansible_collections.berth.platform.plugins.module_utils.faults import MISSING, Faults, nearest
from ansible_collections.berth.platform.plugins.module_utils.inventory import Inventory
from ansible_collections.berth.platform.plugins.module_utils.placeholders import fill

LOOPBACK = "127.0.0.1"
_UNIT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class Instance:
    """One running copy of a service: where it listens, now or after the next switch."""

    service: str
    host: str
    number: int
    unit: str
    bind: str
    port: int | None
    standby_port: int | None

    @property
    def ports(self) -> list[int]:
        """The active port first, then the one it switches to; none where it listens on none."""
        return [port for port in (self.port, self.standby_port) if port is not None]


@dataclass(frozen=True, order=True)
class Rule:
    """Who may open a port of a host. Default is deny: what no rule allows is shut."""

    host: str
    port: int
    protocol: str
    sources: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Edge:
    """One need, followed to its end: for the topology and for people."""

    source: str
    target: str
    port: int
    why: str


@dataclass
class Placed:
    """A service with its names settled and its instances placed."""

    service: Service
    hosts: list[str]
    unit: str
    home: str
    user: str
    group: str
    values: dict[str, str]
    instances: list[Instance] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The service's name in the catalog."""
        return self.service.name

    @property
    def key(self) -> str:
        """Where the service stands in the catalog, for faults."""
        return f"platform_services.{self.service.name}"

    @property
    def redis(self) -> str:
        """The instance of Redis that the service uses."""
        return str(self.service["redis"].get("instance") or MAIN_REDIS)

    def listener(self, need: str) -> str:
        """The listener of a component that the service uses."""
        return redis_listener(self.redis) if need == "redis" else need

    def on(self, host: str) -> list[Instance]:
        """The instances on a host."""
        return [instance for instance in self.instances if instance.host == host]


@dataclass
class Plan:
    """What is to be true of every host."""

    catalog: Catalog
    inventory: Inventory
    placed: dict[str, Placed]
    component_ports: dict[str, int]
    allocation: ledger_.Allocation
    rules: list[Rule]
    edges: list[Edge]
    listens: dict[tuple[str, str], list[str]]
    secrets: dict[str, dict[str, Any]]

    def component(self, name: str) -> list[str]:
        """The hosts of a component."""
        return self.inventory.group(name)

    def address(self, host: str) -> str:
        """A host's address; loopback where none is known, which then no other host needs."""
        return self.inventory.hosts[host].address or LOOPBACK

    def reach(self, here: str, there: str) -> str:
        """The address under which *here* knows *there*: its own is loopback."""
        return LOOPBACK if here == there else self.address(there)

    def listen_addresses(self, host: str, listener: str) -> list[str]:
        """Loopback, and the host's address where somebody else comes."""
        if (host, listener) in self.listens and self.address(host) != LOOPBACK:
            return [LOOPBACK, self.address(host)]
        return [LOOPBACK]

    def provider(self, component: str, consumer: str) -> str:
        """The host of a component that a consumer uses: its own, else the first."""
        hosts = self.component(component)
        return consumer if consumer in hosts else hosts[0]


def build(
    catalog: Catalog, inventory: Inventory, ledger: ledger_.Ledger, faults: Faults
) -> Plan | None:
    """Make the plan; None when the catalog's faults leave nothing to plan."""
    placed = {}
    for service in catalog.services.values():
        hosts = inventory.resolve(
            service["hosts"] or [], f"platform_services.{service.name}.hosts", faults
        )
        placed[service.name] = _settle(catalog, service, hosts, faults)
    _check_needs(placed, inventory, faults)
    _check_unique(placed, faults)
    _check_components(catalog, inventory, faults)
    _check_use(catalog, placed, faults)
    component_ports = _component_ports(catalog)
    allocation = ledger_.allocate(
        _claims(catalog, inventory, placed, component_ports),
        ledger,
        catalog.estate,
        catalog.options["ports"]["range"] or (0, 0),
        [port for port in catalog.options["ports"]["reserved"] if port],
        faults,
    )
    if faults:
        return None
    component_ports.update(
        {
            listener: allocation.ports[host, f"{catalog.estate}/{listener}"]
            for listener in catalog.listeners("redis")
            for host in inventory.group("redis")
        }
    )
    plan = Plan(catalog, inventory, placed, component_ports, allocation, [], [], {}, {})
    _place(plan)
    plan.secrets.update(_secrets(plan))
    _reachability(plan, faults)
    _values(plan)
    _check_routes(plan, faults)
    return None if faults else plan


def _settle(catalog: Catalog, service: Service, hosts: list[str], faults: Faults) -> Placed:
    """A service's names: unit, home and user, given or by default."""
    key = f"platform_services.{service.name}"
    values = {
        "platform": catalog.name,
        "env": catalog.env,
        "Env": catalog.env.capitalize(),
        "service": service.name,
        "Service": "".join(part.capitalize() for part in service.name.split("-")),
    }
    if catalog.domain:
        values["domain"] = catalog.domain
    unit = fill(service["unit"] or "{platform}-{service}-{env}", values, f"{key}.unit", faults)
    unit = unit.removesuffix(".service")
    if not _UNIT.match(unit):
        faults.add(f"{key}.unit", unit, "use letters, digits, . _ and -, at most 100")
    values["unit"] = unit
    home = fill(service["home"] or "/srv/{platform}/{env}/{service}", values, f"{key}.home", faults)
    try:
        quantities.absolute_path(home)
    except ValueError as error:
        faults.add(f"{key}.home", home, str(error))
    values["home"] = home
    user = fill(service["user"] or unit, values, f"{key}.user", faults)
    group = fill(service["group"] or user, values, f"{key}.group", faults)
    for name, what in ((user, "user"), (group, "group")):
        if len(name) > 32:
            faults.add(f"{key}.{what}", name, f"is longer than 32 characters; set {what}")
    if user == "root":
        faults.add(f"{key}.user", user, "services do not run as root; name another user")
    return Placed(service, hosts, unit, home, user, group, values)


def _check_needs(placed: Mapping[str, Placed], inventory: Inventory, faults: Faults) -> None:
    """Every need names a component that has a host or a service that listens; no cycles."""
    graph: dict[str, list[str]] = {}
    for name, each in placed.items():
        graph[name] = []
        for number, need in enumerate(each.service["needs"]):
            key = f"{each.key}.needs[{number}]"
            if need in NEEDABLE:
                if not inventory.group(need):
                    faults.add(key, need, f"needs a host in the group {need!r}; it has none")
            elif need == name:
                faults.add(key, need, "a service cannot need itself")
            elif need in placed:
                if not placed[need].service.listens:
                    faults.add(key, need, "has no port to be reached at")
                graph[name].append(need)
            else:
                faults.add(
                    key,
                    need,
                    "is no service and no component; " + nearest(str(need), [*NEEDABLE, *placed]),
                )
        if each.service["database"] and "postgresql" not in each.service["needs"]:
            faults.add(f"{each.key}.database", MISSING, "needs postgresql among its needs")
    for cycle in _cycles(graph):
        faults.add(
            f"platform_services.{cycle[0]}.needs",
            " → ".join([*cycle, cycle[0]]),
            "is a cycle; let one of them do without the other",
        )


def _cycles(graph: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """One cycle for each knot of the graph, from its first name in order."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            stack.append((start, iter(graph[start])))
            path.append(start)
        while stack:
            _node, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                stack.pop()
                done.add(path.pop())
            elif target in path:
                yield path[path.index(target) :]
                done.update(path)
                break
            elif target not in done:
                path.append(target)
                stack.append((target, iter(graph[target])))


def _check_unique(placed: Mapping[str, Placed], faults: Faults) -> None:
    """No two services share a unit or a home on a host."""
    for what in ("unit", "home"):
        owners: dict[tuple[str, str], str] = {}
        for each in placed.values():
            for host in each.hosts:
                value = getattr(each, what)
                other = owners.setdefault((host, value), each.name)
                if other != each.name:
                    faults.add(
                        f"{each.key}.{what}",
                        value,
                        f"is platform_services.{other}'s on {host} already; give each its own",
                    )


def _check_components(catalog: Catalog, inventory: Inventory, faults: Faults) -> None:
    """What holds for components: one host where no cluster is offered, an edge for routes."""
    for component in NEEDABLE:
        hosts = inventory.group(component)
        if len(hosts) > 1:
            faults.add(
                f"group {component}",
                ", ".join(hosts),
                "has several hosts, and clusters of it are not offered yet; keep one",
            )
    routed = [service for service in catalog.services.values() if service["routes"]]
    if routed and not inventory.group("edge"):
        faults.add(
            "group edge",
            MISSING,
            f"has no host, and platform_services.{routed[0].name} has routes; add one",
        )
    for listener in catalog.options["access"]:
        for component in COMPONENT_PORTS:
            listeners = catalog.listeners(component)
            if listener in listeners and component != "edge" and not inventory.group(component):
                faults.add(
                    f"platform_access.{listener}",
                    MISSING,
                    f"is given, but the group {component!r} has no host",
                )
    store = any(
        repository.get("endpoint") == "object_store"
        for repository in catalog.options["backup"]["repositories"]
        if repository
    )
    if store and not inventory.group("object_store"):
        faults.add(
            "platform_backup.repositories",
            "object_store",
            "needs a host in the group 'object_store'; it has none",
        )


def _check_use(catalog: Catalog, placed: Mapping[str, Placed], faults: Faults) -> None:
    """What services say of Redis and Kafka is there, and they need what they speak of."""
    instances = catalog.options["redis"]["instances"]
    topics = catalog.options["kafka"]["topics"]
    for each in placed.values():
        for component in ("redis", "kafka"):
            if each.service[component] and component not in each.service["needs"]:
                faults.add(f"{each.key}.{component}", MISSING, f"needs {component} among its needs")
        if "redis" in each.service["needs"] and each.redis not in instances:
            faults.add(
                f"{each.key}.redis.instance",
                each.redis,
                "is not in platform_redis.instances; " + nearest(each.redis, instances),
            )
        for verb in ("produce", "consume"):
            for number, topic in enumerate(each.service["kafka"].get(verb) or ()):
                if topic not in topics:
                    faults.add(
                        f"{each.key}.kafka.{verb}[{number}]",
                        topic,
                        "is not in platform_kafka.topics; " + nearest(str(topic), topics),
                    )


def _component_ports(catalog: Catalog) -> dict[str, int]:
    """The ports of the components, moved where the catalog says so."""
    result: dict[str, int] = {}
    for component in COMPONENT_PORTS:
        named = catalog.listeners(component)
        result.update({listener: port for listener, port in named.items() if port is not None})
    for group in PRIVATE_PORTS.values():
        result.update(group)
    result.update(
        {n: p for n, p in catalog.options["ports"]["components"].items() if p is not None}
    )
    return result


def _claims(
    catalog: Catalog,
    inventory: Inventory,
    placed: Mapping[str, Placed],
    component_ports: Mapping[str, int],
) -> Iterator[ledger_.Claim]:
    """Every wish for a port: components, then pins, then what is free to lie anywhere."""
    estate = catalog.estate
    open_: dict[str, list[ledger_.Claim]] = {"component": [], "a": [], "b": []}
    for host in inventory.hosts.values():
        yield ledger_.Claim(host.name, ledger_.SSH, "ssh", host.ssh_port, fixed=True)
    for component in COMPONENT_PORTS:
        listeners = [*catalog.listeners(component), *PRIVATE_PORTS.get(component, ())]
        for host_name in inventory.group(component):
            for listener in listeners:
                key = f"platform_ports.components.{listener}"
                port = component_ports.get(listener)
                claim = ledger_.Claim(
                    host_name, f"{estate}/{listener}", key, port, fixed=port is not None
                )
                if port is None:
                    open_["component"].append(claim)
                else:
                    yield claim
    for name in sorted(placed):
        each = placed[name]
        if not each.service.listens:
            continue
        pins = each.service["port"] or ()
        for host_name in each.hosts:
            for number in range(1, each.service["instances"] + 1):
                owner = f"{estate}/{name}/{number}"
                pin = pins[number - 1] if number <= len(pins) else None
                claim = ledger_.Claim(host_name, f"{owner}/a", f"{each.key}.port", pin)
                if pin is None:
                    open_["a"].append(claim)
                else:
                    yield claim
                open_["b"].append(ledger_.Claim(host_name, f"{owner}/b", f"{each.key}.port"))
    for claims in open_.values():
        yield from claims


def _place(plan: Plan) -> None:
    """Instances with the ports they were given and the address they bind to."""
    estate = plan.catalog.estate
    consumers: dict[str, set[str]] = defaultdict(set)
    for each in plan.placed.values():
        for need in each.service["needs"]:
            if need in plan.placed:
                consumers[need].update(each.hosts)
        if each.service["routes"]:
            consumers[each.name].update(plan.component("edge"))
    for each in plan.placed.values():
        for host in each.hosts if each.service["runtime"] != "static" else ():
            alone = consumers[each.name] <= {host} and not each.service["access"]
            for number in range(1, each.service["instances"] + 1):
                owner = f"{estate}/{each.name}/{number}"
                each.instances.append(
                    Instance(
                        service=each.name,
                        host=host,
                        number=number,
                        unit=each.unit if number == 1 else f"{each.unit}-{number}",
                        bind=LOOPBACK if alone else plan.address(host),
                        port=plan.allocation.ports.get((host, f"{owner}/a")),
                        standby_port=plan.allocation.ports.get((host, f"{owner}/b")),
                    )
                )


def _secrets(plan: Plan) -> dict[str, dict[str, Any]]:
    """Every secret of the platform, with how it is made."""
    result: dict[str, dict[str, Any]] = {}
    for name, spec in plan.catalog.options["secrets"].items():
        result[name] = {"name": name, **{k: v for k, v in spec.items() if v is not None}}
    if plan.catalog.options["tls"]["provider"] == "platform" or plan.component("object_store"):
        common_name = f"{plan.catalog.name} {plan.catalog.env} CA"
        result["platform-ca"] = {
            "name": "platform-ca",
            "kind": "authority",
            "common_name": common_name,
        }
    for each in plan.placed.values():
        for need in each.service["needs"]:
            if need in NEEDABLE:
                _password(result, f"{need.replace('_', '-')}-{each.name}")
    if plan.component("rabbitmq"):
        _password(result, "rabbitmq-cookie")
        _password(result, "rabbitmq-probe")
    if plan.component("redis"):
        _password(result, "redis-admin")
        _password(result, "redis-probe")
    if plan.component("kafka"):
        _password(result, "kafka-admin")
        # It is set when the storage is formatted, and brokers use it among themselves.
        result["kafka-admin"]["rotatable"] = False
    if plan.component("object_store"):
        _password(result, "object-store-root")
        _password(result, "object-store-backup")
    backup = plan.catalog.options["backup"]
    if plan.component("postgresql") and backup["enabled"]:
        for repository in backup["repositories"]:
            if repository["encrypted"]:
                name = f"backup-cipher-{repository['name']}"
                _password(result, name)
                # A new one would make the backups that are there unreadable.
                result[name]["rotatable"] = False
    return result


def _password(secrets: dict[str, dict[str, Any]], name: str) -> None:
    secrets.setdefault(name, {"name": name, "kind": "password", "length": 32})


def _reachability(plan: Plan, faults: Faults) -> None:
    """Follow every need and route from host to host; what stays on one host needs no rule."""
    sources: dict[tuple[str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    lacking: Counter[str] = Counter()

    def allow(host: str, port: int, source: str, why: str) -> None:
        sources[host, port][source].add(why)

    def need(consumer: str, provider: str, port: int, why: str, listener: str) -> None:
        if consumer == provider:
            return
        for host in (consumer, provider):
            if plan.inventory.hosts[host].address is None:
                lacking[host] += 1
        address = plan.address(consumer)
        allow(provider, port, network(address), why)
        plan.listens.setdefault((provider, listener), []).append(address)

    access = plan.catalog.options["access"]
    for host in plan.inventory.hosts.values():
        for source in access.get("ssh", ["any"]):
            allow(host.name, host.ssh_port, source, "ssh")
    routed = any(each.service["routes"] for each in plan.placed.values())
    for host_name in plan.component("edge") if routed else ():
        shut = plan.catalog.options["tls"]["provider"] == "none"
        for listener in ("http",) if shut else ("http", "https"):
            for source in access.get(listener, access.get("http", ["any"])):
                allow(host_name, plan.component_ports[listener], source, listener)
    for component in NEEDABLE:
        for listener in plan.catalog.listeners(component):
            for host_name in plan.component(component):
                for source in access.get(listener, []):
                    allow(host_name, plan.component_ports[listener], source, f"access: {listener}")
                    plan.listens.setdefault((host_name, listener), []).append(source)

    for each in plan.placed.values():
        for needed in each.service["needs"]:
            for host_name in each.hosts:
                if needed in NEEDABLE:
                    listener = each.listener(needed)
                    port = plan.component_ports[listener]
                    provider = plan.provider(needed, host_name)
                    need(host_name, provider, port, f"{each.name} → {needed}", listener)
                    plan.edges.append(Edge(each.name, needed, port, "needs"))
                else:
                    for instance in _upstream_of(plan, needed, host_name):
                        for port in instance.ports:
                            need(host_name, instance.host, port, f"{each.name} → {needed}", needed)
                        plan.edges.append(Edge(each.name, needed, instance.ports[0], "needs"))
        for instance in each.instances:
            if not instance.ports:
                continue
            for port in instance.ports:
                for source in each.service["access"]:
                    allow(instance.host, port, source, f"access: {each.name}")
                if each.service["routes"]:
                    for edge in plan.component("edge"):
                        need(edge, instance.host, port, f"edge → {each.name}", each.name)
            if each.service["routes"]:
                plan.edges.append(Edge("edge", each.name, instance.ports[0], "route"))
        if each.service["runtime"] == "static":
            plan.edges.append(Edge("edge", each.name, plan.component_ports["https"], "route"))
    backup = plan.catalog.options["backup"]
    if backup["enabled"] and any(r["endpoint"] == "object_store" for r in backup["repositories"]):
        port = plan.component_ports["object_store"]
        for host_name in plan.component("postgresql"):
            store = plan.provider("object_store", host_name)
            need(host_name, store, port, "backup → object_store", "object_store")
            plan.edges.append(Edge("postgresql", "object_store", port, "backup"))
    for host_name in lacking:
        faults.add(
            f"host {host_name}",
            MISSING,
            "is needed by another host and has no address: "
            "set platform_address (or ansible_host) to an IP address",
        )
    plan.edges = sorted(set(plan.edges))
    for (host_name, port), by_source in sources.items():
        names = tuple(sorted(by_source))
        if "any" in by_source:
            names = ("any",)
        why = tuple(sorted({each for reasons in by_source.values() for each in reasons}))
        plan.rules.append(Rule(host_name, port, "tcp", names, why))
    plan.rules.sort()


def network(address: str) -> str:
    """An address as a network of one."""
    return str(ipaddress.ip_network(address))


def _upstream_of(plan: Plan, service: str, consumer: str) -> list[Instance]:
    """The instances of a service that a host uses: its own, else all of them."""
    own = plan.placed[service].on(consumer)
    return own or plan.placed[service].instances


def known_secret(plan: Plan) -> Any:
    """Says whether the plan knows a secret of that name."""
    return lambda name: name in plan.secrets


def _values(plan: Plan) -> None:
    """What needs give to placeholders: the addresses are the consumer's view, so per host."""
    for each in plan.placed.values():
        database = each.service["database"] or {}
        broker = each.service["broker"]
        redis, kafka = each.service["redis"], each.service["kafka"]
        default = f"{plan.catalog.env}-{plan.catalog.name}-{each.name}"
        sink = Faults()  # names are checked with the routes below
        for need, values in (
            (
                "postgresql",
                {
                    "database": fill(database.get("name") or default, each.values, "", sink),
                    "user": fill(database.get("user") or default, each.values, "", sink),
                },
            ),
            (
                "rabbitmq",
                {
                    "vhost": fill(broker.get("vhost") or default, each.values, "", sink),
                    "user": fill(broker.get("user") or default, each.values, "", sink),
                },
            ),
            ("object_store", {"bucket": default, "access_key": default}),
            (
                "redis",
                {
                    "user": fill(redis.get("user") or default, each.values, "", sink),
                    "prefix": fill(redis.get("prefix") or f"{each.name}:", each.values, "", sink),
                },
            ),
            (
                "kafka",
                {
                    "user": fill(kafka.get("user") or default, each.values, "", sink),
                    "group": fill(kafka.get("group") or each.name, each.values, "", sink),
                },
            ),
        ):
            if need not in each.service["needs"]:
                continue
            secret = f"{need.replace('_', '-')}-{each.name}"
            each.values.update({f"{need}.{key}": value for key, value in values.items()})
            password = "secret_key" if need == "object_store" else "password"
            each.values[f"{need}.{password}"] = f"{{secret:{secret}}}"


def host_values(plan: Plan, each: Placed, instance: Instance) -> dict[str, str]:
    """The placeholders of one instance."""
    host = instance.host
    values = dict(each.values, host=host, bind=instance.bind, instance=str(instance.number))
    if instance.port is not None:
        values["port"] = str(instance.port)
    for need in each.service["needs"]:
        if need in NEEDABLE:
            provider = plan.provider(need, host)
            address = plan.reach(host, provider)
            port = plan.component_ports[each.listener(need)]
            if need == "kafka":
                # A broker has one address for all its clients.
                address = plan.listen_addresses(provider, "kafka")[-1]
                values["kafka.brokers"] = f"{address}:{port}"
            if need == "object_store":
                # Its certificate is for the name; every host knows it.
                address = f"{provider}.internal"
                values["object_store.url"] = f"https://{address}:{port}"
            values[f"{need}.host"] = address
            values[f"{need}.port"] = str(port)
            secret = f"{{secret:{need.replace('_', '-')}-{each.name}|urlencode}}"
            if need == "postgresql":
                values["postgresql.url"] = (
                    f"postgresql://{values['postgresql.user']}:{secret}@{address}:{port}"
                    f"/{values['postgresql.database']}"
                )
            elif need == "redis":
                values["redis.url"] = f"redis://{values['redis.user']}:{secret}@{address}:{port}/0"
            elif need == "rabbitmq":
                values["rabbitmq.url"] = (
                    f"amqp://{values['rabbitmq.user']}:{secret}@{address}:{port}"
                    f"/{values['rabbitmq.vhost']}"
                )
        else:
            first = _upstream_of(plan, need, host)[0]
            values[f"{need}.host"] = first.bind
            values[f"{need}.port"] = str(first.port)
            values[f"{need}.url"] = f"http://{first.bind}:{first.port}"
    return values


def routes(plan: Plan, each: Placed, faults: Faults) -> list[dict[str, Any]]:
    """The routes of a service with their domains filled in."""
    result = []
    for number, route in enumerate(each.service["routes"]):
        key = f"{each.key}.routes[{number}]"
        domain = route["domain"] or ("{service}.{domain}" if plan.catalog.domain else None)
        if domain is None:
            faults.add(f"{key}.domain", MISSING, "is required where platform_domain is not set")
            continue
        result.append({**route, "domain": fill(domain, each.values, f"{key}.domain", faults)})
    return result


def _check_routes(plan: Plan, faults: Faults) -> None:
    """Domains that are right, no two routes the same; names of databases that fit."""
    seen: dict[tuple[str, str], str] = {}
    for each in plan.placed.values():
        for number, route in enumerate(routes(plan, each, faults)):
            key = f"{each.key}.routes[{number}]"
            try:
                quantities.domain(route["domain"])
            except ValueError as error:
                faults.add(f"{key}.domain", route["domain"], str(error))
            other = seen.setdefault((route["domain"], route["path"]), key)
            if other != key:
                faults.add(
                    key,
                    f"{route['domain']}{route['path']}",
                    f"is {other} already; change domain or path",
                )
            limit = route["rate_limit"]
            if limit and limit["name"] not in plan.catalog.options["rate_limits"]:
                faults.add(
                    f"{key}.rate_limit",
                    limit["name"],
                    "is not in platform_rate_limits; "
                    + nearest(limit["name"], plan.catalog.options["rate_limits"]),
                )
        if each.service["runtime"] == "static":
            outside = [host for host in each.hosts if host not in plan.component("edge")]
            if outside:
                faults.add(
                    f"{each.key}.hosts",
                    ", ".join(outside),
                    "a static site is served by the edge; name hosts of the group edge",
                )
        for number, name in enumerate(each.service["secrets"]):
            if name not in plan.catalog.options["secrets"]:
                faults.add(
                    f"{each.key}.secrets[{number}]",
                    name,
                    "is named and not provided; declare it under platform_secrets: "
                    f"`{name}: {{kind: hex}}` generates it, `value` gives it",
                )
    owners: dict[tuple[str, str], str] = {}
    for each in plan.placed.values():
        for need, what in (
            ("postgresql", "database"),
            ("postgresql", "user"),
            ("rabbitmq", "user"),
            ("redis", "user"),
            ("kafka", "user"),
        ):
            value = each.values.get(f"{need}.{what}")
            if value is None:
                continue
            key = {"postgresql": "database", "rabbitmq": "broker"}.get(need, need)
            if not value or len(value) > 63:
                faults.add(f"{each.key}.{key}", value, "use a name of 1 to 63 characters")
            other = owners.setdefault((f"{need}.{what}", value), each.name)
            if other != each.name:
                faults.add(
                    f"{each.key}.{key}",
                    value,
                    f"is the {what} of platform_services.{other} already; each service has its own",
                )
