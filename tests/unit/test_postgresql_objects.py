"""From what a server holds to what is wanted: which statements, and which not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.postgresql_objects import (
    Cluster,
    Inside,
    ObjectsError,
    Wish,
    cluster_question,
    inside_question,
    make_wish,
    plan_databases,
    plan_extensions,
    plan_inside,
    plan_removals,
    plan_roles,
)
from ansible_collections.berth.platform.plugins.module_utils.postgresql_scram import verifier
from ansible_collections.berth.platform.plugins.module_utils.postgresql_server import (
    parse_clusters,
    parse_offered,
)

ROLE: dict[str, Any] = {
    "superuser": False,
    "createdb": False,
    "createrole": False,
    "replication": False,
    "bypassrls": False,
    "login": True,
    "connection_limit": -1,
    "password": None,
}
SALES = {"name": "sales", "password": "p!w", "databases": [{"name": "shop"}]}


def wish(*users: dict[str, Any], databases: list[dict[str, Any]] | None = None) -> Wish:
    return make_wish(databases if databases is not None else [{"name": "shop"}], users)


def database(**facts: Any) -> dict[str, Any]:
    return {
        "owner": "sales",
        "encoding": "UTF8",
        "locale": "C.UTF-8",
        "connection_limit": -1,
        "grants": {},
        **facts,
    }


def server(
    roles: dict[str, dict[str, Any]] | None = None,
    databases: dict[str, dict[str, Any]] | None = None,
    memberships: set[tuple[str, str]] | None = None,
    version: int = 17,
) -> Cluster:
    known = {name: {**ROLE, **facts} for name, facts in (roles or {}).items()}
    return Cluster(
        version=version,
        roles={"postgres": dict(ROLE), **known},
        databases=databases or {},
        memberships=memberships or set(),
    )


def inside(**facts: Any) -> Inside:
    found = Inside.fresh()
    for name, value in facts.items():
        setattr(found, name, value)
    return found


def shown(statements: list[Any]) -> list[str]:
    return [str(statement) for statement in statements]


class TestRoles:
    def test_a_new_one_is_made_and_its_password_never_shown_or_sent(self) -> None:
        (made,) = plan_roles(wish({**SALES, "connection_limit": 100}), server())
        assert str(made) == "CREATE ROLE \"sales\" LOGIN CONNECTION LIMIT 100 PASSWORD '********';"
        assert "'SCRAM-SHA-256$4096:" in made.sql
        assert "p!w" not in made.sql
        assert "SCRAM" not in repr(made)

    def test_one_that_is_right_is_left_alone(self) -> None:
        there = server({"sales": {"password": verifier("p!w")}})
        assert plan_roles(wish(SALES), there) == []

    def test_another_password_is_set(self) -> None:
        there = server({"sales": {"password": verifier("old")}})
        (changed,) = plan_roles(wish(SALES), there)
        assert str(changed) == "ALTER ROLE \"sales\" PASSWORD '********';"

    def test_an_md5_password_is_replaced(self) -> None:
        there = server({"sales": {"password": "md5d41d8cd98f00b204e9800998ecf8427e"}})
        assert len(plan_roles(wish(SALES), there)) == 1

    def test_without_a_password_the_stored_one_stays(self) -> None:
        there = server({"sales": {"password": verifier("old")}})
        assert plan_roles(wish({"name": "sales"}), there) == []

    def test_attributes_are_given_and_taken(self) -> None:
        there = server({"sales": {"superuser": True, "connection_limit": 5}})
        user = {"name": "sales", "attributes": ["replication"], "login": False}
        assert shown(plan_roles(wish(user), there)) == [
            'ALTER ROLE "sales" NOLOGIN NOSUPERUSER REPLICATION CONNECTION LIMIT -1;'
        ]

    def test_memberships_are_exact(self) -> None:
        there = server(
            {"sales": {}, "team": {}, "old": {}}, memberships={("old", "sales"), ("x", "other")}
        )
        user = {"name": "sales", "member_of": ["team", "pg_monitor"]}
        assert shown(plan_roles(wish(user), there)) == [
            'GRANT "pg_monitor" TO "sales";',
            'GRANT "team" TO "sales";',
            'REVOKE "old" FROM "sales";',
        ]

    def test_unknown_groups_and_owners_are_faults(self) -> None:
        wanted = wish(
            {"name": "sales", "member_of": ["nobody"]},
            databases=[{"name": "shop", "owner": "ghost"}],
        )
        with pytest.raises(ObjectsError, match=r"no role nobody.*owner ghost is neither"):
            plan_roles(wanted, server())


class TestDatabases:
    def test_a_new_one_is_closed_to_everybody_else(self) -> None:
        reports = {"name": "reports", "databases": [{"name": "shop", "privileges": "read"}]}
        statements, warnings = plan_databases(wish(SALES, reports), server())
        assert shown(statements) == [
            'CREATE DATABASE "shop" OWNER "sales" TEMPLATE template0 ENCODING \'UTF8\' '
            "LOCALE 'C.UTF-8';",
            'REVOKE CONNECT, TEMPORARY ON DATABASE "shop" FROM PUBLIC;',
            'GRANT CONNECT ON DATABASE "shop" TO "reports";',
        ]
        assert warnings == []

    def test_one_that_is_right_is_left_alone(self) -> None:
        there = server({"sales": {}}, {"shop": database()})
        assert plan_databases(wish(SALES), there) == ([], [])

    def test_a_public_that_came_back_is_closed_again(self) -> None:
        there = server({"sales": {}}, {"shop": database(grants={"": {"CONNECT"}})})
        statements, _ = plan_databases(wish(SALES), there)
        assert shown(statements) == ['REVOKE CONNECT ON DATABASE "shop" FROM PUBLIC;']

    def test_what_is_no_longer_listed_is_revoked(self) -> None:
        there = server(
            {"sales": {}, "reports": {}}, {"shop": database(grants={"reports": {"CONNECT"}})}
        )
        statements, _ = plan_databases(wish(SALES, {"name": "reports"}), there)
        assert shown(statements) == ['REVOKE CONNECT ON DATABASE "shop" FROM "reports";']

    def test_who_is_not_listed_keeps_what_it_has(self) -> None:
        there = server({"sales": {}}, {"shop": database(grants={"dba": {"CONNECT"}})})
        assert plan_databases(wish(SALES), there) == ([], [])

    def test_a_new_owner_is_warned_about(self) -> None:
        there = server({"sales": {}, "old": {}}, {"shop": database(owner="old")})
        statements, warnings = plan_databases(wish(SALES), there)
        assert shown(statements) == ['ALTER DATABASE "shop" OWNER TO "sales";']
        assert "from old to sales" in warnings[0]

    def test_what_cannot_change_is_warned_about(self) -> None:
        there = server({"sales": {}}, {"shop": database(encoding="SQL_ASCII", locale="C.utf8")})
        statements, warnings = plan_databases(wish(SALES), there)
        assert statements == []
        assert len(warnings) == 1
        assert "SQL_ASCII" in warnings[0]


class TestInside:
    def both(self, level: str) -> Wish:
        other = {"name": "other", "databases": [{"name": "shop", "privileges": level}]}
        return wish(SALES, other)

    def plan(self, wanted: Wish, there: Inside, version: int = 17) -> list[str]:
        cluster = server({"sales": {}, "other": {}}, {"shop": database()}, version=version)
        return shown(plan_inside(wanted, wanted.databases["shop"], cluster, there))

    def test_a_fresh_database_with_only_its_owner_needs_nothing(self) -> None:
        assert self.plan(wish(SALES), Inside.fresh()) == []

    def test_before_version_15_everybody_could_create(self) -> None:
        there = inside(
            schema_owners={"public": "postgres"},
            schema_grants={"public": {"": {"CREATE", "USAGE"}}},
        )
        assert self.plan(wish(SALES), there, version=14) == [
            'ALTER SCHEMA public OWNER TO "pg_database_owner";',
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        ]

    def test_without_a_schema_public_nothing_is_said_about_it(self) -> None:
        assert self.plan(wish(SALES), inside(schema_owners={}, schema_grants={})) == []

    def test_read(self) -> None:
        there = inside(relations={("public", "tables"): {"sales": 3}})
        assert self.plan(self.both("read"), there) == [
            'GRANT USAGE ON SCHEMA "public" TO "other";',
            'GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "other";',
            'ALTER DEFAULT PRIVILEGES FOR ROLE "sales" GRANT SELECT ON TABLES TO "other";',
            'ALTER DEFAULT PRIVILEGES FOR ROLE "sales" GRANT SELECT ON SEQUENCES TO "other";',
            'ALTER DEFAULT PRIVILEGES FOR ROLE "sales" GRANT USAGE ON SCHEMAS TO "other";',
        ]

    def granted(self, level: str, count: int) -> Inside:
        tables = {"SELECT"} if level == "read" else {"SELECT", "INSERT", "UPDATE", "DELETE"}
        sequences = {"SELECT"} if level == "read" else {"SELECT", "USAGE", "UPDATE"}
        return inside(
            schema_grants={"public": {"": {"USAGE"}, "other": {"USAGE"}}},
            relations={("public", "tables"): {"sales": count, "other": 7}},
            grants={("public", "tables", "other"): dict.fromkeys(tables, 3)},
            defaults={
                ("sales", "r", "other"): tables,
                ("sales", "S", "other"): sequences,
                ("sales", "n", "other"): {"USAGE"},
            },
        )

    @pytest.mark.parametrize("level", ["read", "write"])
    def test_what_is_granted_is_left_alone(self, level: str) -> None:
        assert self.plan(self.both(level), self.granted(level, 3)) == []

    def test_a_table_without_the_grant_is_noticed(self) -> None:
        assert self.plan(self.both("read"), self.granted("read", 4)) == [
            'GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "other";'
        ]

    def test_a_demotion_takes_away(self) -> None:
        assert self.plan(self.both("read"), self.granted("write", 3)) == [
            'REVOKE DELETE, INSERT, UPDATE ON ALL TABLES IN SCHEMA "public" FROM "other";',
            'ALTER DEFAULT PRIVILEGES FOR ROLE "sales" '
            'REVOKE DELETE, INSERT, UPDATE ON TABLES FROM "other";',
            'ALTER DEFAULT PRIVILEGES FOR ROLE "sales" '
            'REVOKE UPDATE, USAGE ON SEQUENCES FROM "other";',
        ]

    def test_a_user_without_the_database_loses_all(self) -> None:
        revoked = self.plan(wish(SALES, {"name": "other"}), self.granted("read", 3))
        assert revoked
        assert all("REVOKE" in line for line in revoked)

    def test_an_absent_user_loses_all_before_it_is_dropped(self) -> None:
        wanted = wish(SALES, {"name": "other", "state": "absent"})
        assert len(self.plan(wanted, self.granted("read", 3))) == 5
        assert plan_removals(wanted, server({"other": {}}))[1][0].sql == 'DROP ROLE "other";'

    def test_an_absent_user_that_is_not_there_is_not_spoken_of(self) -> None:
        wanted = wish(SALES, {"name": "gone", "state": "absent"})
        assert self.plan(wanted, Inside.fresh()) == []
        assert plan_removals(wanted, server()) == ([], [])


class TestExtensions:
    def plan(self, extension: Any, there: dict[str, dict[str, str]]) -> list[str]:
        wanted = wish(SALES, databases=[{"name": "shop", "extensions": [extension]}])
        return shown(plan_extensions(wanted.databases["shop"], inside(extensions=there)))

    def test_made(self) -> None:
        assert self.plan("uuid-ossp", {}) == ['CREATE EXTENSION "uuid-ossp" CASCADE;']
        assert self.plan({"name": "a", "schema": "s", "version": "1.2"}, {}) == [
            'CREATE EXTENSION "a" SCHEMA "s" VERSION \'1.2\' CASCADE;'
        ]

    def test_there_in_any_version(self) -> None:
        assert self.plan("a", {"a": {"version": "1.0", "schema": "public"}}) == []

    def test_moved(self) -> None:
        there = {"a": {"version": "1.0", "schema": "public"}}
        assert self.plan({"name": "a", "version": "1.1", "schema": "s"}, there) == [
            "ALTER EXTENSION \"a\" UPDATE TO '1.1';",
            'ALTER EXTENSION "a" SET SCHEMA "s";',
        ]


class TestWish:
    def test_an_absent_database_is_dropped_only_if_there(self) -> None:
        wanted = wish(databases=[{"name": "shop", "state": "absent"}])
        assert plan_removals(wanted, server())[0] == []
        there = server(databases={"shop": database()})
        assert shown(plan_removals(wanted, there)[0]) == ['DROP DATABASE "shop" WITH (FORCE);']
        assert plan_databases(wanted, there) == ([], [])

    def test_names_cannot_break_out(self) -> None:
        wanted = wish(
            {"name": 'a"; DROP', "databases": [{"name": "o'x"}]}, databases=[{"name": "o'x"}]
        )
        assert '"a""; DROP"' in plan_roles(wanted, server())[0].sql
        assert "'a\"; DROP'" in cluster_question(wanted)
        assert "'a\"; DROP'" in inside_question(wanted)

    @pytest.mark.parametrize(
        ("databases", "users", "words"),
        [
            ([{"name": "a"}, {"name": "a"}], [], "database a is listed twice"),
            ([{"name": ""}], [], "is no name"),
            ([{"name": "x" * 64}], [], "63 bytes"),
            ([{"name": "a\nb"}], [], "control character"),
            ([{"name": "template1"}], [], "the server's own"),
            ([{"name": "postgres", "state": "absent"}], [], "the server's own"),
            ([{"name": "a", "extensions": [{"schema": "x"}]}], [], "extension '' is no name"),
            ([], [{"name": "u"}, {"name": "u"}], "user u is listed twice"),
            ([], [{"name": "postgres"}], "the server's own"),
            ([], [{"name": "pg_mine"}], "the server's own"),
            ([], [{"name": "u", "password": ""}], "the password is empty"),
            ([], [{"name": "u", "attributes": ["root"]}], "attribute 'root' is none of"),
            ([], [{"name": "u", "databases": [{"name": "b"}]}], "database b is not among"),
            (
                [{"name": "a"}],
                [{"name": "u", "databases": [{"name": "a"}, {"name": "a"}]}],
                "database a is listed twice",
            ),
            (
                [{"name": "a"}],
                [{"name": "u", "databases": [{"name": "a", "privileges": "all"}]}],
                "privileges 'all'",
            ),
            (
                [{"name": "a", "owner": "v"}],
                [{"name": "u", "databases": [{"name": "a"}]}],
                "more than one owner: u, v",
            ),
            (
                [{"name": "a", "owner": "u"}],
                [{"name": "u", "state": "absent"}],
                "owner u is listed as absent",
            ),
        ],
    )
    def test_faults(
        self, databases: list[dict[str, Any]], users: list[dict[str, Any]], words: str
    ) -> None:
        with pytest.raises(ObjectsError) as caught:
            make_wish(databases, users)
        assert words in str(caught.value)

    def test_all_faults_at_once(self) -> None:
        with pytest.raises(ObjectsError) as caught:
            make_wish([{"name": ""}], [{"name": "postgres"}, {"name": "u", "password": ""}])
        assert str(caught.value).count(";") >= 2


def test_answers_are_read() -> None:
    cluster = Cluster.parse(
        {
            "version": 170004,
            "standby": False,
            "port": 5432,
            "data_directory": "/d",
            "roles": {"u": ROLE},
            "memberships": [["g", "u"]],
            "databases": {"d": database(grants={"": ["CONNECT"]})},
        }
    )
    assert cluster.version == 17
    assert cluster.memberships == {("g", "u")}
    assert cluster.databases["d"]["grants"] == {"": {"CONNECT"}}
    found = Inside.parse(
        {
            "extensions": {"plpgsql": {"version": "1.0", "schema": "pg_catalog"}},
            "schemas": {"public": {"owner": "pg_database_owner", "grants": {"": ["USAGE"]}}},
            "relations": [["public", "tables", "u", 2], ["public", "tables", "v", 1]],
            "grants": [["public", "tables", "w", "SELECT", 2]],
            "defaults": [["u", "r", "w", "SELECT"]],
        }
    )
    assert found.relations == {("public", "tables"): {"u": 2, "v": 1}}
    assert found.grants == {("public", "tables", "w"): {"SELECT": 2}}
    assert found.defaults == {("u", "r", "w"): {"SELECT"}}


def test_clusters_are_read() -> None:
    listing = (
        "9.6 main 5431 down postgres /var/lib/postgresql/9.6/main /log\n"
        "15  main 5433 down,recovery postgres /var/lib/postgresql/15/main /var/log/x.log\n"
        "17  main 5432 online postgres /var/lib/postgresql/17/main\n"
        "garbage\n"
    )
    assert [(c.version, c.port, c.running) for c in parse_clusters(listing)] == [
        (15, 5433, False),
        (17, 5432, True),
    ]


def test_offers_are_read() -> None:
    policy = (
        "postgresql-18:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"
        "postgresql-17:\n  Installed: (none)\n  Candidate: 17.4-1\n  Version table:\n"
    )
    assert parse_offered(policy) == [17]
    assert parse_offered("") == []
