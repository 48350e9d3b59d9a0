"""A connection to one HubSpot account: its states, and the transitions that an attempt to refresh it causes.

(none) ──install──▶ ACTIVE ──invalid grant──▶ SUSPECT ──introspection: inactive──▶ REVOKED
                    ▲ │ ▲ ▲                      │                                    │
                    │ │ │ └─ refreshed, or * ────┘                                    │
                    │ │ └─ refreshed at an operator's request, or dismissed ──────────┘
                    └─┘ refreshed, or failed and due again              * introspection: active

any ──the operator disconnects──▶ DISCONNECTED          any ──install again──▶ ACTIVE

The other transitions are SQL: installs, imports and disconnects in `shared/db/lifecycle`, an operator's decision about
held revocations in `shared/db/refresh/brake.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.domain.errors import (
    InvalidClient,
    InvalidGrant,
    ProviderError,
    ScopesRejected,
    TemporarilyUnavailable,
    WrongHub,
)
from shared.domain.grant import Grant, Introspection
from shared.domain.identity import ConnectionIdentity
from shared.domain.schedule import Schedule, retry_at
from shared.domain.values import immutable


class Status(StrEnum):
    #: HubSpot issues tokens for it.
    ACTIVE = "active"
    #: HubSpot rejected its refresh token once. Its access token is served until it expires.
    SUSPECT = "suspect"
    #: HubSpot ended it: the refresh and the introspection both say so.
    REVOKED = "revoked"
    #: The operator ended it.
    DISCONNECTED = "disconnected"


class EventName(StrEnum):
    """The names of events in `hubspot.history`."""

    INSTALLED = "installed"
    REINSTALLED = "reinstalled"
    IMPORTED = "imported"
    SCOPES_CHANGED = "scopes_changed"
    REFRESH_FAILED = "refresh_failed"
    RECOVERED = "recovered"
    SUSPECTED = "suspected"
    REVOKED = "revoked"
    DISCONNECTED = "disconnected"
    CLAIMED = "claimed"
    CLAIM_REFUSED = "claim_refused"
    CUSTOMER_CHANGED = "customer_changed"


#: For an operator, of a connection whose refresh HubSpot answered with BAD_SCOPES.
CONSENT_AGAIN_REASON = (
    "HubSpot rejects the scopes of its grant (BAD_SCOPES): the account must consent again, by installing the app again"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the history. `status` is set where the event changed it: those are sent by NOTIFY too."""

    name: EventName
    detail: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None


@immutable
class Connection:
    """What decides the next transition of a connection. Tokens are not part of it."""

    connection_id: int
    identity: ConnectionIdentity
    status: Status
    failures: int = 0  #: attempts in a row that brought no token
    lifetime_seconds: float | None = None  #: of the newest access token, from issue to expiry; None before the first
    scopes: tuple[str, ...] = ()
    due_at: datetime | None = None  #: when the next refresh is due; None: never
    retry_not_before: datetime | None = None  #: from HubSpot's Retry-After for this account
    last_error: str | None = None
    status_reason: str | None = None


@immutable
class Transition:
    """What to store after an attempt: the new state, the grant where there is one, and rows for the history."""

    connection: Connection
    grant: Grant | None = None
    events: tuple[Event, ...] = ()
    #: detail for the `revoked` event, where the revocation brake holds the revocation back
    pending_revocation: dict[str, Any] | None = None


