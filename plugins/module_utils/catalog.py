# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: what the user says of the platform, read from `platform_*` variables.

`read_catalog` checks the shape of every key and returns typed values; what follows from several
keys together (ports, hosts, needs) is checked by the plan. Nothing here touches a file or a host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import quantities
from ansible_collections.berth.platform.plugins.module_utils.faults import (
    MISSING,
    Faults,
    nearest,
)
from ansible_collections.berth.platform.plugins.module_utils.schema import (
    Key,
    Reader,
    Struct,
    anything,
    boolean,
    checked,
    choice,
    integer,
    list_of,
    map_of,
    text,
)

PREFIX = "platform_"
LAYER = "platform_layer_"
# Variables of a single host, beside the catalog.
HOST_VARIABLES = frozenset({"platform_address"})

# What a service may need beside other services, and the ports each one listens on.
COMPONENT_PORTS: dict[str, dict[str, int]] = {
    "edge": {"http": 80, "https": 443},
    "postgresql": {"postgresql": 5432},
    "rabbitmq": {"rabbitmq": 5672, "rabbitmq_management": 15672},
    "object_store": {"object_store": 9000},
    "redis": {"redis": 6379},
    "kafka": {"kafka": 9092},
}
# Ports that a component holds on its host for itself, reachable by nobody else.
PRIVATE_PORTS: dict[str, dict[str, int]] = {
    "rabbitmq": {"rabbitmq_distribution": 25672, "rabbitmq_epmd": 4369},
    "kafka": {"kafka_controller": 9093, "kafka_jmx_exporter": 9404},
}
NEEDABLE = ("postgresql", "rabbitmq", "object_store", "redis", "kafka")
# The instance of Redis that has Redis's own port, and that a service gets unless it names another.
MAIN_REDIS = "main"
RUNTIMES = ("systemd", "pm2", "static")
LISTENERS = ("ssh", *(name for ports in COMPONENT_PORTS.values() for name in ports))

_name = checked(quantities.slug)
_port = checked(quantities.port)
_domain = checked(quantities.domain)
_cidrs = list_of(checked(quantities.cidr))
_size = checked(quantities.size)
_time = checked(quantities.duration)
_path = checked(quantities.absolute_path)
_url_path = checked(quantities.url_path)
_texts = list_of(text)

_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PLACEHOLDER = re.compile(r"(?<![$%{])\{([A-Za-z_][A-Za-z0-9_.:-]*)\}")


def _variable(value: object) -> str:
    if not isinstance(value, str) or not _IDENTIFIER.match(value):
        raise ValueError("write a name of letters, digits and _")
    return value


def _secret_name(value: object) -> str:
    if not isinstance(value, str) or not re.match(r"^[a-z][a-z0-9_-]*$", value):
        raise ValueError("write a name of lower-case letters, digits, - and _")
    return value


def _template(check: Reader) -> Reader:
    """A value that may hold placeholders: then the plan checks it once they are filled in."""

    def read(value: Any, key: str, faults: Faults) -> Any:
        if isinstance(value, str) and _PLACEHOLDER.search(value):
            return value
        return check(value, key, faults)

    return read


def _ports(value: Any, key: str, faults: Faults) -> Any:
    """The pinned ports of a service's instances on a host; none for a service without a port."""
    if value == "none" or value is False:
        return ()
    if isinstance(value, list):
        return tuple(_port(each, f"{key}[{i}]", faults) for i, each in enumerate(value))
    return (_port(value, key, faults),)


def _hosts(value: Any, key: str, faults: Faults) -> Any:
    if isinstance(value, str):
        return [part for part in re.split(r"[:,\s]+", value) if part]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [str(each) for each in value]
    faults.add(key, value, "write a group, a host, or a list of them")
    return []


