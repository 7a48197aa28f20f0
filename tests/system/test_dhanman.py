"""Every figure of Dhanman's document, on running hosts."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from harness import Host, System
from web import Edge

pytestmark = [pytest.mark.systems("dhanman/*"), pytest.mark.stage(60)]

NAMES = ["common", "community", "inventory", "payroll", "purchase", "sales"]
SECURITY = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-frame-options": "SAMEORIGIN",
    "x-content-type-options": "nosniff",
    "x-xss-protection": "1; mode=block",
}
GIB = 1024**3


def env(system: System) -> str:
    return "qa" if system.entry.name.endswith("/qa") else "prod"


def domain(system: System, name: str) -> str:
    return f"{'qa.' if env(system) == 'qa' else ''}{name}.dhanman.com"


def edge_host(system: System) -> Host:
    (name,) = system.planned("nginx")
    return system.host(name)


def database_host(system: System) -> Host:
    (name,) = system.planned("postgresql")
    return system.host(name)


@pytest.fixture
def edge(converged: System, tmp_path: Path) -> Edge:
    """The edge, as a browser that trusts the platform's authority sees it."""
    host = edge_host(converged)
    authority = tmp_path / "ca.pem"
    path = f"/etc/berth/tls/{domain(converged, 'app')}/ca.pem"
    authority.write_text(host.out(f"cat {path}"), encoding="ascii")
    return Edge(host.address, authority)


def settled(properties: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in properties.splitlines())


# ------------------------------------------------------------------------------ services


def test_ports_and_units_are_the_documents(converged: System) -> None:
    base = 5101 if env(converged) == "qa" else 5001
    found = {
        (service["name"], instance["unit"], instance["port"])
        for _host, service, instance in converged.services()
    }
    assert found == {
        (name, f"dhanman-{name}-{env(converged)}", base + number)
        for number, name in enumerate(NAMES)
    }
    copies = 3 if converged.entry.name == "dhanman/scale" else 1
    assert len(list(converged.services())) == 5 + copies


def test_units_have_the_documents_properties(converged: System) -> None:
    for host, service, instance in converged.services():
        unit, name = instance["unit"], service["name"]
        shown = settled(host.out(f"systemctl show {unit}"))
        log = f"/var/log/dhanman/{env(converged)}/{name}"
        expected = {
            "Description": f"Dhanman {name.capitalize()} - {env(converged).capitalize()}",
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "Restart": "always",
            "RestartUSec": "10s",
            "KillSignal": "2",
            "SyslogIdentifier": unit,
            "User": "www-data",
            "Group": "www-data",
            "LimitNOFILE": "65536",
            "MemoryMax": str(2 * GIB),
            "CPUQuotaPerSecUSec": "2s",
            "NRestarts": "0",
        }
        assert {key: shown[key] for key in expected} == expected, unit
        home = f"/var/www/{env(converged)}/dhanman-{name}"
        assert shown["WorkingDirectory"].startswith(home)
        after = set(shown["After"].split())
        assert "network.target" in after or "network-online.target" in after
        if converged.plan["hosts"][host.name]["components"]:
            assert {"postgresql.service", "rabbitmq-server.service"} <= after
        assert "multi-user.target" in shown["WantedBy"].split()

        # And what the process itself has of it.
        pid = shown["MainPID"]
        files = host.out(f"grep 'Max open files' /proc/{pid}/limits").split()[3]
        ceiling = host.out("ulimit -Hn")
        assert int(files) == min(65536, int(ceiling)), f"{unit} may open {files} files"
        assert host.out(f"stat -c %U:%G /proc/{pid}") == "www-data:www-data"
        lines = host.out(f"cat /proc/{pid}/environ").split("\0")
        environment = dict(line.partition("=")[::2] for line in lines)
        assert environment["ASPNETCORE_ENVIRONMENT"] == (
            "QA" if env(converged) == "qa" else "Production"
        )
        assert environment["DOTNET_PRINT_TELEMETRY_MESSAGE"] == "false"
        connection = dict(
            part.partition("=")[::2]
            for part in environment["ConnectionStrings__DefaultConnection"].split(";")
        )
        assert connection["Database"] == f"{env(converged)}-dhanman-{name}"
        assert connection["Maximum Pool Size"] == "100"
        assert connection["Minimum Pool Size"] == "10"
        assert connection["Connection Idle Lifetime"] == "300"
        assert connection["Connection Pruning Interval"] == "10"
        assert host.out(f"readlink /proc/{pid}/fd/1 /proc/{pid}/fd/2").splitlines() == [
            f"{log}.log",
            f"{log}.error.log",
        ]
        assert "listening" in host.out(f"cat {log}.log")


