# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wiring: what the plan says to each role on each host, in the roles' own variables.

The roles know nothing of the platform; the playbooks hand them these values. Secrets stand in
them as `{secret:<name>}` and are filled in by the `with_secrets` filter on their way to a host.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.berth.platform.plugins.module_utils import (
    quantities,
    wiring_kafka,
    wiring_pm2,
    wiring_redis,
)
from ansible_collections.berth.platform.plugins.module_utils.catalog import (
    NEEDABLE,
    redis_listener,
)
from ansible_collections.berth.platform.plugins.module_utils.faults import Faults
from ansible_collections.berth.platform.plugins.module_utils.placeholders import fill
from ansible_collections.berth.platform.plugins.module_utils.plan import (
    LOOPBACK,
    Instance,
    Placed,
    Plan,
    host_values,
    known_secret,
    network,
    routes,
)

BACKUP_PROGRAM = "/usr/local/lib/berth/berth-backup"
TLS_DIRECTORY = "/etc/berth/tls"
# systemd.time(7); the catalog's `platform_backup.schedule` says otherwise.
SCHEDULE = {
    "full": "Sun *-*-* 02:00:00",
    "diff": "Mon..Sat *-*-* 02:00:00",
    "check": "*-*-* 04:00:00",
    "restore_check": "Wed *-*-* 03:00:00",
}
_LOCAL_UNITS = {
    "postgresql": "postgresql.service",
    "rabbitmq": "rabbitmq-server.service",
    "object_store": "object-store.service",
    "kafka": wiring_kafka.UNIT,
}
# The roles' own lists, so that one call of apt serves them all.
COMPONENT_PACKAGES = {
    "edge": ["logrotate", "nginx"],
    "rabbitmq": ["rabbitmq-server"],
    "redis": ["redis-server"],
}
# Whose process may hold a component's port.
_HOLDERS: dict[str, dict[str, list[str]]] = {
    "http": {"units": ["nginx.service"]},
    "https": {"units": ["nginx.service"]},
    "postgresql": {"processes": ["postgres"]},
    "rabbitmq": {"units": ["rabbitmq-server.service"]},
    "rabbitmq_management": {"units": ["rabbitmq-server.service"]},
    "rabbitmq_distribution": {"units": ["rabbitmq-server.service"]},
    # A socket that systemd opens for a service is held by systemd itself.
    "rabbitmq_epmd": {"processes": ["epmd", "systemd"]},
    "object_store": {"units": ["object-store.service"]},
    "kafka": {"units": [wiring_kafka.UNIT]},
    "kafka_controller": {"units": [wiring_kafka.UNIT]},
    "kafka_jmx_exporter": {"units": [wiring_kafka.UNIT]},
    "ssh": {"processes": ["sshd", "systemd"]},
}


def wire(plan: Plan, faults: Faults) -> dict[str, dict[str, Any]]:
    """The variables of every role on every host, by host name."""
    services = {name: _service(plan, each, faults) for name, each in plan.placed.items()}
    result = {}
    for host in plan.inventory.hosts:
        components = [name for name in ("edge", *NEEDABLE) if host in plan.component(name)]
        apps = [each for name in plan.placed for each in services[name] if each["host"] == host]
        sites = _static_sites(plan, host)
        result[host] = {
            "address": plan.address(host),
            "components": components,
            "base": {
                "hosts_entries": _hosts_entries(plan),
                "packages": _packages(components, [each["role"] for each in apps]),
            },
            "firewall": {"rules": _firewall(plan, host)},
            "tls": {"certificates": _certificates(plan, host)},
            "postgresql": _postgresql(plan, host) if "postgresql" in components else {},
            "rabbitmq": _rabbitmq(plan, host) if "rabbitmq" in components else {},
            "object_store": _object_store(plan, host) if "object_store" in components else {},
            "redis": wiring_redis.variables(plan, host) if "redis" in components else {},
            "kafka": wiring_kafka.variables(plan, host) if "kafka" in components else {},
            "backup": _backup(plan, host) if "postgresql" in components else {},
            "app": {"scope": plan.catalog.estate, "services": [each["role"] for each in apps]},
            "pm2": _pm2(plan, apps),
            "static_site": {"sites": sites},
            "nginx": _nginx(plan, faults) if "edge" in components else {},
            "listeners": {"planned": _planned_listeners(plan, host)},
            "database_units": [
                unit
                for each in plan.placed.values()
                if "postgresql" in each.service["needs"]
                for unit in _units(each, host)
            ],
            "health": {"probes": _probes(plan, host, components)},
        }
    return result


