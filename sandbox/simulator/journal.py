"""HubSpot's Webhooks Journal: subscriptions, lifecycle events, and the files in which apps read them."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.database import SimulatorDatabase
from sandbox.simulator.records import DEFAULT_USER_ID, NO_USER, Installation

INSTALL, UNINSTALL = "APP_INSTALL", "APP_UNINSTALL"
EVENT_TYPE_IDS = {INSTALL: "4-1909196", UNINSTALL: "4-1916193"}
_FILE = "client_id, offset_id, published_at, events"
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS app_tokens (
         token TEXT PRIMARY KEY, client_id TEXT NOT NULL, scopes TEXT NOT NULL, expires_at REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS subscriptions (
         id INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT NOT NULL, event_type_id TEXT NOT NULL,
         created_at REAL NOT NULL, UNIQUE (client_id, event_type_id))""",
    """CREATE TABLE IF NOT EXISTS journal_events (
         id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, occurred_at REAL NOT NULL, event TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS journal_files (
         id INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT NOT NULL, offset_id TEXT NOT NULL UNIQUE,
         published_at REAL NOT NULL, events TEXT NOT NULL)""",
)


class LostOffset(Exception):
    """There is no file with that offset: it was never there, or its time is over."""


@dataclass(frozen=True, slots=True)
class Subscription:
    id: int
    event_type_id: str
    created_at: float


@dataclass(frozen=True, slots=True)
class JournalFile:
    client_id: str
    offset: str
    published_at: float
    events: str = field(repr=False)  #: a JSON array

    def make_body(self) -> bytes:
        head = json.dumps({"offset": self.offset, "publishedAt": format_instant(self.published_at)})
        return f'{head[:-1]}, "journalEvents": {self.events}}}'.encode()


@dataclass(frozen=True, slots=True)
class AppToken:
    """What the client-credentials grant brings: it acts for the app, in no account."""

    token: str = field(repr=False)
    client_id: str
    scopes: tuple[str, ...]
    expires_at: float


