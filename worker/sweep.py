"""Finds out how much is due and sets the pool processes to work on it. It refreshes nothing itself."""

from __future__ import annotations

import structlog

from shared import tracing
from shared.db.lifecycle.pruning import prune
from shared.dispatch import QueueUnavailable
from shared.domain.provider import Condition
from worker.services import Services

log = structlog.get_logger(__name__)

#: So many due rows call for one more pool process.
PER_SHIFT = 100
#: More would not be distinguished: counting a backlog of a million rows at each sweep would be waste.
MOST_COUNTED = 1600


@tracing.trace_calls("sweep")
def sweep(services: Services) -> int:
    """One sweep, unless another beat's was just now. Returns how many pool processes were called."""
    seconds = services.settings.sweep_seconds
    dispatch = services.dispatch
    provider = services.provider.begin_sweep(seconds)
    if provider is None:
        return 0
    due = services.claims.count_due(at_most=MOST_COUNTED)
    if due and provider.condition is not Condition.OK:
        log.warning("HubSpot is not well", state=provider.condition, reason=provider.reason, due=due)
    shifts = -(-due // PER_SHIFT)
    tracing.set_attributes(due=due, shifts=shifts, state=provider.condition.value)
    try:
        dispatch.refresh(shifts, expires=seconds)
        if services.account_info.any_missing():
            dispatch.identify(expires=seconds)
        for hub_id in services.disconnects.claim_unfinished():
            dispatch.disconnect(hub_id)
        if services.watch.detect():
            dispatch.alerts(expires=seconds)
    except QueueUnavailable as error:
        log.warning("the broker does not take messages; the next sweep tries again", why=str(error))
    prune(services.engine)
    return shifts
