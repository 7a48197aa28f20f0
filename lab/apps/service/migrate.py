#!/usr/bin/env python3
"""Brings the database of the stand-in service to its schema, step by step, each step once.

Fails with MIGRATE_FAIL=1, which is how tests get a release whose migration fails.
"""

from __future__ import annotations

import os
import sys

from service import SCHEMA, log, short

STEPS = [
    ("0001-tables", SCHEMA),
    ("0002-items-by-name", "CREATE INDEX IF NOT EXISTS items_name ON items (name)"),
]


def migrate(url: str) -> list[str]:
    """The steps that were taken. One transaction: all of them are, or none."""
    import psycopg2

    link = psycopg2.connect(url, connect_timeout=10)
    try:
        with link, link.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(72616)")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS migrations "
                "(name text PRIMARY KEY, made timestamptz NOT NULL DEFAULT now())"
            )
            cursor.execute("SELECT name FROM migrations")
            done = {name for (name,) in cursor.fetchall()}
            taken = [step for step in STEPS if step[0] not in done]
            for name, statement in taken:
                cursor.execute(statement)
                cursor.execute("INSERT INTO migrations (name) VALUES (%s)", (name,))
        return [name for name, _ in taken]
    finally:
        link.close()


def main() -> int:
    if os.environ.get("MIGRATE_FAIL") == "1":
        log("error", "migration fails as told")
        return 1
    url = os.environ.get("DATABASE_URL")
    if not url:
        log("info", "there is no database to migrate")
        return 0
    try:
        log("info", "migrated", steps=migrate(url))
    except Exception as error:
        log("error", "migration failed", error=short(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
