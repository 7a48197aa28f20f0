# Copyright: Berth contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases, roles and privileges: what is wanted, what is there, and the SQL between the two.

Pure: the questions are texts, the answers are JSON that the caller fetched, the result is a list
of statements. A listed user ends with exactly what is listed for it; what is not listed is left
alone, and nothing is removed unless it is listed as absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.berth.platform.plugins.module_utils.postgresql_scram import (
    is_verifier,
    matches,
    verifier,
)

ATTRIBUTES = ("superuser", "createdb", "createrole", "replication", "bypassrls")
LEVELS = ("owner", "write", "read")
# Owner of databases that name none, and the role all of this runs as.
ADMIN = "postgres"
# From version 14 on every database's owner is a member of it without being listed.
_DATABASE_OWNER = "pg_database_owner"
_TEMPLATES = ("template0", "template1")

_ON_DATABASE = {"write": {"CONNECT", "TEMPORARY"}, "read": {"CONNECT"}}
_ON_SCHEMA = {"write": {"USAGE"}, "read": {"USAGE"}}
_ON_RELATIONS = {
    "tables": {"write": {"SELECT", "INSERT", "UPDATE", "DELETE"}, "read": {"SELECT"}},
    "sequences": {"write": {"USAGE", "SELECT", "UPDATE"}, "read": {"SELECT"}},
}
# pg_default_acl's letters for what default privileges are about.
_DEFAULTS = {
    "r": ("TABLES", _ON_RELATIONS["tables"]),
    "S": ("SEQUENCES", _ON_RELATIONS["sequences"]),
    "n": ("SCHEMAS", _ON_SCHEMA),
}


class ObjectsError(ValueError):
    """What was asked for cannot be; all faults, in words."""


def identifier(name: str) -> str:
    """A name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as SQL spells it, with standard_conforming_strings on."""
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Extension:
    """An extension of a database; the server's default schema and version unless given."""

    name: str
    schema: str = ""
    version: str = ""


@dataclass(frozen=True)
class Database:
    """A database as wanted."""

    name: str
    owner: str = ADMIN
    encoding: str = "UTF8"
    locale: str = "C.UTF-8"
    connection_limit: int = -1
    extensions: tuple[Extension, ...] = ()
    present: bool = True


@dataclass(frozen=True)
class User:
    """A role as wanted; ``access`` is its level by database."""

    name: str
    password: str | None = field(default=None, repr=False)
    login: bool = True
    connection_limit: int = -1
    attributes: frozenset[str] = frozenset()
    member_of: tuple[str, ...] = ()
    access: Mapping[str, str] = field(default_factory=dict)
    present: bool = True


@dataclass(frozen=True)
class Wish:
    """Everything that is listed, checked."""

    databases: Mapping[str, Database]
    users: Mapping[str, User]


@dataclass(frozen=True)
class Statement:
    """A line of SQL, and the same line fit to be shown."""

    sql: str = field(repr=False)
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or self.sql


def _name_fault(name: Any) -> str:
    if not isinstance(name, str) or not name:
        return "is no name"
    if len(name.encode()) > 63:
        return "is longer than the 63 bytes a name may have"
    if any(char < " " for char in name):
        return "has a control character in it"
    return ""


def _extension(entry: Any) -> Extension:
    if isinstance(entry, str):
        return Extension(entry)
    return Extension(
        str(entry.get("name") or ""),
        str(entry.get("schema") or ""),
        str(entry.get("version") or ""),
    )


def _limit(value: Any) -> int:
    return -1 if value is None else int(value)