def _units(each: Placed, host: str) -> list[str]:
    """The units that run a service's instances on a host."""
    if each.service["runtime"] == "pm2":
        return [wiring_pm2.unit(each.user)]
    return [f"{instance.unit}.service" for instance in each.on(host)]


def _pm2(plan: Plan, apps: list[dict[str, Any]]) -> dict[str, Any]:
    """The applications of PM2 on a host, and their users."""
    found = [
        (plan.placed[each["role"]["name"]], each["role"])
        for each in apps
        if each["role"].get("runtime") == "pm2"
    ]
    if not found:
        return {}
    applications = [(each, wiring_pm2.application(each, role)) for each, role in found]
    return {
        "apps": [application for _each, application in applications],
        "users": wiring_pm2.users(applications),
    }


def _hosts_entries(plan: Plan) -> list[dict[str, Any]]:
    """Every host by name and by its internal name."""
    return [
        {"address": host.address or LOOPBACK, "names": [f"{host.name}.internal", host.name]}
        for host in plan.inventory.hosts.values()
    ]


def _packages(components: list[str], apps: list[dict[str, Any]]) -> list[str]:
    """What the roles of a host will install, but for PostgreSQL's, whose version the host says."""
    names = {"ca-certificates", "nftables"}
    for component in components:
        names.update(COMPONENT_PACKAGES.get(component, ()))
    for app in apps:
        names.update(app.get("packages", ()))
        if "git" in app.get("artifact", {}):
            names.add("git")
        if app.get("runtime") == "pm2":
            names.update(wiring_pm2.PACKAGES)
        if "log" in app:
            names.add("logrotate")
    return sorted(names)


def _firewall(plan: Plan, host: str) -> list[dict[str, Any]]:
    return [
        {
            "port": rule.port,
            "protocol": rule.protocol,
            "sources": list(rule.sources),
            "comment": ", ".join(rule.why)[:120],
        }
        for rule in plan.rules
        if rule.host == host
    ]


def domains(plan: Plan) -> list[str]:
    """Every domain of the edge."""
    sink = Faults()
    found = {route["domain"] for each in plan.placed.values() for route in routes(plan, each, sink)}
    return sorted(found)


def _certificates(plan: Plan, host: str) -> list[dict[str, Any]]:
    """A certificate per domain at the edge, and one for the object store's host."""
    tls = plan.catalog.options["tls"]
    result: list[dict[str, Any]] = []
    if host in plan.component("edge") and tls["provider"] != "none":
        for domain in domains(plan):
            entry = {
                "name": domain,
                "domains": [domain],
                "provider": tls["provider"],
                "days": tls["days"],
                "renew_before": tls["renew_before"],
            }
            if tls["provider"] == "files":
                directory = tls["directory"] or "tls"
                entry["certificate_file"] = f"{directory}/{domain}/fullchain.pem"
                entry["key_file"] = f"{directory}/{domain}/privkey.pem"
            result.append(entry)
    if host in plan.component("object_store"):
        result.append(
            {
                "name": "object-store",
                # Whose marker says that it has to be loaded.
                "pending": "object-store",
                "domains": [f"{host}.internal", host, "localhost"],
                "addresses": sorted({plan.address(host), LOOPBACK}),
                "provider": "platform",
                "days": tls["days"],
                "renew_before": tls["renew_before"],
            }
        )
    return result