def test_limits_are_the_kernels(converged: System) -> None:
    """Not only written down: the control group has them."""
    for host, _service, instance in converged.services():
        group = host.out(f"systemctl show --value -p ControlGroup {instance['unit']}")
        found = host.out(
            f"cat /sys/fs/cgroup{group}/memory.max /sys/fs/cgroup/memory{group}/"
            "memory.limit_in_bytes 2>/dev/null || true"
        )
        assert str(2 * GIB) in found.split(), instance["unit"]
        quota = host.out(
            f"cat /sys/fs/cgroup{group}/cpu.max /sys/fs/cgroup/cpu{group}/cpu.cfs_quota_us "
            f"/sys/fs/cgroup/cpu,cpuacct{group}/cpu.cfs_quota_us 2>/dev/null || true"
        )
        assert "200000" in quota.split(), instance["unit"]


@pytest.mark.systems("dhanman/prod")
def test_a_service_that_dies_is_back_after_ten_seconds(converged: System) -> None:
    host, _service, instance = next(converged.services())
    show = f"systemctl show -p SubState -p MainPID {instance['unit']}"
    before = settled(host.out(show))["MainPID"]
    began = time.monotonic()
    host.out(f"systemctl kill --signal=KILL {instance['unit']}")
    now = settled(host.out(show))
    while now["MainPID"] in ("0", before) or now["SubState"] != "running":
        assert time.monotonic() - began < 30, now
        time.sleep(0.2)
        now = settled(host.out(show))
    assert 9 < time.monotonic() - began < 15
    # It takes a moment more to answer, and the next tests ask it.
    port = f"/dev/tcp/{instance['bind']}/{instance['port']}"
    host.out(f"timeout 20 bash -c 'until (: <{port}) 2>/dev/null; do sleep 0.1; done'")


# ------------------------------------------------------------------------------ the edge


def test_nginx_has_the_documents_figures(converged: System) -> None:
    text = edge_host(converged).out("nginx -T 2>/dev/null")
    squeezed = " ".join(text.split())
    for directive in (
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_ciphers HIGH:!aNULL:!MD5;",
        "ssl_prefer_server_ciphers on;",
        "proxy_http_version 1.1;",
        "proxy_cache_bypass $http_upgrade;",
        "proxy_connect_timeout 60s;",
        "proxy_send_timeout 60s;",
        "proxy_read_timeout 60s;",
        "proxy_buffering on;",
        "proxy_buffer_size 4k;",
        "proxy_buffers 8 4k;",
        "proxy_busy_buffers_size 8k;",
        "proxy_set_header Host $host;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "proxy_set_header X-Real-IP $remote_addr;",
        "gzip_vary on;",
        "gzip_min_length 1024;",
    ):
        assert directive in squeezed
    (types,) = re.findall(r"gzip_types ([^;]+);", squeezed)
    assert {
        "text/plain",
        "text/css",
        "text/xml",
        "text/javascript",
        "application/x-javascript",
        "application/xml+rss",
        "application/javascript",
        "application/json",
    } <= set(types.split())
    for name in NAMES:
        unit = f"dhanman-{name}-{env(converged)}"
        (upstream,) = re.findall(rf"upstream {unit} {{([^}}]*)}}", squeezed)
        servers = re.findall(r"server ([\d.]+:\d+)([^;]*);", upstream)
        assert sorted(address for address, _options in servers) == sorted(
            f"{instance['bind']}:{instance['port']}"
            for _host, service, instance in converged.services()
            if service["name"] == name
        )
        assert all("max_fails=3 fail_timeout=30s" in options for _address, options in servers)
        assert "keepalive 32;" in upstream
        least = converged.entry.name == "dhanman/scale" and name == "sales"
        assert ("least_conn;" in upstream) == least
        assert f"/var/log/nginx/{unit}-access.log" in squeezed
        assert f"/var/log/nginx/{unit}-error.log" in squeezed


