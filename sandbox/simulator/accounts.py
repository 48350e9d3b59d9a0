"""The simulator's stored state: accounts, codes and refresh tokens, in SQLite, committed before a call is answered."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.simulator.records import Account, Code, RefreshToken

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
  hub_id INTEGER PRIMARY KEY, name TEXT NOT NULL, domain TEXT NOT NULL, user TEXT NOT NULL,
  generation INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS codes (
  code TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL, redirect_uri TEXT NOT NULL,
  scopes TEXT NOT NULL, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS refresh_tokens (
  token TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL, scopes TEXT NOT NULL,
  revoked_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_tokens_of_hub ON refresh_tokens (hub_id);
"""

#: Names are invented; domains below `.example` are reserved.
DEMO_ACCOUNTS = (
    (62515, "Northwind Bakery", "northwind-bakery.example", "olive@northwind-bakery.example"),
    (140209, "Lighthouse Bicycles", "lighthouse-bicycles.example", "sam@lighthouse-bicycles.example"),
    (3870114, "Harbour Dental Care", "harbour-dental.example", "dr.wu@harbour-dental.example"),
    (20481632, "Fjord & Sons Furniture", "fjord-and-sons.example", "ingrid@fjord-and-sons.example"),
    (145332901, "Sandbox of the Quiet Robot", "quiet-robot.example", "dev@quiet-robot.example"),
)
EXPIRED_CODE_SECONDS = 86_400.0
REVOKED_TOKEN_SECONDS = 3_600.0


