"""The sweep: counts what is due and enqueues work for it. It refreshes nothing itself."""

from __future__ import annotations

import structlog

from shared import tracing
from shared.db.lifecycle.pruning import prune
from shared.dispatch import QueueUnavailable
from shared.domain.provider import Condition
from worker.services import Services

log = structlog.get_logger(__name__)

#: One more pool process is activated for each so many due rows.
ROWS_PER_ACTIVATION = 100
#: Due rows are counted no further: the count of a backlog of a million would cost a scan at each sweep.
MAX_COUNTED_ROWS = 1600


@tracing.trace_calls("sweep")
def sweep(services: Services) -> int:
    """One sweep, unless another beat's was just now. Returns how many pool processes were asked to refresh."""
    # 1. Begin: update HubSpot's state, and let a second beat's sweep end here.
    seconds = services.settings.sweep_seconds
    provider = services.provider.begin_sweep(seconds)
    if provider is None:
        return 0

    # 2. Make due what jobs and operators have requested, and give back refresh tokens that waited for a locked row.
    services.refresh_requests.apply()
    services.results.apply_rotated_tokens()

    # 3. How much is due, and how many pool processes does that need?
    due = services.claims.count_due(at_most=MAX_COUNTED_ROWS)
    activations = -(-due // ROWS_PER_ACTIVATION)
    if due and provider.condition is not Condition.OK:
        log.warning("HubSpot is unhealthy", state=provider.condition, reason=provider.reason, due=due)
    tracing.set_attributes(due=due, activations=activations, state=provider.condition.value)

    # 4. Enqueue the work. Each message expires with this sweep: the next one enqueues what is still to do.
    try:
        services.dispatch.refresh(activations, expires_seconds=seconds)
        if services.account_info.any_missing():
            services.dispatch.fetch_account_info(expires_seconds=seconds)
        for hub_id in services.disconnects.claim_unfinished():
            services.dispatch.disconnect(hub_id)
        if services.alert_detector.detect():
            services.dispatch.deliver_alerts(expires_seconds=seconds)
    except QueueUnavailable as error:
        log.warning("the broker does not take messages; the next sweep tries again", why=str(error))

    # 5. Delete what is older than it is kept for.
    prune(services.engine)
    return activations