def make_wish(databases: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]]) -> Wish:
    """Check what a user listed and bring it into one form; every fault is named at once."""
    faults: list[str] = []
    wanted_users: dict[str, User] = {}
    wanted_databases: dict[str, Database] = {}
    owners: dict[str, list[str]] = {}
    names = {entry.get("name") for entry in databases}

    for entry in users:
        name = entry.get("name")
        where = f"user {name}"
        fault = _name_fault(name)
        if fault:
            faults.append(f"user {name!r} {fault}")
            continue
        name = str(name)
        if name in wanted_users:
            faults.append(f"{where} is listed twice")
        if name == ADMIN or name.startswith("pg_"):
            faults.append(f"{where} is the server's own; choose another name")
        attributes = frozenset(entry.get("attributes") or ())
        for unknown in sorted(attributes - set(ATTRIBUTES)):
            faults.append(f"{where}: attribute {unknown!r} is none of {', '.join(ATTRIBUTES)}")
        password = entry.get("password")
        if password == "":
            faults.append(f"{where}: the password is empty; leave it out if there is none")
        access: dict[str, str] = {}
        for grant in entry.get("databases") or ():
            database, level = grant.get("name"), grant.get("privileges") or "owner"
            if level not in LEVELS:
                faults.append(f"{where}: privileges {level!r} are none of {', '.join(LEVELS)}")
            if database in access:
                faults.append(f"{where}: database {database} is listed twice")
            if database not in names:
                faults.append(f"{where}: database {database} is not among the databases")
            access[database] = level
        present = entry.get("state", "present") == "present"
        if present:
            for database, level in access.items():
                if level == "owner":
                    owners.setdefault(database, []).append(name)
        wanted_users[name] = User(
            name=name,
            password=password,
            login=entry.get("login") is not False,
            connection_limit=_limit(entry.get("connection_limit")),
            attributes=attributes,
            member_of=tuple(entry.get("member_of") or ()),
            access=access if present else {},
            present=present,
        )

    for entry in databases:
        name = entry.get("name")
        where = f"database {name}"
        fault = _name_fault(name)
        if fault:
            faults.append(f"database {name!r} {fault}")
            continue
        name = str(name)
        present = entry.get("state", "present") == "present"
        if name in wanted_databases:
            faults.append(f"{where} is listed twice")
        if name in _TEMPLATES or (name == ADMIN and not present):
            faults.append(f"{where} is the server's own; leave it out")
        claims = list(dict.fromkeys([*owners.get(name, []), *filter(None, [entry.get("owner")])]))
        if len(claims) > 1:
            faults.append(f"{where} has more than one owner: {', '.join(claims)}")
        owner = claims[0] if claims else ADMIN
        if present and owner in wanted_users and not wanted_users[owner].present:
            faults.append(f"{where}: its owner {owner} is listed as absent")
        extensions = tuple(_extension(item) for item in entry.get("extensions") or ())
        for extension in extensions:
            fault = _name_fault(extension.name)
            if fault:
                faults.append(f"{where}: extension {extension.name!r} {fault}")
        wanted_databases[name] = Database(
            name=name,
            owner=owner,
            encoding=entry.get("encoding") or "UTF8",
            locale=entry.get("locale") or "C.UTF-8",
            connection_limit=_limit(entry.get("connection_limit")),
            extensions=extensions,
            present=present,
        )
    if faults:
        raise ObjectsError("; ".join(faults))
    return Wish(wanted_databases, wanted_users)


# --- what is there ---------------------------------------------------------------------------

CLUSTER_QUESTION = """\
SELECT jsonb_build_object(
  'version', current_setting('server_version_num')::int,
  'standby', pg_is_in_recovery(),
  'port', current_setting('port')::int,
  'data_directory', current_setting('data_directory'),
  'roles', (SELECT jsonb_object_agg(rolname, jsonb_build_object(
      'superuser', rolsuper, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
      'replication', rolreplication, 'bypassrls', rolbypassrls, 'login', rolcanlogin,
      'connection_limit', rolconnlimit,
      'password', CASE WHEN rolname = ANY ({users}) THEN rolpassword END)) FROM pg_authid),
  'memberships', (SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_array(g.rolname, m.rolname)), '[]')
      FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
      WHERE m.rolname = ANY ({users})),
  'databases', (SELECT jsonb_object_agg(datname, jsonb_build_object(
      'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
      'locale', datcollate, 'connection_limit', datconnlimit,
      'grants', (SELECT coalesce(jsonb_object_agg(grantee, rights), '{{}}') FROM (
          SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END AS grantee,
                 jsonb_agg(DISTINCT a.privilege_type) AS rights
          FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a
          WHERE a.grantee <> datdba GROUP BY 1) g))) FROM pg_database));
"""

