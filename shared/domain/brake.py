"""The rules of the revocation brake, a circuit breaker: HubSpot cannot end many connections at once by mistake.

Past the limit a revocation is held back: the connection stays suspect, and its token is served until it expires, until
an operator confirms or dismisses the revocations. `shared/db/refresh/brake.py` counts, stores and decides them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from shared.domain.connection import EventName, Status, Transition
from shared.domain.schedule import retry_at

#: Within this time at most MIN_REVOCATIONS connections become revoked, or MAX_REVOKED_PERCENT of those that were
#: active at its start, whichever is more.
REVOCATION_WINDOW = timedelta(minutes=10)
MIN_REVOCATIONS, MAX_REVOKED_PERCENT = 10, 5
HELD_REASON = "HubSpot rejected it twice, at the refresh and at the introspection; the revocation brake holds it"


def remaining_revocations(active_then: int, revoked_since: int) -> int:
    """How many more connections may become revoked now.

    `active_then`: active one REVOCATION_WINDOW ago. `revoked_since`: revoked since then, other than by an operator.
    """
    return max(0, max(MIN_REVOCATIONS, active_then * MAX_REVOKED_PERCENT // 100) - revoked_since)


def is_revocation(transition: Transition) -> bool:
    """Whether the connection becomes revoked by it; false for one that was revoked already and was tried again."""
    is_revoked = transition.connection.status is Status.REVOKED
    return is_revoked and any(event.name is EventName.REVOKED for event in transition.events)


def hold_revocation(transition: Transition, now: datetime) -> Transition:
    """The transition that replaces a revocation: suspect and due again, with the evidence as `pending_revocation`."""
    revoked = transition.connection
    due_at = retry_at(
        revoked.connection_id,
        max(revoked.failures, 1),
        now,
        lifetime_seconds=revoked.lifetime_seconds,
        retry_after=None,
    )
    suspect = replace(revoked, status=Status.SUSPECT, status_reason=HELD_REASON, due_at=due_at)
    events = tuple(event for event in transition.events if event.name is not EventName.REVOKED)
    evidence = next(event.detail for event in transition.events if event.name is EventName.REVOKED)
    return Transition(suspect, events=events, pending_revocation=evidence)