def apply_refresh(connection: Connection, grant: Grant, schedule: Schedule) -> Transition:
    """HubSpot issued a new access token: the connection is active, whatever it was."""
    if not grant.is_lifetime_known and connection.lifetime_seconds is not None:
        shortest = max(1, int(min(grant.expires_in, connection.lifetime_seconds)))
        grant = replace(grant, expires_in=shortest)
    scopes = connection.scopes if grant.scopes is None else grant.scopes
    events = []
    if connection.failures or connection.status is Status.SUSPECT:
        new_status = None if connection.status is Status.ACTIVE else Status.ACTIVE
        events.append(Event(EventName.RECOVERED, {"failures": connection.failures}, new_status))
    if scopes != connection.scopes and connection.scopes and set(scopes) != set(connection.scopes):
        detail = {"before": sorted(connection.scopes), "after": sorted(scopes)}
        events.append(Event(EventName.SCOPES_CHANGED, detail))
    refreshed = Connection(
        connection_id=connection.connection_id,
        identity=connection.identity,
        status=Status.ACTIVE,
        lifetime_seconds=float(grant.expires_in),
        scopes=scopes,
        due_at=schedule.due_at(connection.connection_id, grant.granted_at, grant.expires_in),
    )
    return Transition(refreshed, grant, tuple(events))


def apply_failure(connection: Connection, error: ProviderError, now: datetime) -> Transition:
    """HubSpot issued no token: due again later, whatever the error. InvalidGrant makes the connection suspect."""
    if isinstance(error, InvalidGrant) and connection.status is Status.REVOKED:
        # The operator asked for another attempt, and HubSpot gave the same answer.
        return Transition(replace(connection, due_at=None, retry_not_before=None, last_error=str(error)))
    events = []
    if connection.failures == 0 and not isinstance(error, InvalidClient):
        events.append(Event(EventName.REFRESH_FAILED, error.evidence()))
    failed = _schedule_retry(connection, error, now)
    if isinstance(error, InvalidGrant) and connection.status is not Status.SUSPECT:
        events.append(Event(EventName.SUSPECTED, error.evidence(), Status.SUSPECT))
        failed = replace(failed, status=Status.SUSPECT, status_reason=f"HubSpot answered {error} to a refresh")
    if isinstance(error, ScopesRejected) and connection.status is Status.ACTIVE:
        failed = replace(failed, status_reason=CONSENT_AGAIN_REASON)
    return Transition(failed, events=tuple(events))


def apply_introspection(
    transition: Transition, refresh_error: InvalidGrant, introspection: Introspection | ProviderError
) -> Transition:
    """The answer to the introspection of a refresh token that `apply_failure` left suspect.

    Inactive: revoked. Active: active again. No answer: the connection stays suspect, and the next attempt repeats both
    calls. WrongHub is never a revocation: the grant is valid, but stored for the wrong hub.
    """
    if isinstance(introspection, ProviderError) or isinstance(refresh_error, WrongHub):
        return transition
    suspect = transition.connection
    if introspection.active:
        event = Event(EventName.RECOVERED, {"witness": "introspection", "active": True}, Status.ACTIVE)
        active = replace(suspect, status=Status.ACTIVE, status_reason=None)
        return Transition(active, events=(*transition.events, event))
    evidence = {"refresh": refresh_error.evidence(), "introspection": {"active": False}}
    event = Event(EventName.REVOKED, evidence, Status.REVOKED)
    revoked = replace(suspect, status=Status.REVOKED, due_at=None, retry_not_before=None)
    return Transition(revoked, events=(*transition.events, event))


def apply_decryption_failure(connection: Connection, now: datetime) -> Transition:
    """No key of TOKEN_KEYS decrypts its refresh token, so HubSpot was not called: due again later.

    It counts as a failure, so that retries back off. The status stays, and the history gets no row: the cause is in the
    settings, not at HubSpot.
    """
    return Transition(_schedule_retry(connection, ProviderError("decryption_failed"), now))


def _schedule_retry(connection: Connection, error: ProviderError, now: datetime) -> Connection:
    # A refusal of our app says nothing about the connection: it does not count as a failure of it.
    failures = connection.failures + (not isinstance(error, InvalidClient))
    retry_after = error.retry_after if isinstance(error, TemporarilyUnavailable) else None
    return replace(
        connection,
        failures=failures,
        due_at=retry_at(
            connection.connection_id,
            max(failures, 1),
            now,
            lifetime_seconds=connection.lifetime_seconds,
            retry_after=retry_after,
        ),
        retry_not_before=now + timedelta(seconds=retry_after) if retry_after else None,
        last_error=str(error),
    )