INSIDE_QUESTION = """\
WITH
  own AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
  place AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
      WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
      AND ('pg_namespace'::regclass, oid) NOT IN (SELECT classid, objid FROM own)),
  thing AS (SELECT nspname AS place, relowner, relacl,
          CASE relkind WHEN 'S' THEN 'sequences' ELSE 'tables' END AS kind
      FROM pg_class c JOIN place ON place.oid = c.relnamespace
      WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM own))
SELECT jsonb_build_object(
  'extensions', (SELECT coalesce(jsonb_object_agg(extname, jsonb_build_object(
      'version', extversion, 'schema', nspname)), '{{}}')
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace),
  'schemas', (SELECT coalesce(jsonb_object_agg(nspname, jsonb_build_object(
      'owner', pg_get_userbyid(nspowner),
      'grants', (SELECT coalesce(jsonb_object_agg(grantee, rights), '{{}}') FROM (
          SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END AS grantee,
                 jsonb_agg(DISTINCT a.privilege_type) AS rights
          FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a
          WHERE a.grantee <> nspowner GROUP BY 1) g))), '{{}}') FROM place),
  'relations', (SELECT coalesce(jsonb_agg(jsonb_build_array(place, kind, owner, number)), '[]')
      FROM (SELECT place, kind, pg_get_userbyid(relowner) AS owner, count(*) AS number
            FROM thing GROUP BY 1, 2, 3) t),
  'grants', (SELECT coalesce(jsonb_agg(jsonb_build_array(place, kind, who, what, number)), '[]')
      FROM (SELECT place, kind, pg_get_userbyid(a.grantee) AS who, a.privilege_type AS what,
                   count(*) AS number
            FROM thing, aclexplode(relacl) a
            WHERE a.grantee <> 0 AND a.grantee <> relowner
            AND pg_get_userbyid(a.grantee) = ANY ({users})
            GROUP BY 1, 2, 3, 4) t),
  'defaults', (SELECT coalesce(jsonb_agg(jsonb_build_array(
          pg_get_userbyid(d.defaclrole), d.defaclobjtype, pg_get_userbyid(a.grantee),
          a.privilege_type)), '[]')
      FROM pg_default_acl d, aclexplode(d.defaclacl) a
      WHERE d.defaclnamespace = 0 AND a.grantee <> 0 AND a.grantee <> d.defaclrole
      AND pg_get_userbyid(a.grantee) = ANY ({users})));
"""


def _names_array(names: Iterable[str]) -> str:
    return "ARRAY[" + ", ".join(text(name) for name in names) + "]::name[]"


def cluster_question(wish: Wish) -> str:
    """The query whose one JSON value says all that is cluster-wide."""
    return CLUSTER_QUESTION.format(users=_names_array(wish.users))


def inside_question(wish: Wish) -> str:
    """The query whose one JSON value says all that is inside one database."""
    return INSIDE_QUESTION.format(users=_names_array(wish.users))


Grants = dict[str, set[str]]


def _grants(raw: Mapping[str, Sequence[str]]) -> Grants:
    return {who: set(rights) for who, rights in raw.items()}


@dataclass
class Inside:
    """What a database holds."""

    extensions: dict[str, dict[str, str]] = field(default_factory=dict)
    schema_owners: dict[str, str] = field(default_factory=dict)
    schema_grants: dict[str, Grants] = field(default_factory=dict)
    # (schema, kind) -> owner -> number
    relations: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    # (schema, kind, user) -> privilege -> number
    grants: dict[tuple[str, str, str], dict[str, int]] = field(default_factory=dict)
    # (definer, letter, user) -> privileges
    defaults: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Inside:
        """From the answer to `inside_question`."""
        found = cls(
            extensions={name: dict(facts) for name, facts in raw["extensions"].items()},
            schema_owners={name: facts["owner"] for name, facts in raw["schemas"].items()},
            schema_grants={n: _grants(facts["grants"]) for n, facts in raw["schemas"].items()},
        )
        for place, kind, owner, number in raw["relations"]:
            found.relations.setdefault((place, kind), {})[owner] = number
        for place, kind, who, what, number in raw["grants"]:
            found.grants.setdefault((place, kind, who), {})[what] = number
        for definer, letter, who, what in raw["defaults"]:
            found.defaults.setdefault((definer, letter, who), set()).add(what)
        return found

    @classmethod
    def fresh(cls) -> Inside:
        """What a new database holds, from version 15 on."""
        return cls(
            schema_owners={"public": _DATABASE_OWNER}, schema_grants={"public": {"": {"USAGE"}}}
        )


@dataclass
class Cluster:
    """What the server holds."""

    version: int
    standby: bool = False
    port: int = 5432
    data_directory: str = ""
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    memberships: set[tuple[str, str]] = field(default_factory=set)
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Cluster:
        """From the answer to `cluster_question`."""
        return cls(
            version=raw["version"] // 10000,
            standby=raw["standby"],
            port=raw["port"],
            data_directory=raw["data_directory"],
            roles=dict(raw["roles"]),
            memberships=set(map(tuple, raw["memberships"])),
            databases={
                name: {**facts, "grants": _grants(facts["grants"])}
                for name, facts in raw["databases"].items()
            },
        )

    @classmethod
    def fresh(cls, version: int) -> Cluster:
        """What a new server holds; for predictions where there is none yet."""
        return cls(version=version, roles={ADMIN: {}})


# --- from there to here ----------------------------------------------------------------------