def _words(value: Any, key: str, faults: Faults) -> Any:
    """An environment's value: a scalar, taken as its text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        faults.add(key, value, "write a string, a number or a boolean")
        return None
    return str(value)


def _calendar(value: object) -> str:
    if not isinstance(value, str) or not re.match(r"^[A-Za-z0-9*:/., ~-]+$", value):
        raise ValueError("write a systemd calendar expression like '*-*-* 02:00:00'")
    return value


def _octets(value: object) -> str:
    text_ = str(value)
    if not re.match(r"^\d+[km]?$", text_):
        raise ValueError("write a size in nginx's notation, like 4k or 10m")
    return text_


_ARTIFACT = Struct(
    {
        "path": Key(text),
        "url": Key(text),
        "checksum": Key(text),
        "git": Key(text),
        "version": Key(text),
        "build": Key(_texts, default=[]),
    }
)
_RATE_LIMIT = Struct(
    {
        "name": Key(_name, required=True),
        "burst": Key(integer(0, 100000), default=0),
        "nodelay": Key(boolean, default=True),
    }
)


def _rate_limit(value: Any, key: str, faults: Faults) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    return _RATE_LIMIT(value, key, faults)


_ROUTE = Struct(
    {
        "domain": Key(_template(_domain)),
        "path": Key(_url_path, default="/"),
        "match": Key(choice("prefix", "exact"), default="prefix"),
        "rate_limit": Key(_rate_limit),
        "allow": Key(_cidrs, default=[]),
        "websocket": Key(boolean, default=True),
        "log": Key(boolean, default=True),
        "headers": Key(map_of(text), default={}),
        "timeouts": Key(
            Struct({"connect": Key(_time), "send": Key(_time), "read": Key(_time)}), default={}
        ),
        "buffers": Key(
            Struct(
                {
                    "size": Key(checked(_octets)),
                    "number": Key(integer(1, 1024)),
                    "busy": Key(checked(_octets)),
                }
            ),
            default={},
        ),
        "client_max_body": Key(checked(_octets)),
    }
)

_HEALTH = Struct(
    {
        "live": Key(_url_path),
        "ready": Key(_url_path),
        "startup": Key(_url_path),
        "timeout": Key(_time, default="5s"),
        "start_timeout": Key(_time, default="60s"),
    },
    renamed={"path": "write live, ready or startup", "liveness": "did you mean 'live'?"},
)
_LIMITS = Struct(
    {
        "memory": Key(_size),
        "cpu": Key(checked(quantities.cpu)),
        "files": Key(integer(64, 1048576)),
        "tasks": Key(integer(1, 4194304)),
    }
)
_DATABASE = Struct(
    {
        "name": Key(text),
        "user": Key(text),
        "extensions": Key(_texts, default=[]),
        "connection_limit": Key(integer(-1, 100000), default=-1),
    }
)


def _database(value: Any, key: str, faults: Faults) -> Any:
    return _DATABASE({"name": value} if isinstance(value, str) else value, key, faults)


_UPSTREAM = Struct(
    {
        "balance": Key(choice("round_robin", "least_conn", "ip_hash"), default="round_robin"),
        "keepalive": Key(integer(0, 10000), default=32),
        "max_fails": Key(integer(0, 1000), default=3),
        "fail_timeout": Key(_time, default="30s"),
        "weight": Key(integer(1, 1000), default=1),
    }
)
_LOG = Struct(
    {
        "stdout": Key(text),
        "stderr": Key(text),
        "rotate": Key(integer(1, 3650), default=14),
        "frequency": Key(choice("daily", "weekly", "monthly"), default="daily"),
    }
)
_BROKER = Struct({"vhost": Key(text), "user": Key(text)})


def _topic_name(value: object) -> str:
    if not isinstance(value, str) or not re.match(r"^[A-Za-z0-9._-]{1,249}$", value):
        raise ValueError("write a name of letters, digits, . _ and -, at most 249")
    return value


_OF_PM2 = Struct(
    {
        "cluster": Key(boolean, default=False),
        "processes": Key(integer(1, 256), default=1),
        "interpreter": Key(text),
        "wait_ready": Key(boolean, default=False),
    },
    renamed={
        "instances": "did you mean 'processes'?",
        "exec_mode": "write cluster: true or false",
        "script": "it is the service's command",
        "max_memory_restart": "it is the service's limits.memory",
        "kill_timeout": "it is the service's stop_seconds",
        "listen_timeout": "it is the service's health.start_timeout",
    },
)
_OF_REDIS = Struct(
    {
        "instance": Key(_name),
        "user": Key(text),
        "prefix": Key(text),
        "keys": Key(_texts),
        "channels": Key(_texts),
        "commands": Key(_texts, default=[]),
    }
)
_OF_KAFKA = Struct(
    {
        "user": Key(text),
        "produce": Key(list_of(checked(_topic_name)), default=[]),
        "consume": Key(list_of(checked(_topic_name)), default=[]),
        "group": Key(text),
    },
    renamed={"topics": "write produce or consume"},
)
_REDIS = Struct(
    {
        "instances": Key(
            map_of(
                Struct(
                    {
                        "memory": Key(_size),
                        "eviction": Key(
                            choice(
                                "noeviction",
                                "allkeys-lru",
                                "allkeys-lfu",
                                "allkeys-random",
                                "volatile-lru",
                                "volatile-lfu",
                                "volatile-random",
                                "volatile-ttl",
                            ),
                            default="noeviction",
                        ),
                        "aof": Key(boolean, default=True),
                        "save": Key(_texts),
                        "settings": Key(map_of(anything), default={}),
                    }
                ),
                quantities.slug,
            ),
            default={},
        ),
    }
)
_KAFKA = Struct(
    {
        "topics": Key(
            map_of(
                Struct(
                    {
                        "partitions": Key(integer(1, 100000), default=1),
                        "replication": Key(integer(0, 100), default=0),
                        "config": Key(map_of(_words), default={}),
                    }
                ),
                _topic_name,
            ),
            default={},
        ),
        "heap": Key(text),
        "settings": Key(map_of(anything), default={}),
    }
)

SERVICE_KEYS: dict[str, Key] = {
    "access": Key(_cidrs, default=[]),
    "after": Key(_texts, default=[]),
    "artifact": Key(_ARTIFACT),
    "broker": Key(_BROKER, default={}),
    "command": Key(text),
    "credentials": Key(map_of(text, _variable), default={}),
    "database": Key(_database),
    "description": Key(text),
    "env": Key(map_of(_words, _variable), default={}),
    "group": Key(text),
    "health": Key(_HEALTH, default={}),
    "home": Key(text),
    "hosts": Key(_hosts),
    "instances": Key(integer(1, 100), default=1),
    "kafka": Key(_OF_KAFKA, default={}),
    "kill_signal": Key(text, default="SIGTERM"),
    "limits": Key(_LIMITS, default={}),
    "log": Key(_LOG, default={}),
    "migrate": Key(text),
    "needs": Key(_texts, default=[]),
    "packages": Key(_texts, default=[]),
    "pm2": Key(_OF_PM2, default={}),
    "port": Key(_ports),
    "redis": Key(_OF_REDIS, default={}),
    "restart": Key(
        choice("always", "on-failure", "on-abnormal", "on-watchdog", "no"), default="always"
    ),
    "restart_seconds": Key(integer(0, 86400), default=5),
    "routes": Key(list_of(_ROUTE), default=[]),
    "runtime": Key(choice(*RUNTIMES), default="systemd"),
    "sandbox": Key(map_of(anything), default={}),
    "secrets": Key(_texts, default=[]),
    "spa": Key(boolean, default=True),
    "stop_seconds": Key(integer(1, 86400), default=30),
    "unit": Key(text),
    "upstream": Key(_UPSTREAM, default={}),
    "user": Key(text),
    "writable_paths": Key(_texts, default=[]),
}
_RENAMED = {
    "ports": "did you mean 'port'? (a list pins one port per instance)",
    "depends_on": "did you mean 'needs'?",
    "environment": "did you mean 'env'?",
    "replicas": "did you mean 'instances'?",
    "domain": "a domain stands under 'routes'",
    "memory": "it stands under 'limits'",
}
_SERVICE = Struct(SERVICE_KEYS, renamed=_RENAMED)

_SECRET = Struct(
    {
        "kind": Key(choice("password", "hex", "base64", "given"), default="password"),
        "length": Key(integer(8, 1024), default=32),
        "bits": Key(integer(64, 8192), default=256),
        "alphabet": Key(text),
        "value": Key(anything),
    }
)
_REPOSITORY = Struct(
    {
        "name": Key(_name, required=True),
        "type": Key(choice("posix", "s3"), required=True),
        "path": Key(_path),
        "endpoint": Key(text),
        "port": Key(_port),
        "bucket": Key(text),
        "region": Key(text, default="us-east-1"),
        "uri_style": Key(choice("host", "path"), default="host"),
        "verify_tls": Key(boolean, default=True),
        "ca_file": Key(_path),
        "access_key": Key(text),
        "secret_key": Key(text),
        "retention_days": Key(integer(1, 3650)),
        "encrypted": Key(boolean, default=False),
    }
)

_TOP = Struct(
    {
        "name": Key(_name, required=True),
        "env": Key(_name, required=True),
        "domain": Key(_domain),
        "ports": Key(
            Struct(
                {
                    "range": Key(checked(quantities.port_range), default=(20000, 29999)),
                    "reserved": Key(list_of(_port), default=[]),
                    "components": Key(map_of(_port), default={}),
                    "lock": Key(text),
                }
            ),
            default=None,
        ),
        "access": Key(map_of(_cidrs), default={}),
        "service_defaults": Key(anything, default={}),
        "services": Key(anything, default={}),
        "secrets": Key(map_of(_SECRET, _secret_name), default={}),
        "secrets_file": Key(text),
        "rate_limits": Key(
            map_of(
                Struct(
                    {
                        "rate": Key(checked(quantities.rate), required=True),
                        "key": Key(text, default="$binary_remote_addr"),
                        "size": Key(checked(_octets), default="10m"),
                    }
                ),
                quantities.slug,
            ),
            default={},
        ),
        "tls": Key(
            Struct(
                {
                    "provider": Key(choice("platform", "files", "none"), default="platform"),
                    "directory": Key(text),
                    "days": Key(integer(1, 825), default=90),
                    "renew_before": Key(integer(1, 400), default=30),
                    "alert_days": Key(integer(1, 400), default=14),
                }
            ),
            default=None,
        ),
        "backup": Key(
            Struct(
                {
                    "enabled": Key(boolean, default=True),
                    "schedule": Key(
                        Struct(
                            {
                                "full": Key(checked(_calendar)),
                                "diff": Key(checked(_calendar)),
                                "check": Key(checked(_calendar)),
                                "restore_check": Key(checked(_calendar)),
                            }
                        ),
                        default={},
                    ),
                    "retention_days": Key(integer(1, 3650), default=30),
                    "repositories": Key(list_of(_REPOSITORY), default=[]),
                }
            ),
            default=None,
        ),
        "redis": Key(_REDIS, default=None),
        "kafka": Key(_KAFKA, default=None),
        "probes": Key(list_of(anything), default=[]),
    },
    renamed={
        "environment": "did you mean 'platform_env'?",
        "service": "did you mean 'platform_services'?",
        "firewall": "did you mean 'platform_access'?",
    },
)
TOP_KEYS = tuple(sorted(_TOP.keys))


def redis_listener(instance: str) -> str:
    """The listener of an instance of Redis."""
    return "redis" if instance == MAIN_REDIS else f"redis_{instance}"


def redis_listeners(options: Mapping[str, Any]) -> dict[str, int | None]:
    """The listeners of Redis, with their ports; none for those whose port the ledger gives out."""
    return {
        redis_listener(name): COMPONENT_PORTS["redis"]["redis"] if name == MAIN_REDIS else None
        for name in options["redis"]["instances"]
    }


@dataclass(frozen=True)
class Route:
    """A domain and path at the edge that leads to a service."""

    domain: str
    path: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Service:
    """A service as the user wrote it, defaults laid under; placeholders are not filled in yet."""

    name: str
    options: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, key: str) -> Any:
        return self.options[key]

    @property
    def listens(self) -> bool:
        """Whether the service has a port of its own."""
        return bool(self.options["runtime"] != "static" and self.options["port"] != ())


@dataclass(frozen=True)
class Catalog:
    """Everything that the user said, checked key by key."""

    name: str
    env: str
    domain: str | None
    options: Mapping[str, Any]
    services: Mapping[str, Service]

    @property
    def estate(self) -> str:
        """What tells this platform and environment apart from others on the same host."""
        return f"{self.name}-{self.env}"

    def listeners(self, component: str) -> dict[str, int | None]:
        """What a component listens on, with the port where it has one of its own."""
        if component == "redis":
            return redis_listeners(self.options)
        return {**COMPONENT_PORTS[component]}


def merged(under: Any, over: Any) -> Any:
    """*over* laid upon *under*: mappings key by key, everything else replaced; None removes."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    result = dict(under)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif key in result:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def read_catalog(variables: Mapping[str, Any], faults: Faults) -> Catalog | None:
    """The catalog in the `platform_*` variables of an inventory.

    Layers (`platform_layer_<name>`) are laid over in the order of their names: each holds keys
    without the prefix and changes just what it names.
    """
    raw: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    for name, value in variables.items():
        if name in HOST_VARIABLES:
            continue
        if name.startswith(LAYER):
            layers[name] = value
        elif name.startswith(PREFIX):
            raw[name[len(PREFIX) :]] = value
    for name in sorted(layers):
        if not isinstance(layers[name], dict):
            faults.add(name, layers[name], "write a mapping of keys without the platform_ prefix")
            continue
        raw = merged(raw, layers[name])

    prefixed = Struct(
        {PREFIX + key: spec for key, spec in _TOP.keys.items()},
        {PREFIX + key: advice for key, advice in _TOP.renamed.items()},
    )
    read = prefixed({PREFIX + key: value for key, value in raw.items()}, "", faults)
    top = {key[len(PREFIX) :]: value for key, value in read.items()}
    for section in ("ports", "tls", "backup", "redis", "kafka"):
        if top[section] is None:
            spec = _TOP.keys[section].read
            top[section] = spec({}, PREFIX + section, Faults())
    if not top["redis"]["instances"]:
        top["redis"] = _REDIS({"instances": {MAIN_REDIS: {}}}, "", Faults())
    more = redis_listeners(top)
    for listener in top["access"]:
        service_names = raw.get("services")
        known = (*LISTENERS, *more, *(service_names if isinstance(service_names, dict) else ()))
        if listener not in known and listener != "http":
            faults.add(
                f"platform_access.{listener}",
                MISSING,
                "is no listener; " + nearest(listener, known),
            )
    components = {name for ports in COMPONENT_PORTS.values() for name in ports}
    components.update(more, *PRIVATE_PORTS.values())
    for listener in top["ports"]["components"]:
        if listener not in components | {"ssh"}:
            faults.add(
                f"platform_ports.components.{listener}",
                MISSING,
                "is no component's port; " + nearest(listener, components),
            )

    services = _services(top["service_defaults"], top["services"], faults)
    _check_secrets(top["secrets"], faults)
    if top["name"] is None or top["env"] is None:
        return None
    return Catalog(top["name"], top["env"], top["domain"], top, services)