def _service(plan: Plan, each: Placed, faults: Faults) -> list[dict[str, Any]]:
    """The app role's entries: one per host, with its instances."""
    result = []
    for host in each.hosts if each.service["runtime"] != "static" else ():
        instances = each.on(host)
        values = host_values(plan, each, instances[0])
        role: dict[str, Any] = {
            "name": each.name,
            # The role's default is systemd.
            **({"runtime": "pm2"} if each.service["runtime"] == "pm2" else {}),
            "unit": each.unit,
            "user": each.user,
            "group": each.group,
            "home": each.home,
            "instances": [_instance(plan, each, instance, faults) for instance in instances],
        }
        service = each.service
        plain = fill(
            {
                "description": service["description"] or "{Service} of {platform} ({env})",
                "artifact": {
                    key: value for key, value in (service["artifact"] or {}).items() if value
                }
                or None,
                "credentials": dict(service["credentials"]),
                "limits": {k: v for k, v in service["limits"].items() if v is not None},
                "log": {
                    k: service["log"][k] for k in ("stdout", "stderr") if service["log"].get(k)
                },
                "migrate": service["migrate"],
                "packages": service["packages"],
                "sandbox": service["sandbox"],
                "writable_paths": service["writable_paths"],
                "after": service["after"],
            },
            values,
            each.key,
            faults,
            known_secret(plan),
        )
        local = [
            _local_unit(each, need) if need in NEEDABLE else _units(plan.placed[need], host)[0]
            for need in service["needs"]
            if (
                plan.provider(need, host) == host
                if need in NEEDABLE
                else plan.placed[need].on(host)
            )
        ]
        role.update({key: value for key, value in plain.items() if value not in (None, {}, [])})
        if plain["migrate"]:
            # Once for all of them, by the first.
            role["migrate_hosts"] = list(each.hosts)
        role["after"] = [*plain["after"], *local]
        role["wants"] = local
        role["restart"] = service["restart"]
        role["restart_seconds"] = service["restart_seconds"]
        role["kill_signal"] = service["kill_signal"]
        role["stop_seconds"] = service["stop_seconds"]
        if role.get("log"):
            role["log_rotate"] = {
                "frequency": service["log"]["frequency"],
                "rotate": service["log"]["rotate"],
            }
        if service["health"].get("start_timeout"):
            role["start_timeout"] = int(quantities.seconds(service["health"]["start_timeout"]))
        result.append({"host": host, "role": role})
    return result


def _local_unit(each: Placed, need: str) -> str:
    """The unit of a component on the same host."""
    return wiring_redis.unit(each.redis) if need == "redis" else _LOCAL_UNITS[need]


def _instance(plan: Plan, each: Placed, instance: Instance, faults: Faults) -> dict[str, Any]:
    """One instance: its own command, environment and health addresses."""
    values = host_values(plan, each, instance)
    service = each.service
    needs: dict[str, str] = {}
    for need, variable in (
        ("postgresql", "DATABASE_URL"),
        ("rabbitmq", "AMQP_URL"),
        ("object_store", "S3_URL"),
        ("redis", "REDIS_URL"),
    ):
        if need in service["needs"]:
            needs[variable] = values[f"{need}.url"]
    if "redis" in service["needs"]:
        needs["REDIS_PREFIX"] = values["redis.prefix"]
    if "kafka" in service["needs"]:
        needs["KAFKA_BROKERS"] = values["kafka.brokers"]
        needs["KAFKA_USER"] = values["kafka.user"]
        needs["KAFKA_PASSWORD"] = values["kafka.password"]
        needs["KAFKA_GROUP"] = values["kafka.group"]
    if "object_store" in service["needs"]:
        needs["S3_BUCKET"] = values["object_store.bucket"]
        needs["AWS_ACCESS_KEY_ID"] = values["object_store.access_key"]
        needs["AWS_SECRET_ACCESS_KEY"] = values["object_store.secret_key"]
    for need in service["needs"]:
        if need not in NEEDABLE:
            needs[f"{need.upper().replace('-', '_')}_URL"] = values[f"{need}.url"]
    for name in service["secrets"]:
        needs[name.upper().replace("-", "_")] = f"{{secret:{name}}}"
    if instance.port is not None:
        needs["PORT"] = str(instance.port)
        needs["BIND"] = instance.bind
    environment = {
        **needs,
        **fill(service["env"], values, f"{each.key}.env", faults, known_secret(plan)),
    }
    hidden = {name: value for name, value in environment.items() if "{secret:" in value}
    health = {
        kind: f"http://{instance.bind}:{instance.port}{service['health'][kind]}"
        for kind in ("live", "ready", "startup")
        if instance.port is not None and service["health"].get(kind)
    }
    return {
        "name": str(instance.number),
        "unit": instance.unit,
        "command": fill(service["command"], values, f"{each.key}.command", faults),
        "environment": {k: v for k, v in environment.items() if k not in hidden},
        "secret_environment": hidden,
        "bind": instance.bind,
        "port": instance.port,
        "standby_port": instance.standby_port,
        "health": health,
    }


