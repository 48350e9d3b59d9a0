"""What the operator orders: refresh now, disconnect, and a word on what the brake holds. All may be repeated."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask import Response

from shared.db.refresh.requests import RefreshRequestOutcome
from shared.dispatch import QueueUnavailable
from shared.net.deadline import deadline
from web.admin import problems
from web.admin.flash_messages import FlashMessage
from web.admin.view_base import PATIENCE, ViewBase, account, back_to
from web.error_pages import AbortWithPage, Link
from web.server.timeouts import TimedOut
from web.server.timeouts import run_within as bounded
from web.services import Services

log = structlog.get_logger(__name__)

#: Seconds for the brake's thousands of rows. Cut short, it goes on where it was when the button is pressed again.
LONG = 20.0


class Actions:
    """`POST /connections/<hub_id>/refresh` and `…/disconnect`, `POST /operator/revocations/confirm` and `…/dismiss`."""

    def __init__(self, services: Services, screen: ViewBase) -> None:
        self._services = services
        self._screen = screen

    def refresh(self, hub_id: str) -> Response:
        number = account(hub_id)
        back = _to(number)
        self._screen.accept(back)
        with deadline(PATIENCE):
            became = self._services.refresh_requests.request([number])[number]
        if became is RefreshRequestOutcome.UNKNOWN:
            raise AbortWithPage(problems.NO_SUCH_CONNECTION)
        log.info("the operator asked for a refresh", hub_id=number, became=became.value)
        return back_to(back, FlashMessage(became.value))

    def disconnect(self, hub_id: str) -> Response:
        """Not served from here on; the worker tells HubSpot, and wipes it."""
        number = account(hub_id)
        back = _to(number)
        self._screen.accept(back)
        with deadline(PATIENCE):
            begun = self._begun(number)
        if not begun:
            return back_to(back, FlashMessage.NOTHING_TO_END)
        log.info("the operator disconnects", hub_id=number)
        return back_to(back, FlashMessage.ENDED if self._queued(number) else FlashMessage.ENDED_LATER)

    def confirm(self) -> Response:
        return self._decide(self._services.brake.confirm, FlashMessage.CONFIRMED)

    def dismiss(self) -> Response:
        return self._decide(self._services.brake.dismiss, FlashMessage.DISMISSED)

    def _begun(self, hub_id: int) -> bool:
        """False where it was ended before. What HubSpot is told with is the worker's to read."""
        if self._services.reports.find(hub_id) is None:
            raise AbortWithPage(problems.NO_SUCH_CONNECTION)
        return self._services.disconnects.mark(hub_id)

    def _queued(self, hub_id: int) -> bool:
        try:
            bounded(PATIENCE, lambda: self._services.queue.disconnect(hub_id))
        except (QueueUnavailable, TimedOut) as error:
            log.warning("a disconnect waits for the sweep", hub_id=hub_id, why=str(error))
            return False
        return True

    def _decide(self, decide: Callable[[], int | None], notice: FlashMessage) -> Response:
        back = Link("overview", "Back to the overview")
        self._screen.accept(back)
        with deadline(LONG):
            moved = decide()
        log.info("the operator decided on the brake", decision=notice.value, connections=moved)
        return back_to(back, FlashMessage.NO_BRAKE if moved is None else notice)


def _to(hub_id: int) -> Link:
    return Link("connection", f"Back to account {hub_id}", {"hub_id": hub_id})