def _services(defaults: Any, services: Any, faults: Faults) -> dict[str, Service]:
    if not isinstance(defaults, dict):
        faults.add("platform_service_defaults", defaults, "write a mapping")
        defaults = {}
    else:
        # Read once for its faults, so that they are named where they stand and only there.
        _SERVICE(defaults, "platform_service_defaults", faults)
    if not isinstance(services, dict):
        faults.add("platform_services", services, "write a mapping of services by name")
        return {}
    result = {}
    for name, given in services.items():
        key = f"platform_services.{name}"
        try:
            quantities.slug(name)
        except ValueError as error:
            faults.add(key, MISSING, f"is not a safe name: {error}")
            continue
        if name in (*COMPONENT_PORTS, *PRIVATE_PORTS, *LISTENERS):
            faults.add(key, MISSING, "is the name of a component; give the service another")
            continue
        if given is None:
            given = {}
        if not isinstance(given, dict):
            faults.add(key, given, "write a mapping")
            continue
        of_this = Faults()
        options = _SERVICE(given, key, of_this)
        if defaults and not of_this:
            options = _SERVICE(_with_defaults(defaults, given), key, Faults())
        faults.found.extend(of_this.found)
        service = Service(str(name), options, frozenset(given))
        if not of_this:
            _check_service(service, key, faults)
        result[str(name)] = service
    return result