def _static_sites(plan: Plan, host: str) -> list[dict[str, Any]]:
    """The static sites that a host serves."""
    result = []
    for each in plan.placed.values():
        if each.service["runtime"] == "static" and host in each.hosts:
            artifact = {k: v for k, v in each.service["artifact"].items() if v}
            result.append(
                {
                    "name": each.unit,
                    "root": f"{each.home}/build",
                    "releases": f"{each.home}/releases",
                    "artifact": artifact,
                    **({"version": artifact["version"]} if artifact.get("version") else {}),
                }
            )
    return result


def _postgresql(plan: Plan, host: str) -> dict[str, Any]:
    """Databases, users and who may connect from where."""
    databases, users, hba = [], [], []
    access = plan.catalog.options["access"].get("postgresql", [])
    for each in plan.placed.values():
        if "postgresql" not in each.service["needs"]:
            continue
        name, user = each.values["postgresql.database"], each.values["postgresql.user"]
        given = each.service["database"] or {}
        databases.append({"name": name, "owner": user, "extensions": given.get("extensions") or []})
        users.append(
            {
                "name": user,
                "password": f"{{secret:postgresql-{each.name}}}",
                "connection_limit": given.get("connection_limit", -1),
                "databases": [{"name": name, "privileges": "owner"}],
            }
        )
        sources = {network(plan.reach(host, consumer)) for consumer in each.hosts}
        for source in [*sorted(sources | {f"{LOOPBACK}/32"}), *access]:
            for address in ("0.0.0.0/0", "::/0") if source == "any" else (source,):
                hba.append(
                    {
                        "type": "host",
                        "database": name,
                        "user": user,
                        "address": address,
                        "method": "scram-sha-256",
                    }
                )
    backup = _backup(plan, host)
    # A command that is not found ends the archiver, which is started anew a minute later; one that
    # fails is tried again as soon as there is more to archive.
    program = "test -x /usr/bin/pgbackrest && pgbackrest"
    archive = (
        {"enabled": True, "command": f"{program} --stanza={backup['stanza']} archive-push %p"}
        if backup
        else {}
    )
    return {
        "port": plan.component_ports["postgresql"],
        "listen_addresses": plan.listen_addresses(host, "postgresql"),
        "databases": databases,
        "users": users,
        "hba": hba,
        "archive": archive,
        # A server that stops still archives its last WAL.
        "after": [
            _LOCAL_UNITS["object_store"]
            for each in backup.get("repositories", ())
            if each.get("endpoint") == f"{host}.internal"
        ],
    }


