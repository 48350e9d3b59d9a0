"""Finds out how much is due and sets the pool processes to work on it. It refreshes nothing itself."""

from __future__ import annotations

import structlog

from shared import tracing
from shared.db.store import ConnectionStore
from shared.db.watch import Watch
from shared.dispatch import Dispatch, QueueUnavailable
from shared.domain.provider import Condition

log = structlog.get_logger(__name__)

#: So many due rows call for one more pool process.
PER_SHIFT = 100
#: More would not be distinguished: counting a backlog of a million rows at each sweep would be waste.
MOST_COUNTED = 1600


@tracing.traced("sweep")
def sweep(store: ConnectionStore, watch: Watch, dispatch: Dispatch, seconds: float) -> int:
    """One sweep, unless another beat's was just now. Returns how many pool processes were called."""
    provider = store.begin_sweep(seconds)
    if provider is None:
        return 0
    due = store.due(at_most=MOST_COUNTED)
    if due and provider.condition is not Condition.OK:
        log.warning("HubSpot is not well", state=provider.condition, reason=provider.reason, due=due)
    shifts = -(-due // PER_SHIFT)
    tracing.note(due=due, shifts=shifts, state=provider.condition.value)
    try:
        dispatch.refresh(shifts, expires=seconds)
        if store.unidentified():
            dispatch.identify(expires=seconds)
        for hub_id in store.leftovers():
            dispatch.disconnect(hub_id)
        if watch.look():
            dispatch.alerts(expires=seconds)
    except QueueUnavailable as error:
        log.warning("the broker does not take messages; the next sweep tries again", why=str(error))
    store.prune()
    return shifts
