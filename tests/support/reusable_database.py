"""A migrated database that one test after the other uses: its rows become those of a new one again.

A test that changed more than rows (a table, a privilege, a setting, statistics) leaves a database that is not reset.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import psycopg2

from tests.support.kept_connection import KeptConnection, reset_session

#: Dead rows and index entries of so many tests make it slower than a new one.
MAX_USES = 100
MAX_BYTES = 4 << 20
TABLES = """
SELECT c.oid::regclass::text FROM pg_class AS c
 WHERE c.relkind = 'r' AND c.relnamespace IN ('tokenkeeper'::regnamespace, 'hubspot'::regnamespace)
"""
SEQUENCES = """
SELECT c.oid::regclass::text FROM pg_class AS c
 WHERE c.relkind = 'S' AND c.relnamespace IN ('tokenkeeper'::regnamespace, 'hubspot'::regnamespace)
"""
SIZE_BYTES = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE oid >= 16384 AND relkind = 'r'"
#: Every change of the catalogues adds or removes a row, or writes a new one. 16384 is the first id that is no system
#: object's.
FINGERPRINT = """
SELECT (SELECT sum(xmin::text::bigint) FROM pg_class WHERE oid >= 16384),
       (SELECT sum(reltuples) FROM pg_class WHERE oid >= 16384 AND reltuples > 0),
       (SELECT sum(xmin::text::bigint) FROM pg_attribute WHERE attrelid >= 16384),
       (SELECT sum(xmin::text::bigint) FROM pg_constraint WHERE oid >= 16384),
       (SELECT sum(xmin::text::bigint) FROM pg_index WHERE indexrelid >= 16384),
       (SELECT sum(xmin::text::bigint) FROM pg_rewrite WHERE oid >= 16384),
       (SELECT sum(xmin::text::bigint) FROM pg_proc WHERE oid >= 16384),
       (SELECT sum(xmin::text::bigint) FROM pg_trigger),
       (SELECT sum(xmin::text::bigint) FROM pg_namespace),
       (SELECT sum(xmin::text::bigint) FROM pg_database WHERE datname = current_database()),
       (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase > 0)
"""
OTHER_SESSIONS = """
FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid NOT IN (pg_backend_pid(), {kept_pids})
"""
TERMINATE_OTHER_SESSIONS = f"SELECT count(pg_terminate_backend(pid, 5000)) {OTHER_SESSIONS}"
COUNT_OTHER_SESSIONS = f"SELECT count(*) {OTHER_SESSIONS}"
#: No trigger and no foreign key is obeyed.
IN_SESSION = "SET session_replication_role = replica"


class ReusableDatabase:
    """`url` is a superuser's, of a database that is as new."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = urlsplit(url).path[1:]
        self._connection = self._connect()
        self._kept_session: Any = None  #: that tests use; None: no test has used one yet
        self.worker_connection = KeptConnection()  #: for engines with the worker's login
        self._uses = 0
        self._rows(IN_SESSION)
        self._fingerprint = self._rows(FINGERPRINT)
        self._reset_statements = self._make_reset_statements()

    def lend_session(self) -> Any:
        """A superuser's connection as `psycopg2.connect` makes it, with autocommit; the same for the next test."""
        if self._kept_session is None:
            self._kept_session = self._connect()
        return self._kept_session

    def reset(self) -> bool:
        """Whether the database is as new again: the test changed nothing but rows."""
        self._uses += 1
        try:
            self._reset_session()
            kept_pid = self._kept_session.info.backend_pid if self._kept_session else 0
            kept_pids = f"{kept_pid}, {self.worker_connection.pid}"
            self._rows(TERMINATE_OTHER_SESSIONS.format(kept_pids=kept_pids))
            if self._rows(COUNT_OTHER_SESSIONS.format(kept_pids=kept_pids))[0][0]:
                return False  # one that stands still could commit later what the test began
            is_worn = self._uses >= MAX_USES or self._rows(SIZE_BYTES)[0][0] > MAX_BYTES
            if is_worn or self._rows(FINGERPRINT) != self._fingerprint:
                return False
            self._rows(self._reset_statements)
        except psycopg2.Error:  # the test stopped the server, or ended this session
            return False
        return True

    def close(self) -> None:
        self._connection.close()
        self.worker_connection.close()
        if self._kept_session:
            self._kept_session.close()

    def _connect(self) -> Any:
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        return connection

    def _reset_session(self) -> None:
        """Let nothing of the last test be left in it, or none be kept."""
        if session := self._kept_session:
            try:
                reset_session(session)
            except psycopg2.Error:  # the test closed or ended it
                session.close()
                self._kept_session = None

    def _make_reset_statements(self) -> str:
        """Delete all rows, and insert those that the migrations did."""
        tables = [table for (table,) in self._rows(TABLES)]
        statements = [f"DELETE FROM {table}" for table in tables]
        statements += [self._make_insert(table) for table in tables if self._rows(f"SELECT 1 FROM {table}")]
        statements += [self._make_restart(sequence) for (sequence,) in self._rows(SEQUENCES)]
        return ";".join(statements)

    def _make_insert(self, table: str) -> str:
        ((rows,),) = self._rows(f"SELECT json_agg(t)::text FROM {table} AS t")
        with self._connection.cursor() as cursor:
            insert = (
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, %s)"
            )
            return str(cursor.mogrify(insert, (rows,)).decode())

    def _make_restart(self, sequence: str) -> str:
        ((last_value, is_called),) = self._rows(f"SELECT last_value, is_called FROM {sequence}")
        return f"SELECT setval('{sequence}', {last_value}, {is_called})"

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
