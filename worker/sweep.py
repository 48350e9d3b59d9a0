"""The sweep: counts what is due, and starts the work for it in threads of this process."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from functools import partial

import structlog

from shared import tracing
from shared.db.core.errors import StoreError
from shared.db.lifecycle.pending_work import PendingWork, read_pending_work
from shared.db.lifecycle.pruning import prune
from shared.db.refresh.future_dates import correct_future_dates
from shared.db.refresh.late_results import apply_rotated_tokens
from shared.db.refresh.provider import BegunSweep
from shared.domain.provider import Condition, Provider
from shared.workflows.disconnect import finish_disconnect
from worker.app_services import AppServices
from worker.delivery.alerts import deliver_alerts
from worker.services import Services

log = structlog.get_logger(__name__)

#: The refresh loop begins so much later than a sweep finds that rows are due. Usually the sweep has ended then, and the
#: loop gets its connection to PostgreSQL: a small installation needs no second one.
LOOP_DELAY_SECONDS = 0.03
#: An app whose sweep cannot begin costs the others no more than this: then PostgreSQL itself is the problem.
MAX_BEGIN_SECONDS = 10.0


@tracing.trace_calls("sweep")
def sweep(
    services: Services,
    apps: Collection[AppServices],
    *,
    is_from_beat: bool,
    max_begin_seconds: float = MAX_BEGIN_SECONDS,
) -> bool:
    """One sweep of these apps. False where others began theirs just now. Raises StoreError."""
    # 1. Begin: update HubSpot's state for each app, and let the sweep of a second beat end here.
    give_up_at = time.monotonic() + max_begin_seconds
    begun = _begin_sweeps(apps, services.settings.sweep_seconds, give_up_at, is_from_beat=is_from_beat)
    if not begun:
        return False

    # 2. Make due what jobs and operators have requested, give back refresh tokens that waited for a locked row, and
    #    correct dates of a clock that was ahead.
    pending = read_pending_work(services.engine)
    if pending.any_requested:
        services.refresh_requests.apply()
    if pending.any_rotated:
        apply_rotated_tokens(services.engine)
    if pending.any_ahead:
        correct_future_dates(services.engine)

    # 3. Refresh what is due. Other pool processes notice by themselves that there is more (worker/sweeper.py).
    due = [app.name for app, sweep_of_app in begun if _activate_if_due(app, sweep_of_app.provider)]
    tracing.set_attributes(
        app=_join(app.name for app, _ in begun),
        is_due=bool(due),
        state=_join(sweep_of_app.provider.condition for _, sweep_of_app in begun),
        is_from_beat=is_from_beat,
    )

    # 4. Make due what a fault that is over has postponed. Of one app it can be much: the others come first.
    for app, sweep_of_app in begun:
        if sweep_of_app.has_postponed:
            app.provider.make_postponed_due()

    # 5. Start what waits for other services, and delete what is older than it is kept for.
    _start_background_work(services, [app for app, _ in begun], pending)
    if pending.is_pruning_due:
        prune(services.engine)
    return True


def start_disconnect(services: Services, connection_id: int) -> None:
    services.disconnect_work.submit(
        partial(finish_disconnect, connection_id, services.disconnects, services.clients, services.cipher)
    )


def _begin_sweeps(
    apps: Collection[AppServices], sweep_seconds: float, give_up_at: float, *, is_from_beat: bool
) -> list[tuple[AppServices, BegunSweep]]:
    """Those that begin here. One that fails does not stop the others; where none begins, its error is raised."""
    begun, failure = [], None
    for app in apps:
        try:
            sweep_of_app = app.provider.begin_sweep(sweep_seconds, is_from_beat=is_from_beat)
        except StoreError as error:
            log.warning("the sweep of one app cannot begin; the next one tries again", app=app.name, why=str(error))
            failure = error
            if time.monotonic() > give_up_at:
                break
        else:
            if sweep_of_app is not None:
                begun.append((app, sweep_of_app))
    if failure is not None and not begun:
        raise failure
    return begun


def _activate_if_due(app: AppServices, provider: Provider) -> bool:
    is_due = bool(app.claims.count_due(at_most=1))
    if is_due:
        app.activate_refresh_loop(delay_seconds=LOOP_DELAY_SECONDS)
        if provider.condition is not Condition.OK:
            log.warning("HubSpot is unhealthy", app=app.name, state=provider.condition, reason=provider.reason)
    return is_due


def _start_background_work(services: Services, apps: Iterable[AppServices], pending: PendingWork) -> None:
    for app in apps:
        if app.account_info.any_missing():
            app.start_account_info()
    if pending.any_disconnect_unfinished:
        for connection_id in services.disconnects.claim_unfinished():
            start_disconnect(services, connection_id)
    if services.alert_detector.detect():
        services.alert_work.submit(partial(deliver_alerts, services.outbox, services.webhook))
    if services.event_sender is not None and services.event_delivery.any_to_send():
        services.event_work.submit(services.event_sender.run)
    if services.scope_watch.any_due():
        services.scope_work.submit(services.scope_watch.measure)


def _join(names: Iterable[str]) -> str:
    return ",".join(names)