def _rabbitmq(plan: Plan, host: str) -> dict[str, Any]:
    """A virtual host and a user for each service."""
    ports = plan.component_ports
    vhosts: list[dict[str, str]] = []
    users: list[dict[str, Any]] = []
    for each in plan.placed.values():
        if "rabbitmq" not in each.service["needs"]:
            continue
        vhost = each.values["rabbitmq.vhost"]
        if vhost not in [known["name"] for known in vhosts]:
            vhosts.append({"name": vhost})
        users.append(
            {
                "name": each.values["rabbitmq.user"],
                "password": f"{{secret:rabbitmq-{each.name}}}",
                "tags": [],
                "permissions": [{"vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}],
            }
        )
    vhosts.append({"name": "/"})
    users.append(
        {
            "name": "berth-probe",
            "password": "{secret:rabbitmq-probe}",
            "tags": ["monitoring"],
            "permissions": [{"vhost": "/", "configure": "^$", "write": "^$", "read": "^$"}],
        }
    )
    management = plan.listen_addresses(host, "rabbitmq_management")[-1]
    return {
        "vhosts": vhosts,
        "users": users,
        "listeners": [f"{a}:{ports['rabbitmq']}" for a in plan.listen_addresses(host, "rabbitmq")],
        "management_listener": {"address": management, "port": ports["rabbitmq_management"]},
        "erlang_cookie": "{secret:rabbitmq-cookie}",
        "distribution_port": ports["rabbitmq_distribution"],
    }


def _object_store(plan: Plan, host: str) -> dict[str, Any]:
    """A bucket and a key for each service, and one for backups."""
    buckets, users = [], []
    for each in plan.placed.values():
        if "object_store" in each.service["needs"]:
            bucket = each.values["object_store.bucket"]
            buckets.append({"name": bucket})
            users.append(
                {
                    "access_key": each.values["object_store.access_key"],
                    "secret_key": f"{{secret:object-store-{each.name}}}",
                    "buckets": [bucket],
                }
            )
    backup_buckets = [
        each["bucket"] or "backup"
        for each in plan.catalog.options["backup"]["repositories"]
        if each["endpoint"] == "object_store"
    ]
    if backup_buckets:
        buckets.extend({"name": name} for name in backup_buckets)
        users.append(
            {
                "access_key": "backup",
                "secret_key": "{secret:object-store-backup}",
                "buckets": backup_buckets,
            }
        )
    # One listener serves this host and the others, under the one name that its certificate has.
    return {
        "address": plan.address(host),
        "port": plan.component_ports["object_store"],
        "access_key": "root",
        "secret_key": "{secret:object-store-root}",
        "buckets": buckets,
        "users": users,
        "certificate": f"{TLS_DIRECTORY}/object-store",
    }


def _backup(plan: Plan, host: str) -> dict[str, Any]:
    """The repositories of the database's backups."""
    backup = plan.catalog.options["backup"]
    if not backup["enabled"] or not backup["repositories"]:
        return {}
    repositories = []
    for each in backup["repositories"]:
        entry: dict[str, Any] = {
            "name": each["name"],
            "type": each["type"],
            "path": each["path"]
            or ("/var/lib/pgbackrest" if each["type"] == "posix" else f"/{plan.catalog.estate}"),
            "retention_full": each["retention_days"] or backup["retention_days"],
            "retention_full_type": "time",
        }
        if each["type"] == "s3":
            entry.update(
                {
                    key: each[key]
                    for key in (
                        "endpoint",
                        "bucket",
                        "region",
                        "uri_style",
                        "verify_tls",
                        "access_key",
                        "secret_key",
                    )
                }
            )
            entry["port"] = each["port"] or 443
            if each["ca_file"]:
                entry["ca_file"] = each["ca_file"]
            if each["endpoint"] == "object_store":
                store = plan.provider("object_store", host)
                entry.update(
                    endpoint=f"{store}.internal",
                    port=plan.component_ports["object_store"],
                    bucket=each["bucket"] or "backup",
                    uri_style="path",
                    access_key="backup",
                    secret_key="{secret:object-store-backup}",
                    ca_file="/etc/ssl/certs/ca-certificates.crt",
                )
        if each["encrypted"]:
            entry["cipher_pass"] = f"{{secret:backup-cipher-{each['name']}}}"
        repositories.append(entry)
    return {
        "stanza": plan.catalog.estate,
        "port": plan.component_ports["postgresql"],
        "repositories": repositories,
        "schedule": _schedule(backup["schedule"]),
    }


def _schedule(given: dict[str, str | None]) -> dict[str, str]:
    """When backups run: a given full one without a differential is all there is."""
    chosen = {name: when for name, when in given.items() if when}
    if "full" in chosen:
        chosen.setdefault("diff", "")
    return {**SCHEDULE, **chosen}


def _nginx(plan: Plan, faults: Faults) -> dict[str, Any]:
    """Upstreams, sites and rate limits of the edge; alike on every edge host."""
    upstreams = []
    sites: dict[str, dict[str, Any]] = {}
    tls = plan.catalog.options["tls"]["provider"] != "none"
    for each in plan.placed.values():
        own = routes(plan, each, faults)
        if not own:
            continue
        static = each.service["runtime"] == "static"
        if not static:
            upstreams.append(_upstream(each))
        for route in own:
            site = sites.setdefault(
                route["domain"],
                {
                    "name": route["domain"],
                    "domains": [route["domain"]],
                    "log_name": each.unit,
                    **({"certificate": route["domain"]} if tls else {}),
                    "redirect_http": tls,
                    "gzip": static,
                    "locations": [],
                },
            )
            if route["client_max_body"]:
                site["client_max_body"] = route["client_max_body"]
            site["locations"].append(_location(each, route))
            for path in _quiet_paths(each, route, own) if not static else ():
                site["locations"].append({"path": path, "upstream": each.unit, "log": False})
            if static:
                site["gzip"] = True
    limits = [
        {"name": name, "rate": each["rate"], "key": each["key"], "size": each["size"]}
        for name, each in plan.catalog.options["rate_limits"].items()
    ]
    return {"upstreams": upstreams, "sites": list(sites.values()), "rate_limits": limits}


def _upstream(each: Placed) -> dict[str, Any]:
    options = each.service["upstream"]
    servers = [
        {
            "address": f"{instance.bind}:{instance.port}",
            "weight": options.get("weight") or 1,
            "max_fails": 3 if options.get("max_fails") is None else options["max_fails"],
            "fail_timeout": options.get("fail_timeout") or "30s",
        }
        for instance in each.instances
    ]
    return {
        "name": each.unit,
        "balance": options.get("balance") or "round_robin",
        "keepalive": 32 if options.get("keepalive") is None else options["keepalive"],
        "servers": servers,
    }


def _quiet_paths(each: Placed, route: dict[str, Any], own: list[dict[str, Any]]) -> list[str]:
    """Health paths under a root route that no other route takes: served, but not logged."""
    if route["path"] != "/":
        return []
    taken = {other["path"] for other in own if other["domain"] == route["domain"]}
    paths = sorted(
        {
            path
            for kind in ("live", "ready", "startup")
            if (path := each.service["health"].get(kind))
        }
    )
    shortest = [p for p in paths if not any(p != q and p.startswith(f"{q}/") for q in paths)]
    return [path for path in shortest if path != "/" and path not in taken]


def _location(each: Placed, route: dict[str, Any]) -> dict[str, Any]:
    location: dict[str, Any] = {"path": route["path"], "log": route["log"]}
    if route["match"] != "prefix":
        location["match"] = route["match"]
    if each.service["runtime"] == "static":
        location["spa"] = each.service["spa"]
        build = f"{each.home}/build"
        if route["path"] == "/":
            location["root"] = build
        else:
            # The files are found without the path that they are under.
            location["alias"] = f"{build}/" if route["path"].endswith("/") else build
    else:
        location.update(upstream=each.unit, websocket=route["websocket"])
    if route["rate_limit"]:
        location["rate_limit"] = route["rate_limit"]
    if route["allow"]:
        location["allow"] = route["allow"]
    if route["headers"]:
        location["headers"] = route["headers"]
    for name in ("timeouts", "buffers"):
        chosen = {k: v for k, v in route[name].items() if v is not None}
        if chosen:
            location[name] = chosen
    return location


def _planned_listeners(plan: Plan, host: str) -> list[dict[str, Any]]:
    """Every planned port of a host with who may hold it: anyone else is a conflict."""
    result = []
    estate = plan.catalog.estate
    units = {
        f"{estate}/{instance.service}/{instance.number}": unit
        for each in plan.placed.values()
        for instance, unit in zip(each.on(host), _units(each, host), strict=False)
    }
    holders = dict(_HOLDERS)
    for name in plan.catalog.options["redis"]["instances"]:
        holders[redis_listener(name)] = {"units": [wiring_redis.unit(name)]}
    ledger = plan.allocation.ledger.get(host)
    for port, owner in sorted(ledger.ports.items()) if ledger else ():
        if not owner.startswith((f"{estate}/", "host/")):
            continue
        entry: dict[str, Any] = {"port": port, "protocol": "tcp", "owner": owner}
        listener = owner.removeprefix(f"{estate}/").removeprefix("host/")
        if listener in holders:
            entry.update(holders[listener])
        else:
            entry["units"] = [units.get(owner.rpartition("/")[0], "")]
        result.append(entry)
    return result


def _probes(plan: Plan, host: str, components: list[str]) -> list[dict[str, Any]]:
    """What must answer on a host: its components, its services, and the edge from outside in."""
    ports = plan.component_ports
    probes: list[dict[str, Any]] = []
    for each in plan.placed.values():
        timeout = quantities.seconds(each.service["health"].get("timeout") or "5s")
        for instance, unit in zip(each.on(host), _units(each, host), strict=False):
            probe = {
                "name": f"{unit.removesuffix('.service')} unit",
                "type": "systemd",
                "unit": unit,
            }
            # A daemon of PM2 runs several services.
            if probe not in probes:
                probes.append(probe)
            path = each.service["health"].get("ready") or each.service["health"].get("live")
            if instance.port is None:
                continue
            where = {"address": instance.bind, "port": instance.port, "timeout": timeout}
            if path:
                probes.append(
                    {
                        "name": f"{instance.unit} ready",
                        "type": "http",
                        "path": path,
                        "retries": 10,
                        "interval": 1,
                        **where,
                    }
                )
            else:
                probes.append(
                    {
                        "name": f"{instance.unit} port",
                        "type": "tcp",
                        "retries": 10,
                        "interval": 1,
                        **where,
                    }
                )
    if "postgresql" in components:
        for each in plan.placed.values():
            if "postgresql" in each.service["needs"]:
                probes.append(
                    {
                        "name": f"postgresql {each.values['postgresql.database']}",
                        "type": "postgresql",
                        "address": LOOPBACK,
                        "port": ports["postgresql"],
                        "database": each.values["postgresql.database"],
                        "user": each.values["postgresql.user"],
                        "password": f"{{secret:postgresql-{each.name}}}",
                        "retries": 3,
                    }
                )
        if not any("postgresql" in each.service["needs"] for each in plan.placed.values()):
            probes.append(
                {
                    "name": "postgresql",
                    "type": "postgresql",
                    "address": LOOPBACK,
                    "port": ports["postgresql"],
                    "retries": 3,
                }
            )
    if "postgresql" in components and _backup(plan, host):
        probes.append(
            {
                "name": "backups",
                "type": "command",
                "argv": [BACKUP_PROGRAM, "recent", "--wait=60"],
                "timeout": 90,
            }
        )
    if "rabbitmq" in components:
        probes.append(
            {
                "name": "rabbitmq",
                "type": "amqp",
                "address": LOOPBACK,
                "port": ports["rabbitmq"],
                "user": "berth-probe",
                "vhost": "/",
                "password": "{secret:rabbitmq-probe}",
                "retries": 5,
                "interval": 2,
            }
        )
        for each in plan.placed.values():
            if "rabbitmq" in each.service["needs"]:
                probes.append(
                    {
                        "name": f"rabbitmq {each.values['rabbitmq.vhost']}",
                        "type": "amqp",
                        "address": LOOPBACK,
                        "port": ports["rabbitmq"],
                        "user": each.values["rabbitmq.user"],
                        "vhost": each.values["rabbitmq.vhost"],
                        "password": f"{{secret:rabbitmq-{each.name}}}",
                        "retries": 3,
                    }
                )
    if "object_store" in components:
        store = {
            "address": plan.address(host),
            "port": ports["object_store"],
            "retries": 3,
            "ca_file": f"{TLS_DIRECTORY}/object-store/ca.pem",
        }
        alert = plan.catalog.options["tls"]["alert_days"]
        name = f"{host}.internal"
        probes += [
            {"name": "object store", "type": "https", "host": name, "path": "/.health", **store},
            {
                "name": "certificate object store",
                "type": "tls",
                "server_name": name,
                "days": alert,
                **store,
            },
        ]
    if "redis" in components:
        probes.extend(wiring_redis.probes(plan))
    if "kafka" in components:
        probes.extend(wiring_kafka.probes(plan, host))
    if "edge" in components:
        probes.extend(_edge_probes(plan))
    return probes


def _edge_probes(plan: Plan) -> list[dict[str, Any]]:
    """Every domain through the proxy, with its certificate."""
    tls = plan.catalog.options["tls"]
    port = plan.component_ports["http" if tls["provider"] == "none" else "https"]
    probes: list[dict[str, Any]] = []
    named: set[str] = set()
    for each in plan.placed.values():
        for route in routes(plan, each, Faults()):
            domain = route["domain"]
            trusted = (
                {"ca_file": f"{TLS_DIRECTORY}/{domain}/ca.pem"}
                if tls["provider"] == "platform"
                else {}
            )
            if domain not in named and tls["provider"] != "none":
                named.add(domain)
                probes.append(
                    {
                        "name": f"certificate {domain}",
                        "type": "tls",
                        "port": port,
                        "address": LOOPBACK,
                        "server_name": domain,
                        "days": tls["alert_days"],
                        **trusted,
                    }
                )
            if route["path"] != "/" or route["allow"]:
                continue
            path = each.service["health"].get("live") or "/"
            probes.append(
                {
                    "name": f"https {domain}" if tls["provider"] != "none" else f"http {domain}",
                    "type": "http" if tls["provider"] == "none" else "https",
                    "address": LOOPBACK,
                    "port": port,
                    "host": domain,
                    "path": path,
                    "retries": 5,
                    "interval": 1,
                    **trusted,
                }
            )
    return probes