def _create_role(user: User) -> Statement:
    words = [f"CREATE ROLE {identifier(user.name)}", "LOGIN" if user.login else "NOLOGIN"]
    words += [attribute.upper() for attribute in ATTRIBUTES if attribute in user.attributes]
    if user.connection_limit != -1:
        words.append(f"CONNECTION LIMIT {user.connection_limit}")
    return _with_password(words, user.password)


def _with_password(words: list[str], password: str | None) -> Statement:
    if password is None:
        return Statement(" ".join(words) + ";")
    stored = password if is_verifier(password) else verifier(password)
    return Statement(
        " ".join([*words, f"PASSWORD {text(stored)};"]), " ".join([*words, "PASSWORD '********';"])
    )


def _alter_role(user: User, there: Mapping[str, Any]) -> Statement | None:
    words = []
    if there["login"] != user.login:
        words.append("LOGIN" if user.login else "NOLOGIN")
    for attribute in ATTRIBUTES:
        wanted = attribute in user.attributes
        if there[attribute] != wanted:
            words.append(("" if wanted else "NO") + attribute.upper())
    if there["connection_limit"] != user.connection_limit:
        words.append(f"CONNECTION LIMIT {user.connection_limit}")
    password = user.password
    if password is not None and matches(password, there["password"]):
        password = None
    if not words and password is None:
        return None
    return _with_password([f"ALTER ROLE {identifier(user.name)}", *words], password)


def plan_roles(wish: Wish, there: Cluster) -> list[Statement]:
    """Roles made and brought into shape, then memberships."""
    found: list[Statement] = []
    faults = []
    known = set(there.roles) | {user.name for user in wish.users.values() if user.present}
    for user in wish.users.values():
        if not user.present:
            continue
        if user.name not in there.roles:
            found.append(_create_role(user))
        else:
            altered = _alter_role(user, there.roles[user.name])
            found += [altered] if altered else []
    for user in wish.users.values():
        if not user.present:
            continue
        has = {group for group, member in there.memberships if member == user.name}
        for group in user.member_of:
            if group not in known and not group.startswith("pg_"):
                faults.append(f"user {user.name}: there is no role {group} to be a member of")
        for group in sorted(set(user.member_of) - has):
            found.append(Statement(f"GRANT {identifier(group)} TO {identifier(user.name)};"))
        for group in sorted(has - set(user.member_of)):
            found.append(Statement(f"REVOKE {identifier(group)} FROM {identifier(user.name)};"))
    for database in wish.databases.values():
        if database.present and database.owner not in known:
            faults.append(
                f"database {database.name}: its owner {database.owner} is neither among the "
                "users nor a role of this server"
            )
    if faults:
        raise ObjectsError("; ".join(faults))
    return found


def _grants_between(has: set[str], wants: set[str], on: str, who: str) -> list[Statement]:
    found = []
    if wants - has:
        rights = ", ".join(sorted(wants - has))
        found.append(Statement(f"GRANT {rights} ON {on} TO {who};"))
    if has - wants:
        rights = ", ".join(sorted(has - wants))
        found.append(Statement(f"REVOKE {rights} ON {on} FROM {who};"))
    return found


def plan_databases(wish: Wish, there: Cluster) -> tuple[list[Statement], list[str]]:
    """Databases made, owned, limited and closed to all but their users; and warnings."""
    found: list[Statement] = []
    warnings: list[str] = []
    for database in wish.databases.values():
        if not database.present:
            continue
        name = identifier(database.name)
        state = there.databases.get(database.name)
        if state is None:
            limit = database.connection_limit
            found.append(
                Statement(
                    f"CREATE DATABASE {name} OWNER {identifier(database.owner)} "
                    f"TEMPLATE template0 ENCODING {text(database.encoding)} "
                    f"LOCALE {text(database.locale)}"
                    + (f" CONNECTION LIMIT {limit}" if limit != -1 else "")
                    + ";"
                )
            )
            grants: Grants = {"": {"CONNECT", "TEMPORARY"}}
        else:
            grants = state["grants"]
            if state["owner"] != database.owner:
                owner = identifier(database.owner)
                found.append(Statement(f"ALTER DATABASE {name} OWNER TO {owner};"))
                warnings.append(
                    f"database {database.name} passes from {state['owner']} to "
                    f"{database.owner}; what {state['owner']} made inside stays its own: "
                    "ALTER … OWNER TO moves it"
                )
            if state["connection_limit"] != database.connection_limit:
                limit = database.connection_limit
                found.append(Statement(f"ALTER DATABASE {name} CONNECTION LIMIT {limit};"))
            for key, wanted in (("encoding", database.encoding), ("locale", database.locale)):
                if _plain(state[key]) != _plain(wanted):
                    warnings.append(
                        f"database {database.name} has {key} {state[key]}, not {wanted}; a "
                        "database keeps what it was made with: dump it and load it into a new one"
                    )
        on = f"DATABASE {name}"
        public = grants.get("", set())
        if public:
            found += _grants_between(public, set(), on, "PUBLIC")
        for user in wish.users.values():
            if user.name == database.owner or (not user.present and user.name not in there.roles):
                continue
            level = user.access.get(database.name, "")
            wants = _ON_DATABASE.get(level, set())
            found += _grants_between(grants.get(user.name, set()), wants, on, identifier(user.name))
    return found, warnings