def test_every_domain_answers_over_https_with_the_security_headers(
    converged: System, edge: Edge
) -> None:
    for name in NAMES:
        answer = edge.get(f"https://{domain(converged, name)}/")
        assert answer.status == 200
        assert json.loads(answer.text)["name"] == name
        assert {key: answer.headers.get(key) for key in SECURITY} == SECURITY
    # Also on what goes wrong.
    answer = edge.get(f"https://{domain(converged, 'sales')}/no/such/page")
    assert answer.status == 404
    assert {key: answer.headers.get(key) for key in SECURITY} == SECURITY


def test_http_is_sent_to_https(converged: System, edge: Edge) -> None:
    for name in [*NAMES, "app"]:
        answer = edge.get(f"http://{domain(converged, name)}/a/page?x=1")
        assert answer.status == 301
        assert answer.headers["location"] == f"https://{domain(converged, name)}/a/page?x=1"


def test_tls_is_12_or_13_and_http_may_be_2(converged: System, edge: Edge) -> None:
    name = domain(converged, "sales")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = edge.context()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with edge.connect(name, context) as link:
            assert link.version() == version.name.replace("_", ".")
            assert link.selected_alpn_protocol() == "h2"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    # This client would; it is the server that will not.
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        edge.connect(name, old)


def test_the_frontend_is_a_single_page_with_cached_assets(converged: System, edge: Edge) -> None:
    site = f"https://{domain(converged, 'app')}"
    page = edge.get(f"{site}/")
    assert page.status == 200 and "<html" in page.text
    assert {key: page.headers.get(key) for key in SECURITY} == SECURITY
    assert edge.get(f"{site}/some/route/of/the/app").body == page.body
    assets = re.findall(r'(?:src|href)="/?(assets/[^"]+)"', page.text)
    assert any(each.endswith(".js") for each in assets)
    for asset in assets:
        plain = edge.get(f"{site}/{asset}")
        assert plain.status == 200
        cached = plain.headers["cache-control"]
        assert "public" in cached and "immutable" in cached and "max-age=31536000" in cached
        # Where a header of its own would drop those of the site.
        assert {key: plain.headers.get(key) for key in SECURITY} == SECURITY, asset
        packed = edge.get(f"{site}/{asset}", {"Accept-Encoding": "gzip"})
        large = len(plain.body) >= 1024 and asset.endswith((".js", ".css"))
        assert (packed.headers.get("content-encoding") == "gzip") == large, asset
    assert any(asset.endswith(".js") for asset in assets)
    # An asset that is not there is not the page under another name.
    assert edge.get(f"{site}/assets/gone.js").status == 404


def test_hangfire_is_for_the_office_alone(converged: System, edge: Edge, stranger: str) -> None:
    for name in NAMES:
        asked = {
            "host": domain(converged, name),
            "address": edge.address,
            "port": 443,
            "tls": True,
        }
        for path in ("/hangfire", "/hangfire/jobs"):
            assert (
                converged.scanner.script("request", path=path, source=stranger, **asked)["status"]
                == 403
            ), f"{name}{path}"
        assert (
            converged.scanner.script("request", path="/", source=stranger, **asked)["status"] == 200
        )
        assert converged.scanner.script("request", path="/hangfire", **asked)["status"] == 200


def test_health_is_not_logged(converged: System, edge: Edge) -> None:
    host = edge_host(converged)
    mark = f"mark{time.time_ns()}"
    site = f"https://{domain(converged, 'sales')}"
    for path in ("/health", "/health/ready", "/"):
        assert edge.get(f"{site}{path}?{mark}").status == 200
    log = f"/var/log/nginx/dhanman-sales-{env(converged)}-access.log"
    logged = [line for line in host.out(f"cat {log}").splitlines() if mark in line]
    assert len(logged) == 1 and f"GET /?{mark} " in logged[0]


def test_a_websocket_goes_through(converged: System, edge: Edge) -> None:
    url = f"https://{domain(converged, 'sales')}/ws"
    assert edge.websocket(url, b"there and back") == b"there and back"


