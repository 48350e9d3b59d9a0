"""What must be true after every deed: what is stored and served is what the book says, no more and no less."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from shared.domain.connection import Status
from tests.model.book import HubBook
from tests.model.brakes import BrakeBook
from tests.model.rig import World
from tests.model.spans import Span
from tests.model.standing import LIVE

TOKEN = "SELECT access_token, expires_at, scopes, refreshed_at FROM hubspot.tokens WHERE hub_id = %s"
CONNECTION = """
SELECT status, scopes, installed_at, next_refresh_at, failures, last_error, status_reason, status_since
  FROM hubspot.connections WHERE hub_id = %s
"""
EVENTS = "SELECT event, detail FROM tokenkeeper.history WHERE hub_id = %s ORDER BY id"
ROW = """
SELECT encrypted_refresh_token, access_token, due_at, retry_not_before, lease_until, refresh_requested,
       pending_revocation
  FROM tokenkeeper.connections WHERE hub_id = %s
"""


def check(book: HubBook, world: World) -> None:
    """Also fixes in the book what it knew only roughly, once that was seen to be right."""
    found = world.reader.rows(CONNECTION, book.hub_id)
    assert bool(found) is (book.status is not None)
    if found:
        _connection(book, world, found[0])
        _secrets(book, world)
    _served(book, world)
    _history(book, world)


def check_brake(brake: BrakeBook, books: Iterable[HubBook], world: World) -> None:
    seen = world.stores.brake.read()
    brake.since = fixed(brake.since, seen.since, world)
    assert seen.held == sum(book.held for book in books)


def _connection(book: HubBook, world: World, row: tuple[Any, ...]) -> None:
    status, scopes, installed_at, next_refresh_at, failures, last_error, reason, since = row
    assert status == book.status
    assert set(scopes) == set(book.scopes)
    assert failures == book.failures
    assert (reason is None) is (book.status is Status.ACTIVE)
    assert last_error is not None or not book.failures
    assert (next_refresh_at is not None) is (book.status in LIVE), "nothing live is ever without a date"
    book.installed_at = fixed(book.installed_at, installed_at, world)
    if book.status in (Status.REVOKED, Status.DISCONNECTED):
        book.status_since = fixed(book.status_since, since, world)


def _secrets(book: HubBook, world: World) -> None:
    sealed, access_token, due_at, not_before, lease_until, requested, pending_revocation = world.sql.rows(
        ROW, book.hub_id
    )[0]
    opened = None if sealed is None else world.cipher.decrypt_refresh_token(book.hub_id, sealed)
    assert opened == book.refresh_token, "the newest one that HubSpot gave, until the disconnect is finished"
    assert access_token == (book.access and book.access.token)
    book.due = fixed(book.due, due_at, world)
    book.not_before = fixed(book.not_before, not_before, world)
    assert requested is book.requested
    assert (pending_revocation is not None) is book.held
    assert (lease_until is not None) is (book.holding is not None)
    if book.holding is not None:
        assert world.told(lease_until) in book.holding.until


def _served(book: HubBook, world: World) -> None:
    """No edge of a token's life lies within the time that this takes: the machine sees to that."""
    rows = world.reader.rows(TOKEN, book.hub_id)
    at = Span.exactly(world.now())
    access = book.access
    if book.status not in LIVE or access is None or not access.lives(at):
        assert rows == []
        return
    ((token, expires_at, scopes, refreshed_at),) = rows
    assert token == access.token
    assert world.told(expires_at) in access.expires()
    assert world.told(refreshed_at) in access.granted
    assert set(scopes) == set(book.scopes)


def _history(book: HubBook, world: World) -> None:
    rows = world.sql.rows(EVENTS, book.hub_id)
    events = [event for event, _ in rows]
    assert events == book.events
    for place, (event, detail) in enumerate(rows):
        if event == "revoked":
            assert "suspected" in events[:place]
            assert detail["introspection"] == {"active": False}, "revoked by two witnesses only"
            assert detail["refresh"]["code"]


def fixed(expected: Span | None, stored: datetime | None, world: World) -> Span | None:
    """What was known roughly, exactly."""
    if expected is None or stored is None:
        assert (expected, stored) == (None, None)
        return None
    told = world.told(stored)
    assert told in expected, (told, expected)
    return Span.exactly(told)