def _plain(value: str) -> str:
    """Encodings and locales have spellings: UTF8 and UTF-8, C.UTF-8 and C.utf8."""
    return value.lower().replace("-", "").replace("_", "")


def plan_extensions(database: Database, inside: Inside) -> list[Statement]:
    """Extensions made, moved to a version where one is given."""
    found = []
    for extension in database.extensions:
        name = identifier(extension.name)
        there = inside.extensions.get(extension.name)
        if there is None:
            words = [f"CREATE EXTENSION {name}"]
            if extension.schema:
                words.append(f"SCHEMA {identifier(extension.schema)}")
            if extension.version:
                words.append(f"VERSION {text(extension.version)}")
            found.append(Statement(" ".join([*words, "CASCADE;"])))
            continue
        if extension.version and there["version"] != extension.version:
            version = text(extension.version)
            found.append(Statement(f"ALTER EXTENSION {name} UPDATE TO {version};"))
        if extension.schema and there["schema"] != extension.schema:
            schema = identifier(extension.schema)
            found.append(Statement(f"ALTER EXTENSION {name} SET SCHEMA {schema};"))
    return found


def plan_inside(wish: Wish, database: Database, there: Cluster, inside: Inside) -> list[Statement]:
    """Who owns the schema public, and what each listed user may do in each schema."""
    found: list[Statement] = []
    if "public" in inside.schema_owners:
        owner = _DATABASE_OWNER if there.version >= 14 else database.owner
        if inside.schema_owners["public"] not in (owner, database.owner):
            found.append(Statement(f"ALTER SCHEMA public OWNER TO {identifier(owner)};"))
        if "CREATE" in inside.schema_grants["public"].get("", set()):
            found.append(Statement("REVOKE CREATE ON SCHEMA public FROM PUBLIC;"))
    for user in wish.users.values():
        if user.name == database.owner or (not user.present and user.name not in there.roles):
            continue
        level = user.access.get(database.name, "")
        found += _plan_user(user, level, database, inside)
    return found


def _plan_user(user: User, level: str, database: Database, inside: Inside) -> list[Statement]:
    found: list[Statement] = []
    who = identifier(user.name)
    for schema in sorted(inside.schema_owners):
        if inside.schema_owners[schema] == user.name:
            continue
        on = f"SCHEMA {identifier(schema)}"
        has = inside.schema_grants[schema].get(user.name, set())
        found += _grants_between(has, _ON_SCHEMA.get(level, set()), on, who)
        for kind, levels in _ON_RELATIONS.items():
            numbers = inside.relations.get((schema, kind), {})
            total = sum(number for owner, number in numbers.items() if owner != user.name)
            counts = inside.grants.get((schema, kind, user.name), {})
            wants = levels.get(level, set()) if total else set()
            # Some of the tables is not all of them.
            whole = {right for right in wants if counts.get(right, 0) >= total}
            spare = set(counts) - wants
            on = f"ALL {kind.upper()} IN SCHEMA {identifier(schema)}"
            found += _grants_between(whole | spare, wants, on, who)
    for letter, (kind, levels) in _DEFAULTS.items():
        has = inside.defaults.get((database.owner, letter, user.name), set())
        prefix = f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(database.owner)} "
        for statement in _grants_between(has, levels.get(level, set()), kind, who):
            found.append(Statement(prefix + statement.sql))
    return found


def plan_removals(wish: Wish, there: Cluster) -> tuple[list[Statement], list[Statement]]:
    """Databases to drop (first), roles to drop (last, when nothing is granted to them any more)."""
    databases = [
        Statement(f"DROP DATABASE {identifier(database.name)} WITH (FORCE);")
        for database in wish.databases.values()
        if not database.present and database.name in there.databases
    ]
    roles = [
        Statement(f"DROP ROLE {identifier(user.name)};")
        for user in wish.users.values()
        if not user.present and user.name in there.roles
    ]
    return databases, roles
