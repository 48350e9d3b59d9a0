"""A connection to one HubSpot account: its states, and every way from one to another.

(none) ─install─▶ ACTIVE ─dead answer─▶ SUSPECT ─second witness─▶ REVOKED     any ─operator─▶ DISCONNECTED
                  ▲  └ refreshed, or failed and due again ┘  │                any ─install again─▶ ACTIVE
                  └──────────── alive after all ─────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable, WrongHub
from shared.domain.grant import Grant, Introspection
from shared.domain.schedule import Schedule, retry_at


class Status(StrEnum):
    #: HubSpot hands out tokens for it.
    ACTIVE = "active"
    #: One witness says that the grant is dead. Still served while its token lives.
    SUSPECT = "suspect"
    #: HubSpot ended it, two witnesses say so.
    REVOKED = "revoked"
    #: The operator ended it.
    DISCONNECTED = "disconnected"


class EventName(StrEnum):
    """The words of `hubspot.history`."""

    INSTALLED = "installed"
    REINSTALLED = "reinstalled"
    IMPORTED = "imported"
    SCOPES_CHANGED = "scopes_changed"
    REFRESH_FAILED = "refresh_failed"
    RECOVERED = "recovered"
    SUSPECTED = "suspected"
    REVOKED = "revoked"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. `status` is set where the event changed it: listeners are told of those."""

    name: EventName
    detail: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """What decides about one connection's next step; its secrets stay outside."""

    hub_id: int
    status: Status
    failures: int = 0  #: attempts in a row that brought no token
    lifetime_seconds: float | None = None  #: seconds that the newest access token lives in all; None before the first
    scopes: tuple[str, ...] = ()
    due_at: datetime | None = None  #: when the next refresh is due; None where there is none
    retry_not_before: datetime | None = None  #: HubSpot's own Retry-After for this account
    last_error: str | None = None
    status_reason: str | None = None  #: of the status


@dataclass(frozen=True, slots=True)
class Transition:
    """What an attempt made of a connection: how it stands now, what to keep of the grant, what to tell."""

    connection: Connection
    grant: Grant | None = None
    events: tuple[Event, ...] = ()
    pending_revocation: dict[str, Any] | None = None  #: what both witnesses said, where the revocation brake holds it


def after_refresh(connection: Connection, grant: Grant, schedule: Schedule) -> Transition:
    """HubSpot handed out a new access token."""
    events = []
    scopes = connection.scopes if grant.scopes is None else grant.scopes
    if connection.failures or connection.status is Status.SUSPECT:
        changed = Status.ACTIVE if connection.status is not Status.ACTIVE else None
        events.append(Event(EventName.RECOVERED, {"failures": connection.failures}, changed))
    if connection.scopes and set(scopes) != set(connection.scopes):
        detail = {"before": sorted(connection.scopes), "after": sorted(scopes)}
        events.append(Event(EventName.SCOPES_CHANGED, detail))
    after = Connection(
        hub_id=connection.hub_id,
        status=Status.ACTIVE,
        lifetime_seconds=float(grant.expires_in),
        scopes=scopes,
        due_at=schedule.due_at(connection.hub_id, grant.granted_at, grant.expires_in),
    )
    return Transition(after, grant, tuple(events))


def after_failure(connection: Connection, error: ProviderError, now: datetime) -> Transition:
    """HubSpot handed out nothing. Due again later, whoever is to blame; a dead answer makes it suspect."""
    if isinstance(error, InvalidGrant) and connection.status is Status.REVOKED:
        # An operator had it tried once more, and HubSpot has not changed its mind.
        return Transition(replace(connection, due_at=None, retry_not_before=None, last_error=str(error)))
    events = []
    if connection.failures == 0 and not isinstance(error, InvalidClient):
        events.append(Event(EventName.REFRESH_FAILED, error.evidence()))
    after = _due_again(connection, error, now)
    if isinstance(error, InvalidGrant) and connection.status is not Status.SUSPECT:
        events.append(Event(EventName.SUSPECTED, error.evidence(), Status.SUSPECT))
        after = replace(after, status=Status.SUSPECT, status_reason=_reason(error))
    return Transition(after, events=tuple(events))


def after_introspection(
    step: Transition, accusation: InvalidGrant, witness: Introspection | ProviderError
) -> Transition:
    """The second witness was asked about a connection that `failed` left suspect.

    Inactive: revoked. Active: back to trying. No answer: it stays suspect and both are asked again.
    A grant of another account needs no witness: it is not dead, it is in the wrong row.
    """
    if isinstance(witness, ProviderError) or isinstance(accusation, WrongHub):
        return step
    suspect = step.connection
    if witness.active:
        alive = Event(EventName.RECOVERED, {"witness": "introspection", "active": True}, Status.ACTIVE)
        return Transition(replace(suspect, status=Status.ACTIVE, status_reason=None), events=(*step.events, alive))
    evidence = {"refresh": accusation.evidence(), "introspection": {"active": False}}
    dead = replace(suspect, status=Status.REVOKED, due_at=None, retry_not_before=None)
    return Transition(dead, events=(*step.events, Event(EventName.REVOKED, evidence, Status.REVOKED)))


def after_decryption_failure(connection: Connection, now: datetime) -> Transition:
    """Its refresh token is sealed with a key that we do not have: our trouble, never the account's."""
    return Transition(_due_again(connection, ProviderError("sealed_with_unknown_key"), now))


def _due_again(connection: Connection, error: ProviderError, now: datetime) -> Connection:
    # A refusal of our app says nothing about the account: it is due again soon, and no failure of its own.
    failures = connection.failures + (not isinstance(error, InvalidClient))
    # Kept per account: a 477 concerns nobody else, and a 429's pause of everybody is the provider's state.
    wait = error.retry_after if isinstance(error, TemporarilyUnavailable) else None
    return replace(
        connection,
        failures=failures,
        due_at=retry_at(
            connection.hub_id, max(failures, 1), now, lifetime_seconds=connection.lifetime_seconds, retry_after=wait
        ),
        retry_not_before=now + timedelta(seconds=wait) if wait else None,
        last_error=str(error),
    )


def _reason(error: ProviderError) -> str:
    return f"HubSpot answered {error} to a refresh"
