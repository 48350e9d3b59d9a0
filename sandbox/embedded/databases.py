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
                # The default strategy, WAL_LOG, reads and writes 7 MB of catalogues in the server's shared memory.
                cursor.execute(sql.SQL("CREATE DATABASE {} STRATEGY FILE_COPY").format(sql.Identifier(name)))
    return server.url(name)
