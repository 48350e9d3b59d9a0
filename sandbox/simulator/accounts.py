"""The simulator's memory: accounts, codes and refresh tokens, in SQLite, written before anything is answered."""

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
  dies_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_tokens_of_hub ON refresh_tokens (hub_id);
"""

#: Domains and names are invented; `.example` belongs to nobody.
DEMO_ACCOUNTS = (
    (62515, "Northwind Bakery", "northwind-bakery.example", "olive@northwind-bakery.example"),
    (140209, "Lighthouse Bicycles", "lighthouse-bicycles.example", "sam@lighthouse-bicycles.example"),
    (3870114, "Harbour Dental Care", "harbour-dental.example", "dr.wu@harbour-dental.example"),
    (20481632, "Fjord & Sons Furniture", "fjord-and-sons.example", "ingrid@fjord-and-sons.example"),
    (145332901, "Sandbox of the Quiet Robot", "quiet-robot.example", "dev@quiet-robot.example"),
)
_DAY = 86_400.0
_HOUR = 3_600.0


class Accounts:
    """Thread-safe. With a path, a SIGKILL loses nothing that was answered (a power cut may)."""

    def __init__(self, path: str = ":memory:") -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # the page cache outlives the process, and the machine's crash is not our business
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_SCHEMA)
        self._seed()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _seed(self) -> None:
        with self._change():
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('key', ?)", (os.urandom(32),))
            self._db.executemany(
                "INSERT OR IGNORE INTO accounts (hub_id, name, domain, user) VALUES (?, ?, ?, ?)",
                DEMO_ACCOUNTS,
            )

    def signing_key(self) -> bytes:
        return bytes(self._one("SELECT value FROM facts WHERE name = 'key'")[0])

    def account(self, hub_id: int) -> Account:
        """The account of that number; one that nobody has heard of is founded on the spot."""
        row = self._one("SELECT * FROM accounts WHERE hub_id = ?", hub_id)
        if row is None:
            with self._change():
                self._found([hub_id])
            row = self._one("SELECT * FROM accounts WHERE hub_id = ?", hub_id)
        return Account(*row)

    def listed(self, limit: int) -> list[tuple[Account, bool]]:
        """Accounts, those with the app installed first, and whether they have it."""
        installed = "EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.hub_id = a.hub_id AND r.dies_at IS NULL)"
        with self._lock:
            rows = self._db.execute(
                f"SELECT a.*, {installed} AS has FROM accounts a ORDER BY has DESC, hub_id LIMIT ?",  # noqa: S608 a constant
                (limit,),
            ).fetchall()
        return [(Account(*row[:-1]), bool(row[-1])) for row in rows]

    def add_code(self, code: Code, now: float) -> None:
        with self._change():
            self._db.execute("DELETE FROM codes WHERE expires_at < ?", (now - _DAY,))
            self._db.execute("INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?)", _row(code))

    def code(self, code: str) -> Code | None:
        row = self._one("SELECT * FROM codes WHERE code = ?", code)
        if row is None:
            return None
        value, hub_id, client_id, redirect_uri, scopes, expires_at = row
        return Code(value, hub_id, client_id, redirect_uri, tuple(scopes.split()), expires_at)

    def spend(self, code: str) -> bool:
        """False if somebody else was faster: a code is good for one exchange."""
        with self._change():
            return self._db.execute("DELETE FROM codes WHERE code = ?", (code,)).rowcount == 1

    def refresh_token(self, token: str) -> RefreshToken | None:
        row = self._one("SELECT * FROM refresh_tokens WHERE token = ?", token)
        if row is None:
            return None
        value, hub_id, client_id, scopes, dies_at = row
        return RefreshToken(value, hub_id, client_id, tuple(scopes.split()), dies_at)

    def latest_of(self, hub_id: int) -> RefreshToken | None:
        """The account's living refresh token, else the one that died last; None where there never was one."""
        order = "ORDER BY dies_at IS NOT NULL, dies_at DESC LIMIT 1"
        row = self._one(f"SELECT token FROM refresh_tokens WHERE hub_id = ? {order}", hub_id)  # noqa: S608 a constant
        return self.refresh_token(row[0]) if row else None

    def install(self, hub_id: int, client_id: str, scopes: tuple[str, ...], reinstall: str, now: float) -> str:
        """The account's refresh token. `reinstall`: same, new (beside the old one) or new_kills_old."""
        self.account(hub_id)
        with self._change():
            old = self._living(hub_id, client_id)
            if old and reinstall == "same":
                query = "UPDATE refresh_tokens SET scopes = ?, dies_at = NULL WHERE token = ?"
                self._db.execute(query, (" ".join(scopes), old))
                return old
            if reinstall == "new_kills_old":
                self._bury(hub_id, now)
            return self._issue(hub_id, client_id, " ".join(scopes))

    def install_many(self, hub_ids: Iterable[int], client_id: str, scopes: tuple[str, ...]) -> list[tuple[int, str]]:
        """A new refresh token for each, in one transaction."""
        issued = [(hub_id, _new_token()) for hub_id in hub_ids]
        text = " ".join(scopes)
        with self._change():
            self._found(hub_id for hub_id, _ in issued)
            self._db.executemany(
                "INSERT INTO refresh_tokens VALUES (?, ?, ?, ?, NULL)",
                ((token, hub_id, client_id, text) for hub_id, token in issued),
            )
        return issued

    def rotate(self, old: RefreshToken, grace: float, now: float) -> str:
        """A new refresh token; the old one dies after `grace` seconds, if it has not begun to die already."""
        with self._change():
            self._db.execute("DELETE FROM refresh_tokens WHERE hub_id = ? AND dies_at < ?", (old.hub_id, now - _HOUR))
            query = "UPDATE refresh_tokens SET dies_at = coalesce(dies_at, ?) WHERE token = ?"
            self._db.execute(query, (now + grace, old.token))
            return self._issue(old.hub_id, old.client_id, " ".join(old.scopes))

    def revoke(self, token: str, now: float) -> None:
        with self._change():
            self._db.execute("UPDATE refresh_tokens SET dies_at = ? WHERE token = ?", (now, token))

    def uninstall(self, hub_id: int, now: float, *, keep_access_tokens: bool) -> None:
        with self._change():
            self._bury(hub_id, now)
            if not keep_access_tokens:
                self._db.execute("UPDATE accounts SET generation = generation + 1 WHERE hub_id = ?", (hub_id,))

    def forget(self) -> None:
        """Back to the demo accounts, nothing installed, and another key: old access tokens are unknown."""
        with self._change():
            for table in ("facts", "accounts", "codes", "refresh_tokens"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 constants
            self._seed()

    def _living(self, hub_id: int, client_id: str) -> str | None:
        query = "SELECT token FROM refresh_tokens WHERE hub_id = ? AND client_id = ? AND dies_at IS NULL"
        row = self._one(query, hub_id, client_id)
        return str(row[0]) if row else None

    def _issue(self, hub_id: int, client_id: str, scopes: str) -> str:
        token = _new_token()
        self._db.execute("INSERT INTO refresh_tokens VALUES (?, ?, ?, ?, NULL)", (token, hub_id, client_id, scopes))
        return token

    def _bury(self, hub_id: int, now: float) -> None:
        query = "UPDATE refresh_tokens SET dies_at = min(coalesce(dies_at, ?), ?) WHERE hub_id = ?"
        self._db.execute(query, (now, now, hub_id))

    def _found(self, hub_ids: Iterable[int]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO accounts (hub_id, name, domain, user) VALUES (?, ?, ?, ?)",
            ((hub, f"Account {hub}", f"account-{hub}.example", f"admin@account-{hub}.example") for hub in hub_ids),
        )

    def _one(self, query: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    @contextmanager
    def _change(self) -> Iterator[None]:
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


def _row(code: Code) -> tuple[object, ...]:
    return (
        code.code,
        code.hub_id,
        code.client_id,
        code.redirect_uri,
        " ".join(code.scopes),
        code.expires_at,
    )


def _new_token() -> str:
    return f"na1-{uuid.uuid4()}"
