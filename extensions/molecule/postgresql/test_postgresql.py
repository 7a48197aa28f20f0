"""The server as its users meet it: who gets in, what they may do, and with which settings."""

from __future__ import annotations

from shlex import quote
from typing import Any

import pytest

PASSWORDS = {
    "sales": "s'a\"l es\\ %ü€",
    "payroll": "payroll-password",
    "batch": "batch-password",
    "reports": "reports-password",
}
PEER = {"trixie": "bookworm", "bookworm": "trixie"}


def connect(
    host: Any,
    user: str,
    database: str,
    sql: str = "SELECT current_user",
    *,
    address: str = "127.0.0.1",
    password: str | None = None,
) -> Any:
    """Run SQL as a service does: over TCP, by password."""
    given = PASSWORDS[user] if password is None else password
    target = f"host={address} dbname={database} user={user} connect_timeout=5"
    return host.run(f"PGPASSWORD={quote(given)} psql -XAtq -c {quote(sql)} {quote(target)}")


def admin(host: Any, sql: str, database: str = "postgres") -> str:
    """Run SQL as the server's own user, over the socket."""
    command = f"cd / && psql -XAtq -d {quote(database)} -c {quote(sql)}"
    done = host.run(f"su postgres -c {quote(command)}")
    assert done.rc == 0, done.stderr
    return str(done.stdout.strip())


def name_of(host: Any) -> str:
    return str(host.backend.get_pytest_id().removeprefix("ansible://"))


def address_of(host: Any) -> str:
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture(scope="module", autouse=True)
def _table(hosts: dict[str, Any]) -> None:
    """A table that its owner made after the privileges were given."""
    for host in hosts.values():
        done = connect(
            host,
            "sales",
            "prod-sales",
            "DROP TABLE IF EXISTS orders; CREATE TABLE orders (id serial PRIMARY KEY, what text); "
            "INSERT INTO orders (what) VALUES ('first')",
        )
        assert done.rc == 0, done.stderr


def test_the_version_is_the_first_that_the_distribution_has(host: Any) -> None:
    expected = {"trixie": "17", "bookworm": "15"}[name_of(host)]
    assert admin(host, "SHOW server_version").split(".")[0] == expected


def test_a_service_uses_its_database(host: Any) -> None:
    done = connect(host, "sales", "prod-sales", "SELECT what FROM orders")
    assert (done.rc, done.stdout.strip()) == (0, "first")


def test_it_is_encrypted_and_by_scram(host: Any) -> None:
    sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert connect(host, "sales", "prod-sales", sql).stdout.strip() == "t"
    stored = admin(host, "SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = 'sales'")
    assert stored == "SCRAM-SHA-256$"


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(host: Any, password: str) -> None:
    done = connect(host, "sales", "prod-sales", password=password)
    assert done.rc == 2
    assert "password" in done.stderr


@pytest.mark.parametrize(
    ("user", "database"),
    [
        ("sales", "prod-payroll"),
        ("payroll", "prod-sales"),
        ("batch", "prod-payroll"),
        ("sales", "postgres"),
        ("sales", "template1"),
    ],
)
def test_another_database_is_out_of_reach(host: Any, user: str, database: str) -> None:
    assert connect(host, user, database).rc == 2
    if database.startswith("prod"):
        # Not only by the access list: the database itself says no, too.
        sql = f"SELECT has_database_privilege('{user}', '{database}', 'CONNECT')"
        assert admin(host, sql) == "f"


def test_a_listed_host_gets_in_as_the_listed_user(host: Any, hosts: dict[str, Any]) -> None:
    peer = hosts[PEER[name_of(host)]]
    done = connect(peer, "sales", "prod-sales", address=address_of(host))
    assert (done.rc, done.stdout.strip()) == (0, "sales")