class Journal:
    """Thread-safe. Every app has its own journal, and events only from when it has subscribed to them."""

    def __init__(self, database: SimulatorDatabase, get_app_id: Callable[[str], int]) -> None:
        self._db = database
        self._get_app_id = get_app_id
        for statement in _SCHEMA:
            database.execute(statement)

    def reset(self) -> None:
        with self._db.transaction():
            for table in ("app_tokens", "subscriptions", "journal_events", "journal_files"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 constants

    def issue_app_token(self, client_id: str, scopes: tuple[str, ...], expires_at: float) -> AppToken:
        token = AppToken(f"CP{uuid.uuid4().hex}{uuid.uuid4().hex}", client_id, scopes, expires_at)
        self._db.execute(
            "INSERT INTO app_tokens VALUES (?, ?, ?, ?)", token.token, client_id, " ".join(scopes), expires_at
        )
        return token

    def find_app_token(self, token: str) -> AppToken | None:
        """Expired ones too."""
        row = self._db.fetch_one("SELECT * FROM app_tokens WHERE token = ?", token)
        return None if row is None else AppToken(row[0], row[1], tuple(row[2].split()), row[3])

    def subscribe(self, client_id: str, event_type_id: str, now: float) -> Subscription:
        """The same one where it exists."""
        query = "INSERT OR IGNORE INTO subscriptions (client_id, event_type_id, created_at) VALUES (?, ?, ?)"
        self._db.execute(query, client_id, event_type_id, now)
        return next(each for each in self.list_subscriptions(client_id) if each.event_type_id == event_type_id)

    def list_subscriptions(self, client_id: str) -> list[Subscription]:
        query = "SELECT id, event_type_id, created_at FROM subscriptions WHERE client_id = ? ORDER BY id"
        return [Subscription(*row) for row in self._db.fetch_all(query, client_id)]

    def delete_subscription(self, client_id: str, subscription_id: int) -> bool:
        """False where the app has no such subscription."""
        query = "DELETE FROM subscriptions WHERE client_id = ? AND id = ?"
        return self._db.execute(query, client_id, subscription_id) == 1

    def record(self, action: str, installations: Iterable[Installation], now: float) -> None:
        """Events of what was installed or uninstalled, for those apps that have subscribed to them."""
        subscribers = {
            row[0]
            for row in self._db.fetch_all(
                "SELECT client_id FROM subscriptions WHERE event_type_id = ?", EVENT_TYPE_IDS[action]
            )
        }
        if not subscribers:
            return
        rows = (
            (each.client_id, now, json.dumps(self._make_event(action, each, now)))
            for each in installations
            if each.client_id in subscribers
        )
        with self._db.transaction():
            self._db.execute_many("INSERT INTO journal_events (client_id, occurred_at, event) VALUES (?, ?, ?)", rows)

    def publish(self, client_id: str, events: Sequence[Any], now: float) -> str:
        """One file with these events, whatever they contain; returns its offset."""
        return self._add_file(client_id, json.dumps(events), now)

    def list_events(self, client_id: str, behaviour: Behaviour, now: float) -> list[Any]:
        """All events of the files that can still be read, oldest first."""
        files = self.read(client_id, behaviour, now, count=-1)
        return [event for file in files for event in json.loads(file.events)]

    def forget_files(self, client_id: str) -> None:
        """As if the retention of all of them were over."""
        self._db.execute("DELETE FROM journal_files WHERE client_id = ?", client_id)

    def read(
        self, client_id: str, behaviour: Behaviour, now: float, *, count: int = 1, after: str | None = None
    ) -> list[JournalFile]:
        """The next files after that offset, or the earliest ones. Raises LostOffset."""
        self._update_files(client_id, behaviour, now)
        first_id = 0
        if after is not None:
            query = "SELECT id FROM journal_files WHERE client_id = ? AND offset_id = ?"
            row = self._db.fetch_one(query, client_id, after)
            if row is None:
                raise LostOffset(after)
            first_id = row[0] + 1
        query = f"SELECT {_FILE} FROM journal_files WHERE client_id = ? AND id >= ? ORDER BY id LIMIT ?"  # noqa: S608 a constant
        return [JournalFile(*row) for row in self._db.fetch_all(query, client_id, first_id, count)]

    def read_latest(self, client_id: str, behaviour: Behaviour, now: float, *, count: int = 1) -> list[JournalFile]:
        """Oldest of them first."""
        self._update_files(client_id, behaviour, now)
        query = f"SELECT {_FILE} FROM journal_files WHERE client_id = ? ORDER BY id DESC LIMIT ?"  # noqa: S608 a constant
        return [JournalFile(*row) for row in reversed(self._db.fetch_all(query, client_id, count))]

    def find_file(self, offset: str) -> JournalFile | None:
        row = self._db.fetch_one(f"SELECT {_FILE} FROM journal_files WHERE offset_id = ?", offset)  # noqa: S608 a constant
        return None if row is None else JournalFile(*row)

    def _update_files(self, client_id: str, behaviour: Behaviour, now: float) -> None:
        with self._db.transaction():
            self._publish_due(client_id, behaviour, now)
            query = "DELETE FROM journal_files WHERE client_id = ? AND published_at < ?"
            self._db.execute(query, client_id, now - behaviour.journal_retention)

    def _publish_due(self, client_id: str, behaviour: Behaviour, now: float) -> None:
        newest = now - behaviour.journal_delay
        query = "SELECT id, event FROM journal_events WHERE client_id = ? AND occurred_at <= ? ORDER BY id"
        rows = self._db.fetch_all(query, client_id, newest)
        size = behaviour.journal_file_events
        for start in range(0, len(rows), size):
            events = ",".join(event for _, event in rows[start : start + size])
            self._add_file(client_id, f"[{events}]", now)
        if rows:
            query = "DELETE FROM journal_events WHERE client_id = ? AND occurred_at <= ?"
            self._db.execute(query, client_id, newest)

    def _add_file(self, client_id: str, events: str, now: float) -> str:
        offset = str(uuid.uuid4())
        query = "INSERT INTO journal_files (client_id, offset_id, published_at, events) VALUES (?, ?, ?, ?)"
        self._db.execute(query, client_id, offset, now, events)
        return offset

    def _make_event(self, action: str, installation: Installation, now: float) -> dict[str, Any]:
        user_id = installation.user_id or DEFAULT_USER_ID
        return {
            "type": "app_lifecycle_event",
            "action": action,
            "portalId": installation.hub_id,
            "occurredAt": format_instant(now),
            "eventTypeId": EVENT_TYPE_IDS[action],
            "properties": {
                "hs_app_id": self._get_app_id(installation.client_id),
                "hs_app_install_level": "PORTAL" if installation.user_id == NO_USER else "USER",
                "hs_initiating_user_id": user_id,
                "hs_user_id": user_id,
            },
        }


def sign_file(key: bytes, offset: str, expires_ms: int) -> str:
    """The signature in the URL of a file."""
    return hmac.digest(key, f"{offset} {expires_ms}".encode(), hashlib.sha256).hex()


def format_instant(seconds: float) -> str:
    """As HubSpot writes dates: UTC, with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
