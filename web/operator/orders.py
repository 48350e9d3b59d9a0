"""What the operator orders: refresh now, disconnect, and a word on what the brake holds. All may be repeated."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask import Response

from shared.db.operator import Requested
from shared.dispatch import QueueUnavailable
from web.bounded import TimedOut
from web.bounded import within as bounded
from web.operator import problems
from web.operator.notices import Notice
from web.operator.screen import PATIENCE, Screen, account, back_to, within
from web.problems import Stopped, Way
from web.services import Services

log = structlog.get_logger(__name__)

#: Seconds for the brake's thousands of rows. Cut short, it goes on where it was when the button is pressed again.
LONG = 20.0


class Orders:
    """`POST /connections/<hub_id>/refresh` and `…/disconnect`, `POST /operator/revocations/confirm` and `…/dismiss`."""

    def __init__(self, services: Services, screen: Screen) -> None:
        self._services = services
        self._screen = screen

    def refresh(self, hub_id: str) -> Response:
        number = account(hub_id)
        back = _to(number)
        self._screen.accept(back)
        became = within(PATIENCE, lambda: self._services.store.request([number])[number])
        if became is Requested.UNKNOWN:
            raise Stopped(problems.NO_SUCH_CONNECTION)
        log.info("the operator asked for a refresh", hub_id=number, became=became.value)
        return back_to(back, Notice(became.value))

    def disconnect(self, hub_id: str) -> Response:
        """Not served from here on; the worker tells HubSpot, and wipes it."""
        number = account(hub_id)
        back = _to(number)
        self._screen.accept(back)
        if not within(PATIENCE, lambda: self._begun(number)):
            return back_to(back, Notice.NOTHING_TO_END)
        log.info("the operator disconnects", hub_id=number)
        return back_to(back, Notice.ENDED if self._queued(number) else Notice.ENDED_LATER)

    def confirm(self) -> Response:
        return self._decide(self._services.store.confirm_revocations, Notice.CONFIRMED)

    def dismiss(self) -> Response:
        return self._decide(self._services.store.dismiss_revocations, Notice.DISMISSED)

    def _begun(self, hub_id: int) -> bool:
        """False where it was ended before. What HubSpot is told with is the worker's to read."""
        if self._services.roster.one(hub_id) is None:
            raise Stopped(problems.NO_SUCH_CONNECTION)
        return self._services.store.begin_disconnect(hub_id)

    def _queued(self, hub_id: int) -> bool:
        try:
            bounded(PATIENCE, lambda: self._services.queue.disconnect(hub_id))
        except (QueueUnavailable, TimedOut) as error:
            log.warning("a disconnect waits for the sweep", hub_id=hub_id, why=str(error))
            return False
        return True

    def _decide(self, decide: Callable[[], int | None], notice: Notice) -> Response:
        back = Way("overview", "Back to the overview")
        self._screen.accept(back)
        moved = within(LONG, decide)
        log.info("the operator decided on the brake", decision=notice.value, connections=moved)
        return back_to(back, Notice.NO_BRAKE if moved is None else notice)


def _to(hub_id: int) -> Way:
    return Way("connection", f"Back to account {hub_id}", {"hub_id": hub_id})
