"""Creates databases in the embedded PostgreSQL."""

from __future__ import annotations

from contextlib import closing

import psycopg2
from psycopg2 import sql

from sandbox.embedded.postgres import EmbeddedPostgres


def create_database(server: EmbeddedPostgres, name: str) -> str:
    """Creates the database unless it exists; returns its URL."""
    with closing(psycopg2.connect(server.url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url(name)