def test_nobody_else_gets_in_from_there(host: Any, hosts: dict[str, Any]) -> None:
    peer = hosts[PEER[name_of(host)]]
    for user, database in (("payroll", "prod-payroll"), ("batch", "prod-sales")):
        done = connect(peer, user, database, address=address_of(host))
        assert done.rc == 2
        assert "no pg_hba.conf entry" in done.stderr


def test_an_unlisted_address_of_the_host_itself_is_refused(host: Any) -> None:
    done = connect(host, "sales", "prod-sales", address=address_of(host))
    assert "no pg_hba.conf entry" in done.stderr


@pytest.mark.parametrize(
    ("user", "sql", "allowed"),
    [
        ("reports", "SELECT count(*) FROM orders", True),
        ("reports", "SELECT last_value FROM orders_id_seq", True),
        ("reports", "INSERT INTO orders (what) VALUES ('x')", False),
        ("reports", "CREATE TABLE mine (id int)", False),
        ("batch", "INSERT INTO orders (what) VALUES ('x')", True),
        ("batch", "UPDATE orders SET what = 'y' WHERE what = 'x'", True),
        ("batch", "DELETE FROM orders WHERE what = 'y'", True),
        ("batch", "TRUNCATE orders", False),
        ("batch", "DROP TABLE orders", False),
        ("batch", "CREATE TABLE mine (id int)", False),
        ("sales", "CREATE TABLE mine (id int); DROP TABLE mine", True),
        ("sales", "CREATE ROLE friend", False),
    ],
)
def test_privileges(host: Any, user: str, sql: str, allowed: bool) -> None:
    done = connect(host, user, "prod-sales", sql)
    assert (done.rc == 0) is allowed, done.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_connections", "60"),
        ("shared_buffers", "512MB"),
        ("effective_cache_size", "1536MB"),
        ("maintenance_work_mem", "128MB"),
        ("work_mem", "8MB"),
        ("max_wal_size", "1GB"),
        ("random_page_cost", "1.1"),
        ("log_min_duration_statement", "250ms"),
        ("jit", "off"),
        ("data_checksums", "on"),
        ("password_encryption", "scram-sha-256"),
        ("autovacuum_naptime", "30s"),
        ("server_encoding", "UTF8"),
    ],
)
def test_settings_are_in_force(host: Any, setting: str, value: str) -> None:
    assert admin(host, f"SHOW {setting}") == value


def test_nothing_waits_for_a_restart(host: Any) -> None:
    assert admin(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_limits(host: Any) -> None:
    assert admin(host, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'sales'") == "25"
    sql = "SELECT datconnlimit FROM pg_database WHERE datname = 'prod-payroll'"
    assert admin(host, sql) == "20"


def test_extensions(host: Any) -> None:
    sql = "SELECT similarity('berth', 'birth') > 0, 'a=>1'::hstore->'a'"
    assert connect(host, "sales", "prod-sales", sql).stdout.strip() == "t|1"


def test_it_listens_where_it_should(host: Any) -> None:
    ports = {line.split()[3] for line in host.check_output("ss -Hltn sport = :5432").splitlines()}
    assert ports == {"127.0.0.1:5432", f"{address_of(host)}:5432"}


def test_it_comes_back_after_a_boot(host: Any) -> None:
    assert host.check_output("systemctl is-enabled postgresql.service") == "enabled"
    wants = host.check_output("systemctl show -P Wants postgresql.service")
    assert "-main.service" in wants


@pytest.mark.parametrize("user", ["payroll", "batch", "reports"])
def test_passwords_are_in_no_log(host: Any, user: str) -> None:
    word = PASSWORDS[user]
    # The pattern does not match itself, where commands are logged.
    pattern = quote(f"[{word[0]}]{word[1:]}")
    logs = host.run(f"grep -rlE -- {pattern} /var/log/postgresql")
    assert logs.stdout == ""
    assert host.run(f"journalctl --no-pager | grep -E -- {pattern}").stdout == ""