def _with_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Defaults under a service; those of an application do not reach a static site."""
    if given.get("runtime") == "static" and defaults.get("runtime", "systemd") != "static":
        shared = ("hosts", "artifact", "routes", "user", "group")
        defaults = {key: value for key, value in defaults.items() if key in shared}
    result: dict[str, Any] = merged(defaults, given)
    if isinstance(given.get("artifact"), dict):
        result["artifact"] = given["artifact"]
    return result


def _check_service(service: Service, key: str, faults: Faults) -> None:
    """What must hold between the keys of one service."""
    static = service["runtime"] == "static"
    if not service["hosts"]:
        faults.add(f"{key}.hosts", MISSING, "is required and missing; name a group or a host")
    if static:
        for name in ("command", "port", "needs", "migrate", "secrets"):
            if name in service.given and service[name]:
                faults.add(f"{key}.{name}", MISSING, "has no meaning for runtime static")
        if not service["routes"]:
            faults.add(f"{key}.routes", MISSING, "a static site is reached by a route: add one")
    elif service["command"] is None:
        faults.add(f"{key}.command", MISSING, "is required and missing")
    artifact = service["artifact"]
    if artifact is None:
        if static:
            faults.add(f"{key}.artifact", MISSING, "is required and missing")
    else:
        sources = [name for name in ("path", "url", "git") if artifact[name]]
        if len(sources) != 1:
            faults.add(
                f"{key}.artifact",
                " and ".join(sources) or MISSING,
                "name exactly one source: path, url or git",
            )
        if artifact["url"] and not re.match(
            r"^sha(256|512):[0-9a-f]{64,128}$", artifact["checksum"] or ""
        ):
            faults.add(
                f"{key}.artifact.checksum",
                artifact["checksum"] or MISSING,
                "a url needs a checksum like sha256:<64 hex digits>",
            )
        if artifact["git"] and not artifact["version"]:
            faults.add(
                f"{key}.artifact.version",
                MISSING,
                "git needs the version to release: a tag, branch or commit",
            )
    port = service["port"]
    if port and len(port) != service["instances"]:
        faults.add(
            f"{key}.port",
            list(port),
            f"pins {len(port)} ports for {service['instances']} instances per host; "
            "pin as many as there are instances, or none",
        )
    if service["routes"] and not static and port == ():
        faults.add(f"{key}.port", "none", "a service with routes needs a port")
    command = service["command"] or ""
    if service["runtime"] == "pm2":
        _check_pm2(service, key, faults)
    elif service["pm2"]:
        faults.add(f"{key}.pm2", MISSING, "has a meaning for runtime pm2 only")
    elif not static and service["command"] is not None and not command.startswith(("/", "{")):
        faults.add(f"{key}.command", command, "start with the absolute path of the program")


def _check_pm2(service: Service, key: str, faults: Faults) -> None:
    """What PM2 cannot do, and what it does in another way."""
    command = service["command"] or ""
    if command.startswith("/"):
        faults.add(f"{key}.command", command, "write the script's path in the release")
    if service["instances"] != 1:
        faults.add(
            f"{key}.instances",
            service["instances"],
            "PM2 runs several processes behind one port: write pm2.cluster and pm2.processes",
        )
    if service["pm2"].get("processes", 1) > 1 and service.listens and not service["pm2"]["cluster"]:
        faults.add(
            f"{key}.pm2.processes",
            service["pm2"]["processes"],
            "processes that share a port need pm2.cluster: true",
        )
    if service["pm2"].get("cluster") and service["pm2"]["interpreter"]:
        faults.add(
            f"{key}.pm2.interpreter", service["pm2"]["interpreter"], "a cluster is of Node.js"
        )
    for name in ("credentials", "writable_paths"):
        if name in service.given and service[name]:
            faults.add(f"{key}.{name}", MISSING, "has no meaning for runtime pm2")
    for name, value in service["limits"].items():
        if value is not None and name != "memory":
            faults.add(
                f"{key}.limits.{name}", value, "PM2 limits memory only, of each process by itself"
            )


def _check_secrets(secrets: Mapping[str, Any], faults: Faults) -> None:
    for name, spec in secrets.items():
        if not isinstance(spec, dict):
            continue
        value = spec.get("value")
        if spec.get("kind") == "given" and not value:
            faults.add(
                f"platform_secrets.{name}.value",
                MISSING,
                "is required for kind given: provide it, best from a vaulted variable",
            )
        if value is not None and not isinstance(value, str):
            faults.add(f"platform_secrets.{name}.value", MISSING, "write a string")
        if spec.get("kind") == "hex" and (spec.get("bits") or 0) % 8:
            faults.add(f"platform_secrets.{name}.bits", spec["bits"], "write a multiple of 8")