def test_connections_to_a_service_are_kept(converged: System, edge: Edge) -> None:
    host = edge_host(converged)
    name = next(s["name"] for h, s, _i in converged.services() if h.name == host.name)
    port = next(i["port"] for _h, s, i in converged.services() if s["name"] == name)
    for _ in range(20):
        edge.get(f"https://{domain(converged, name)}/")
    kept = host.out(f"ss -Htn state established '( dport = :{port} )'").splitlines()
    assert 1 <= len(kept) <= 8, kept


# ------------------------------------------------------------------------------ the database


def shown(host: Host) -> dict[str, str]:
    rows = host.psql("SELECT name || '=' || current_setting(name) FROM pg_settings")
    return settled(rows)


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(kB|MB|GB)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"kB": 1024, "MB": 1024**2, "GB": GIB}[unit]


def test_postgresql_is_set_as_the_document_has_it(converged: System) -> None:
    host = database_host(converged)
    settings = shown(host)
    expected = {
        "max_connections": "200",
        "wal_level": "replica",
        "checkpoint_completion_target": "0.9",
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
        "logging_collector": "on",
        "log_directory": "/var/log/postgresql",
        "log_filename": "postgresql-%Y-%m-%d_%H%M%S.log",
        "log_rotation_age": "1d",
        "log_rotation_size": "100MB",
        "log_min_duration_statement": "1s",
        "autovacuum": "on",
        "autovacuum_naptime": "30s",
        "password_encryption": "scram-sha-256",
        "archive_mode": "on",
    }
    assert {key: settings[key] for key in expected} == expected
    # 4 GB, 12 GB and 1 GB are a quarter, three quarters and a sixteenth of the document's 16 GB.
    memory = int(host.out("grep MemTotal /proc/meminfo").split()[1]) * 1024
    share = {
        name: size(settings[name]) / memory
        for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem")
    }
    converged.say(
        ", ".join(f"{name} {settings[name]}" for name in [*share, "work_mem", "max_wal_size"])
        + f" of {memory / GIB:.1f} GiB"
    )
    assert 0.23 < share["shared_buffers"] < 0.27
    assert 0.70 < share["effective_cache_size"] < 0.80
    assert 0.05 < share["maintenance_work_mem"] < 0.07 or settings["maintenance_work_mem"] in (
        "64MB",
        "2GB",
    )
    assert size(settings["min_wal_size"]) * 4 == size(settings["max_wal_size"]) <= 4 * GIB


def test_every_service_owns_its_database_and_nobody_else_enters(converged: System) -> None:
    host = database_host(converged)
    rows = host.psql(
        "SELECT datname || '=' || pg_get_userbyid(datdba) FROM pg_database "
        "WHERE NOT datistemplate AND datname <> 'postgres'"
    )
    names = [f"{env(converged)}-dhanman-{name}" for name in NAMES]
    owners = settled(rows)
    assert sorted(owners) == names
    assert len(set(owners.values())) == len(names), "every service has a user of its own"
    for name in names:
        entering = host.psql(
            "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE rolcanlogin "
            f"AND NOT rolsuper AND has_database_privilege(rolname, '{name}', 'CONNECT')"
        )
        assert entering == owners[name]
    assert host.psql("SELECT count(*) FROM pg_roles WHERE rolsuper") == "1"


def test_it_is_the_newest_version_that_is_offered(converged: System) -> None:
    version = int(database_host(converged).psql("SHOW server_version_num")) // 10000
    assert version == {"debian12": 15, "debian13": 17}[converged.entry.image]


# ------------------------------------------------------------------------------ backups


def repositories(host: Host) -> dict[int, list[dict[str, Any]]]:
    """The backups in each repository, by its number."""
    (stanza,) = json.loads(host.out("runuser -u postgres -- pgbackrest info --output=json"))
    found: dict[int, list[dict[str, Any]]] = {repo["key"]: [] for repo in stanza["repo"]}
    for backup in stanza["backup"]:
        found[backup["database"]["repo-key"]].append(backup)
    return found


