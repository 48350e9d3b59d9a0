"""The revocation brake: how many connections may become revoked, and what becomes of those that may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from shared.domain.connection import EventName, Status, Transition
from shared.domain.schedule import retry_at

#: In so long no more than so many become revoked, or than this share of those that were active at its start.
REVOCATION_WINDOW = timedelta(minutes=10)
MIN_REVOCATIONS, MAX_REVOKED_PERCENT = 10, 5
HELD_REASON = "HubSpot called it dead twice, at a refresh and when asked; the revocation brake holds it"


def remaining_revocations(active_then: int, revoked_lately: int) -> int:
    """How many more may become revoked now.

    `active_then` were active a REVOCATION_WINDOW ago, `revoked_lately` became revoked since, unless by an operator.
    """
    return max(0, max(MIN_REVOCATIONS, active_then * MAX_REVOKED_PERCENT // 100) - revoked_lately)


def is_revocation(step: Transition) -> bool:
    """Whether it becomes revoked by this; one that was tried once more, and still is, does not."""
    return step.connection.status is Status.REVOKED and any(event.name is EventName.REVOKED for event in step.events)


def hold_revocation(step: Transition, now: datetime) -> Transition:
    """Instead of a `step` that revokes: suspect, due again at the back-off's pace, the evidence kept for later."""
    verdict = step.connection
    due_at = retry_at(
        verdict.hub_id, max(verdict.failures, 1), now, lifetime_seconds=verdict.lifetime_seconds, retry_after=None
    )
    suspect = replace(verdict, status=Status.SUSPECT, status_reason=HELD_REASON, due_at=due_at)
    events = tuple(event for event in step.events if event.name is not EventName.REVOKED)
    evidence = next(event.detail for event in step.events if event.name is EventName.REVOKED)
    return Transition(suspect, events=events, pending_revocation=evidence)
