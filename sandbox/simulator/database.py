"""The simulator's state in SQLite, committed before a call is answered."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS apps (app_id INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS accounts (
  hub_id INTEGER PRIMARY KEY, name TEXT NOT NULL, domain TEXT NOT NULL, user TEXT NOT NULL,
  account_type TEXT NOT NULL DEFAULT 'STANDARD', hublet TEXT NOT NULL DEFAULT 'na1'
);
CREATE TABLE IF NOT EXISTS installs (
  hub_id INTEGER NOT NULL, client_id TEXT NOT NULL, user_id INTEGER NOT NULL, is_installed INTEGER NOT NULL DEFAULT 1,
  generation INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (hub_id, client_id, user_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS codes (
  code TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL, redirect_uri TEXT NOT NULL,
  scopes TEXT NOT NULL, expires_at REAL NOT NULL, user_id INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS refresh_tokens (
  token TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL, scopes TEXT NOT NULL,
  revoked_at REAL, user_id INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_tokens_of_hub ON refresh_tokens (hub_id);
"""
#: Columns that state files of earlier versions lack: what is installed in them stays installed.
_NEW_COLUMNS = (
    ("accounts", "account_type", "TEXT NOT NULL DEFAULT 'STANDARD'"),
    ("accounts", "hublet", "TEXT NOT NULL DEFAULT 'na1'"),
    ("codes", "user_id", "INTEGER NOT NULL DEFAULT 0"),
    ("refresh_tokens", "user_id", "INTEGER NOT NULL DEFAULT 0"),
)
_ADD_INSTALLS = """
INSERT INTO installs (hub_id, client_id, user_id)
SELECT DISTINCT hub_id, client_id, user_id FROM refresh_tokens WHERE revoked_at IS NULL
"""


class SimulatorDatabase:
    """Thread-safe. With a path, a SIGKILL loses nothing that was answered (a power cut may)."""

    def __init__(self, path: str = ":memory:") -> None:
        """Raises sqlite3.Error."""
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # the page cache outlives the process; a crash of the machine may lose data
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._upgrade()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def fetch_one(self, query: str, *values: object) -> Any:
        """A row, or None."""
        with self._lock:
            return self._db.execute(query, values).fetchone()

    def fetch_all(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def execute(self, query: str, *values: object) -> int:
        """The number of rows that it changed."""
        with self._lock:
            return self._db.execute(query, values).rowcount

    def execute_many(self, query: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._lock:
            self._db.executemany(query, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction; inside another one, a part of it."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _upgrade(self) -> None:
        has_old_tokens = bool(self._list_columns("refresh_tokens")) and not self._list_columns("installs")
        if "dies_at" in self._list_columns("refresh_tokens"):  # of version 0.1
            self._db.execute("ALTER TABLE refresh_tokens RENAME COLUMN dies_at TO revoked_at")
        for table, column, definition in _NEW_COLUMNS:
            if (columns := self._list_columns(table)) and column not in columns:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")
        self._db.executescript(_SCHEMA)
        if has_old_tokens:
            self._db.execute(_ADD_INSTALLS)

    def _list_columns(self, table: str) -> set[str]:
        """Empty where there is no such table."""
        return {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