class Accounts:
    """Thread-safe. With a path, a SIGKILL loses nothing that was answered (a power cut may)."""

    def __init__(self, path: str = ":memory:") -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # the page cache outlives the process; a crash of the machine may lose data
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._rename_old_column()
        self._db.executescript(_SCHEMA)
        self._insert_demo_data()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def reset(self) -> None:
        """Back to the demo accounts, nothing installed, and a new key: old access tokens become unknown."""
        with self._transaction():
            for table in ("facts", "accounts", "codes", "refresh_tokens"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 constants
            self._insert_demo_data()

    def read_signing_key(self) -> bytes:
        return bytes(self._fetch_one("SELECT value FROM facts WHERE name = 'key'")[0])

    def get_account(self, hub_id: int) -> Account:
        """Created where it does not exist."""
        row = self._fetch_one("SELECT * FROM accounts WHERE hub_id = ?", hub_id)
        if row is None:
            with self._transaction():
                self._insert_accounts([hub_id])
            row = self._fetch_one("SELECT * FROM accounts WHERE hub_id = ?", hub_id)
        return Account(*row)

    def list_accounts(self, limit: int) -> list[tuple[Account, bool]]:
        """Accounts, and whether they have the app installed; those that have it come first."""
        installed = "EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.hub_id = a.hub_id AND r.revoked_at IS NULL)"
        with self._lock:
            rows = self._db.execute(
                f"SELECT a.*, {installed} AS has FROM accounts a ORDER BY has DESC, hub_id LIMIT ?",  # noqa: S608 a constant
                (limit,),
            ).fetchall()
        return [(Account(*row[:-1]), bool(row[-1])) for row in rows]

    def add_code(self, code: Code, now: float) -> None:
        scopes = " ".join(code.scopes)
        row = (code.code, code.hub_id, code.client_id, code.redirect_uri, scopes, code.expires_at)
        with self._transaction():
            self._db.execute("DELETE FROM codes WHERE expires_at < ?", (now - EXPIRED_CODE_SECONDS,))
            self._db.execute("INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?)", row)

    def find_code(self, code: str) -> Code | None:
        row = self._fetch_one("SELECT * FROM codes WHERE code = ?", code)
        if row is None:
            return None
        value, hub_id, client_id, redirect_uri, scopes, expires_at = row
        return Code(value, hub_id, client_id, redirect_uri, tuple(scopes.split()), expires_at)

    def consume_code(self, code: str) -> bool:
        """False where another request consumed it first: a code is good for one exchange."""
        with self._transaction():
            return self._db.execute("DELETE FROM codes WHERE code = ?", (code,)).rowcount == 1

    def find_refresh_token(self, token: str) -> RefreshToken | None:
        """Revoked ones too."""
        row = self._fetch_one("SELECT * FROM refresh_tokens WHERE token = ?", token)
        if row is None:
            return None
        value, hub_id, client_id, scopes, revoked_at = row
        return RefreshToken(value, hub_id, client_id, tuple(scopes.split()), revoked_at)

    def find_latest_refresh_token(self, hub_id: int) -> RefreshToken | None:
        """The account's valid refresh token, else the one that was revoked last."""
        order = "ORDER BY revoked_at IS NOT NULL, revoked_at DESC LIMIT 1"
        row = self._fetch_one(f"SELECT token FROM refresh_tokens WHERE hub_id = ? {order}", hub_id)  # noqa: S608 a constant
        return self.find_refresh_token(row[0]) if row else None

    def install(self, hub_id: int, client_id: str, scopes: tuple[str, ...], reinstall: str, now: float) -> str:
        """The account's refresh token.

        `reinstall`, for an account that has one: "same", "new" (the old one stays valid) or "new_kills_old".
        """
        self.get_account(hub_id)
        with self._transaction():
            query = "SELECT token FROM refresh_tokens WHERE hub_id = ? AND client_id = ? AND revoked_at IS NULL"
            row = self._fetch_one(query, hub_id, client_id)
            if row and reinstall == "same":
                query = "UPDATE refresh_tokens SET scopes = ?, revoked_at = NULL WHERE token = ?"
                self._db.execute(query, (" ".join(scopes), row[0]))
                return str(row[0])
            if reinstall == "new_kills_old":
                self._revoke_all(hub_id, now)
            return self._insert_refresh_token(hub_id, client_id, " ".join(scopes))

    def install_many(self, hub_ids: Iterable[int], client_id: str, scopes: tuple[str, ...]) -> list[tuple[int, str]]:
        """A new refresh token for each account, in one transaction."""
        tokens = [(hub_id, _new_token()) for hub_id in hub_ids]
        text = " ".join(scopes)
        with self._transaction():
            self._insert_accounts(hub_id for hub_id, _ in tokens)
            self._db.executemany(
                "INSERT INTO refresh_tokens VALUES (?, ?, ?, ?, NULL)",
                ((token, hub_id, client_id, text) for hub_id, token in tokens),
            )
        return tokens

    def rotate(self, old: RefreshToken, grace_seconds: float, now: float) -> str:
        """A new refresh token; the old one is revoked `grace_seconds` later, unless an earlier end is set."""
        with self._transaction():
            query = "DELETE FROM refresh_tokens WHERE hub_id = ? AND revoked_at < ?"
            self._db.execute(query, (old.hub_id, now - REVOKED_TOKEN_SECONDS))
            query = "UPDATE refresh_tokens SET revoked_at = coalesce(revoked_at, ?) WHERE token = ?"
            self._db.execute(query, (now + grace_seconds, old.token))
            return self._insert_refresh_token(old.hub_id, old.client_id, " ".join(old.scopes))

    def revoke(self, token: str, now: float) -> None:
        with self._transaction():
            self._db.execute("UPDATE refresh_tokens SET revoked_at = ? WHERE token = ?", (now, token))

    def uninstall(self, hub_id: int, now: float, *, keep_access_tokens: bool) -> None:
        with self._transaction():
            self._revoke_all(hub_id, now)
            if not keep_access_tokens:
                self._db.execute("UPDATE accounts SET generation = generation + 1 WHERE hub_id = ?", (hub_id,))

    def _rename_old_column(self) -> None:
        """State files of version 0.1 have `dies_at`: accounts that are installed in them stay installed."""
        if any(row[1] == "dies_at" for row in self._db.execute("PRAGMA table_info(refresh_tokens)")):
            self._db.execute("ALTER TABLE refresh_tokens RENAME COLUMN dies_at TO revoked_at")

    def _insert_demo_data(self) -> None:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('key', ?)", (os.urandom(32),))
            self._db.executemany(
                "INSERT OR IGNORE INTO accounts (hub_id, name, domain, user) VALUES (?, ?, ?, ?)",
                DEMO_ACCOUNTS,
            )

    def _insert_accounts(self, hub_ids: Iterable[int]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO accounts (hub_id, name, domain, user) VALUES (?, ?, ?, ?)",
            ((hub, f"Account {hub}", f"account-{hub}.example", f"admin@account-{hub}.example") for hub in hub_ids),
        )

    def _insert_refresh_token(self, hub_id: int, client_id: str, scopes: str) -> str:
        token = _new_token()
        self._db.execute("INSERT INTO refresh_tokens VALUES (?, ?, ?, ?, NULL)", (token, hub_id, client_id, scopes))
        return token

    def _revoke_all(self, hub_id: int, now: float) -> None:
        query = "UPDATE refresh_tokens SET revoked_at = min(coalesce(revoked_at, ?), ?) WHERE hub_id = ?"
        self._db.execute(query, (now, now, hub_id))

    def _fetch_one(self, query: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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


def _new_token() -> str:
    return f"na1-{uuid.uuid4()}"
