"""Accounts, and what is installed in them: apps, codes and refresh tokens."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from sandbox.simulator.database import SimulatorDatabase
from sandbox.simulator.records import Account, Code, Installation, RefreshToken

#: Names are invented; domains below `.example` are reserved.
DEMO_ACCOUNTS = (
    (62515, "Northwind Bakery", "northwind-bakery.example", "olive@northwind-bakery.example", "STANDARD", "na1"),
    (
        140209,
        "Lighthouse Bicycles",
        "lighthouse-bicycles.example",
        "sam@lighthouse-bicycles.example",
        "STANDARD",
        "na1",
    ),
    (3870114, "Harbour Dental Care", "harbour-dental.example", "dr.wu@harbour-dental.example", "STANDARD", "eu1"),
    (20481632, "Fjord & Sons Furniture", "fjord-and-sons.example", "ingrid@fjord-and-sons.example", "STANDARD", "eu1"),
    (145332901, "Sandbox of the Quiet Robot", "quiet-robot.example", "dev@quiet-robot.example", "SANDBOX", "na1"),
)
EXPIRED_CODE_SECONDS = 86_400.0
REVOKED_TOKEN_SECONDS = 3_600.0
#: Of the first app. Public: HubSpot's journal and its introspection name an app by its id.
FIRST_APP_ID = 111111
_KEY = "hub_id = ? AND client_id = ? AND user_id = ?"
_ACCOUNT = "hub_id, name, domain, user, account_type, hublet"


class Accounts:
    """Thread-safe."""

    def __init__(self, database: SimulatorDatabase) -> None:
        self._db = database
        self._app_ids: dict[str, int] = {}
        self._client_ids: dict[int, str] = {}
        self._insert_demo_data()

    def reset(self) -> None:
        """Back to the demo accounts, nothing installed, and a new key: old access tokens become unknown."""
        with self._db.transaction():
            for table in ("facts", "accounts", "codes", "refresh_tokens", "installs"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 constants
            self._insert_demo_data()

    def read_signing_key(self) -> bytes:
        return bytes(self._db.fetch_one("SELECT value FROM facts WHERE name = 'key'")[0])

    def get_app_id(self, client_id: str) -> int:
        """Numbered in the order in which they are first asked for."""
        if client_id not in self._app_ids:
            with self._db.transaction():
                first = None if self._db.fetch_one("SELECT 1 FROM apps LIMIT 1") else FIRST_APP_ID
                self._db.execute("INSERT OR IGNORE INTO apps VALUES (?, ?)", first, client_id)
            app_id = int(self._db.fetch_one("SELECT app_id FROM apps WHERE client_id = ?", client_id)[0])
            self._app_ids[client_id], self._client_ids[app_id] = app_id, client_id
        return self._app_ids[client_id]

    def find_client_id(self, app_id: int) -> str | None:
        if app_id not in self._client_ids:
            row = self._db.fetch_one("SELECT client_id FROM apps WHERE app_id = ?", app_id)
            if row is None:
                return None
            self._client_ids[app_id] = row[0]
        return self._client_ids[app_id]

    def get_account(self, hub_id: int) -> Account:
        """Created where it does not exist."""
        query = f"SELECT {_ACCOUNT} FROM accounts WHERE hub_id = ?"  # noqa: S608 a constant
        row = self._db.fetch_one(query, hub_id)
        if row is None:
            self._insert_accounts([hub_id])
            row = self._db.fetch_one(query, hub_id)
        return Account(*row)

    def change_account(self, account: Account) -> None:
        """Created where it does not exist."""
        query = f"INSERT OR REPLACE INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 a constant
        self._db.execute(query, *astuple(account))

    def list_accounts(self, limit: int) -> list[tuple[Account, list[Installation]]]:
        """Accounts, and what is installed in them; those that have an app come first."""
        installed = "EXISTS (SELECT 1 FROM installs i WHERE i.hub_id = a.hub_id AND i.is_installed)"
        query = f"SELECT {_ACCOUNT} FROM accounts a ORDER BY {installed} DESC, hub_id LIMIT ?"  # noqa: S608 constants
        accounts = [Account(*row) for row in self._db.fetch_all(query, limit)]
        return [(account, self.list_installations(hub_id=account.hub_id)) for account in accounts]

    def list_installations(
        self, *, hub_id: int | None = None, client_id: str | None = None, user_id: int | None = None
    ) -> list[Installation]:
        """None: any."""
        wanted = {"hub_id": hub_id, "client_id": client_id, "user_id": user_id}
        given = {name: value for name, value in wanted.items() if value is not None}
        conditions = " AND ".join(["is_installed", *(f"{name} = ?" for name in given)])
        query = f"SELECT hub_id, client_id, user_id FROM installs WHERE {conditions}"  # noqa: S608 constants
        return [Installation(*row) for row in self._db.fetch_all(query, *given.values())]

    def find_generation(self, installation: Installation) -> int | None:
        """Access tokens of an older generation are revoked. None: it was never installed."""
        row = self._db.fetch_one(f"SELECT generation FROM installs WHERE {_KEY}", *_key(installation))  # noqa: S608 a constant
        return None if row is None else int(row[0])

    def add_code(self, code: Code, now: float) -> None:
        hub_id, client_id, user_id = _key(code.installation)
        row = (code.code, hub_id, client_id, code.redirect_uri, " ".join(code.scopes), code.expires_at, user_id)
        with self._db.transaction():
            self._db.execute("DELETE FROM codes WHERE expires_at < ?", now - EXPIRED_CODE_SECONDS)
            names = "code, hub_id, client_id, redirect_uri, scopes, expires_at, user_id"
            self._db.execute(f"INSERT INTO codes ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)  # noqa: S608 a constant

    def find_code(self, code: str) -> Code | None:
        query = "SELECT hub_id, client_id, user_id, redirect_uri, scopes, expires_at FROM codes WHERE code = ?"
        row = self._db.fetch_one(query, code)
        return None if row is None else Code(code, Installation(*row[:3]), row[3], tuple(row[4].split()), row[5])

    def consume_code(self, code: str) -> bool:
        """False where another request consumed it first: a code is good for one exchange."""
        return self._db.execute("DELETE FROM codes WHERE code = ?", code) == 1

    def find_refresh_token(self, token: str) -> RefreshToken | None:
        """Revoked ones too."""
        query = "SELECT token, hub_id, client_id, user_id, scopes, revoked_at FROM refresh_tokens WHERE token = ?"
        return _make_refresh_token(self._db.fetch_one(query, token))

    def find_latest_refresh_token(self, installation: Installation) -> RefreshToken | None:
        """The valid refresh token, else the one that was revoked last."""
        names, order = (
            "token, hub_id, client_id, user_id, scopes, revoked_at",
            "revoked_at IS NOT NULL, revoked_at DESC",
        )
        query = f"SELECT {names} FROM refresh_tokens WHERE {_KEY} ORDER BY {order} LIMIT 1"  # noqa: S608 constants
        return _make_refresh_token(self._db.fetch_one(query, *_key(installation)))

    def install(self, installation: Installation, scopes: tuple[str, ...], reinstall: str, now: float) -> str:
        """Its refresh token.

        `reinstall`, where it has one already: "same", "new" (the old one stays valid) or "new_kills_old".
        """
        self.get_account(installation.hub_id)
        key, text = _key(installation), " ".join(scopes)
        with self._db.transaction():
            self._mark_installed([installation])
            query = f"SELECT token FROM refresh_tokens WHERE {_KEY} AND revoked_at IS NULL"  # noqa: S608 a constant
            row = self._db.fetch_one(query, *key)
            if row and reinstall == "same":
                self._db.execute("UPDATE refresh_tokens SET scopes = ? WHERE token = ?", text, row[0])
                return str(row[0])
            if reinstall == "new_kills_old":
                self._revoke_all([installation], now)
            return self._insert_refresh_token(installation, text)

    def install_many(self, installations: Sequence[Installation], scopes: tuple[str, ...]) -> list[str]:
        """A new refresh token for each, in one transaction."""
        tokens, text = [_new_token() for _ in installations], " ".join(scopes)
        with self._db.transaction():
            self._insert_accounts(each.hub_id for each in installations)
            self._mark_installed(installations)
            self._db.execute_many(
                "INSERT INTO refresh_tokens (token, hub_id, client_id, user_id, scopes) VALUES (?, ?, ?, ?, ?)",
                ((token, *_key(each), text) for token, each in zip(tokens, installations, strict=True)),
            )
        return tokens

    def rotate(self, old: RefreshToken, grace_seconds: float, now: float) -> str:
        """A new refresh token; the old one is revoked `grace_seconds` later, unless an earlier end is set."""
        with self._db.transaction():
            query = "DELETE FROM refresh_tokens WHERE hub_id = ? AND revoked_at < ?"
            self._db.execute(query, old.installation.hub_id, now - REVOKED_TOKEN_SECONDS)
            query = "UPDATE refresh_tokens SET revoked_at = coalesce(revoked_at, ?) WHERE token = ?"
            self._db.execute(query, now + grace_seconds, old.token)
            return self._insert_refresh_token(old.installation, " ".join(old.scopes))

    def revoke(self, token: str, now: float) -> None:
        """The app stays installed."""
        self._db.execute("UPDATE refresh_tokens SET revoked_at = ? WHERE token = ?", now, token)

    def uninstall(self, installations: Sequence[Installation], now: float, *, keep_access_tokens: bool) -> None:
        generation = "generation" if keep_access_tokens else "generation + 1"
        with self._db.transaction():
            self._revoke_all(installations, now)
            self._db.execute_many(
                f"UPDATE installs SET is_installed = 0, generation = {generation} WHERE {_KEY}",  # noqa: S608 constants
                (_key(each) for each in installations),
            )

    def _insert_demo_data(self) -> None:
        with self._db.transaction():
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('key', ?)", os.urandom(32))
            query = f"INSERT OR IGNORE INTO accounts ({_ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 a constant
            self._db.execute_many(query, DEMO_ACCOUNTS)

    def _insert_accounts(self, hub_ids: Iterable[int]) -> None:
        self._db.execute_many(
            "INSERT OR IGNORE INTO accounts (hub_id, name, domain, user) VALUES (?, ?, ?, ?)",
            ((hub, f"Account {hub}", f"account-{hub}.example", f"admin@account-{hub}.example") for hub in hub_ids),
        )

    def _mark_installed(self, installations: Iterable[Installation]) -> None:
        self._db.execute_many(
            "INSERT INTO installs (hub_id, client_id, user_id) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET is_installed = 1",
            (_key(each) for each in installations),
        )

    def _insert_refresh_token(self, installation: Installation, scopes: str) -> str:
        token = _new_token()
        query = "INSERT INTO refresh_tokens (token, hub_id, client_id, user_id, scopes) VALUES (?, ?, ?, ?, ?)"
        self._db.execute(query, token, *_key(installation), scopes)
        return token

    def _revoke_all(self, installations: Iterable[Installation], now: float) -> None:
        self._db.execute_many(
            f"UPDATE refresh_tokens SET revoked_at = min(coalesce(revoked_at, ?), ?) WHERE {_KEY}",  # noqa: S608 a constant
            ((now, now, *_key(each)) for each in installations),
        )


def _key(installation: Installation) -> tuple[int, str, int]:
    return installation.hub_id, installation.client_id, installation.user_id


def _make_refresh_token(row: Any) -> RefreshToken | None:
    if row is None:
        return None
    token, hub_id, client_id, user_id, scopes, revoked_at = row
    return RefreshToken(token, Installation(hub_id, client_id, user_id), tuple(scopes.split()), revoked_at)


def _new_token() -> str:
    return f"na1-{uuid.uuid4()}"
