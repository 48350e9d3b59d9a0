"""The sweep: counts what is due, and starts the work for it in threads of this process."""

from __future__ import annotations

from functools import partial

import structlog

from shared import tracing
from shared.db.lifecycle.pruning import prune
from shared.db.refresh.future_dates import correct_future_dates
from shared.domain.provider import Condition
from shared.workflows.disconnect import finish_disconnect
from worker.alert_delivery import deliver_alerts
from worker.services import Services

log = structlog.get_logger(__name__)

#: Due rows that one pool process refreshes; where there are more, the others look for rows too.
ROWS_PER_PROCESS = 100


@tracing.trace_calls("sweep")
def sweep(services: Services, *, is_from_beat: bool) -> bool:
    """One sweep. False where another one began just now."""
    # 1. Begin: update HubSpot's state, and let the sweep of a second beat end here.
    provider = services.provider.begin_sweep(services.settings.sweep_seconds, is_from_beat=is_from_beat)
    if provider is None:
        return False

    # 2. Make due what jobs and operators have requested, give back refresh tokens that waited for a locked row, and
    #    correct dates of a clock that was ahead.
    services.refresh_requests.apply()
    services.results.apply_rotated_tokens()
    correct_future_dates(services.engine)

    # 3. Refresh what is due. Other pool processes notice by themselves that there is more (worker/sweeper.py).
    due = services.claims.count_due(at_most=1)
    if due:
        services.activate_refresh_loop()
        if provider.condition is not Condition.OK:
            log.warning("HubSpot is unhealthy", state=provider.condition, reason=provider.reason)
    tracing.set_attributes(is_due=bool(due), state=provider.condition.value, is_from_beat=is_from_beat)

    # 4. Start what waits for other services.
    if services.account_info.any_missing():
        start_account_info(services)
    for hub_id in services.disconnects.claim_unfinished():
        start_disconnect(services, hub_id)
    if services.alert_detector.detect():
        services.alert_work.submit(partial(deliver_alerts, services.outbox, services.webhook))

    # 5. Delete what is older than it is kept for.
    prune(services.engine)
    return True


def start_account_info(services: Services) -> None:
    services.account_info_work.submit(services.account_info_fetcher.run)


def start_disconnect(services: Services, hub_id: int) -> None:
    services.disconnect_work.submit(
        partial(finish_disconnect, hub_id, services.disconnects, services.hubspot, services.cipher)
    )