def test_both_repositories_hold_a_backup_and_all_wal(converged: System) -> None:
    host = database_host(converged)
    found = repositories(host)
    assert sorted(found) == [1, 2]
    assert all(backups and not backups[-1]["error"] for backups in found.values())
    (stanza,) = json.loads(host.out("runuser -u postgres -- pgbackrest info --output=json"))
    assert all(each["status"]["code"] == 0 for each in stanza["repo"])
    # A segment that is closed now is in both before the command returns.
    host.out(f"runuser -u postgres -- pgbackrest --stanza={stanza['name']} check")
    configuration = host.out("cat /etc/pgbackrest/pgbackrest.conf")
    for key in (1, 2):
        assert re.search(rf"repo{key}-retention-full *= *30\b", configuration)
        assert re.search(rf"repo{key}-retention-full-type *= *time", configuration)
    assert re.search(r"repo1-path *= */backups/postgresql", configuration)
    assert re.search(r"repo2-s3-bucket *= *dhanman-backups", configuration)
    assert re.search(r"repo2-cipher-type *= *aes-256-cbc", configuration)


def test_backups_are_due_at_two_in_the_night(converged: System) -> None:
    host = database_host(converged)
    timers = json.loads(host.out("systemctl list-timers --all --output=json"))
    due = {each["unit"]: each["next"] for each in timers if each["unit"].startswith("berth-")}
    full = time.gmtime(due["berth-backup-full.timer"] / 1e6)
    calendar = host.out("systemctl cat berth-backup-full.timer")
    assert "*-*-* 02:00:00" in calendar
    # A random delay spreads the hosts' load.
    assert full.tm_hour == 2, full
    assert host.out("systemctl is-enabled berth-backup-full.timer") == "enabled"


def test_a_restore_check_reports_what_it_restored(converged: System) -> None:
    host = database_host(converged)
    assert host.out("systemctl is-enabled berth-restore-check.timer") == "enabled"
    began = time.monotonic()
    host.out("systemctl start berth-restore-check.service", timeout=240)
    converged.say(f"restore check in {time.monotonic() - began:.1f} s")
    metrics = host.out("cat /var/lib/berth/backup/backup.prom")
    assert re.search(r"restore_check\w*seconds\S* \d", metrics), metrics
    assert re.search(r"restore_check\w*rows\S* \d", metrics), metrics


# ------------------------------------------------------------------------------ three of sales


def reaches(host: Host, address: str, port: int) -> bool:
    return host.run(f"timeout 1 bash -c '</dev/tcp/{address}/{port}'").rc == 0


@pytest.mark.systems("dhanman/scale")
@pytest.mark.stage(70)
def test_two_of_three_answer_when_one_has_stopped(converged: System, edge: Edge) -> None:
    url = f"https://{domain(converged, 'sales')}/"
    sales = [(host, i["unit"]) for host, s, i in converged.services() if s["name"] == "sales"]
    assert len(sales) == 3

    def answering(count: int) -> set[str]:
        seen = set()
        for _ in range(count):
            answer = edge.get(url)
            assert answer.status == 200
            seen.add(json.loads(answer.text)["host"])
        return seen

    names = {host.name for host, _unit in sales}
    assert answering(30) == names
    host, unit = sales[0]
    host.out(f"systemctl stop {unit}")
    try:
        assert answering(60) == names - {host.name}
    finally:
        host.out(f"systemctl start {unit}")
    port = next(i["port"] for _host, s, i in converged.services() if s["name"] == "sales")
    while not reaches(host, host.address, port):
        time.sleep(0.2)


@pytest.mark.systems("dhanman/scale")
@pytest.mark.stage(71)
def test_the_three_are_reached_from_the_edge_alone(converged: System) -> None:
    """The plan's reachability, from one platform host to another."""
    edge = edge_host(converged)
    for host, service, instance in converged.services():
        if service["name"] != "sales":
            continue
        assert instance["bind"] == host.address
        for other in converged.hosts.values():
            reached = reaches(other, host.address, instance["port"])
            assert reached == (other.name in (edge.name, host.name)), other.name


def test_names_resolve_to_the_hosts(converged: System) -> None:
    for host in converged.hosts.values():
        for name, other in converged.hosts.items():
            found = host.out(f"getent hosts {name}.internal").split()[0]
            assert found in (other.address, "127.0.0.1"), f"{name} on {host.name}"
            socket.inet_aton(found)
