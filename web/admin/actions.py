"""What the operator can do: refresh now, disconnect, confirm or dismiss the revocations that the brake holds.

Every action may be repeated without harm.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask import Response

from shared.dispatch import QueueUnavailable
from shared.net.deadline import deadline
from web.admin.flash_messages import FlashMessage
from web.admin.view_base import QUERY_SECONDS, ViewBase, WantedConnection, redirect_with_message
from web.error_pages import Link
from web.server.timeouts import TimedOut, run_within
from web.services import Services

log = structlog.get_logger(__name__)

#: The brake may hold thousands of rows. Past this limit the action stops; pressed again, it continues from there.
BRAKE_SECONDS = 20.0
QUEUE_SECONDS = 3.0


class Actions:
    """`POST /connections/<hub_id>/refresh` and `…/disconnect`, `POST /operator/revocations/confirm` and `…/dismiss`."""

    def __init__(self, services: Services, view: ViewBase) -> None:
        self._services = services
        self._view = view

    def refresh(self, hub_id: str) -> Response:
        wanted = WantedConnection.parse(hub_id)
        self._view.check_csrf_token(_link_to_connection(wanted))
        with deadline(QUERY_SECONDS):
            connection = wanted.find_one(self._services.reports)
            outcome = self._services.refresh_requests.request([connection.id])[connection.id]
        log.info("the operator requested a refresh", **connection.identity.log_fields(), outcome=outcome.value)
        return redirect_with_message(_link_to_connection(wanted), FlashMessage(outcome.value))

    def disconnect(self, hub_id: str) -> Response:
        """Its token is not served from here on. A worker uninstalls the app at HubSpot, then deletes the tokens."""
        wanted = WantedConnection.parse(hub_id)
        back = _link_to_connection(wanted)
        self._view.check_csrf_token(back)
        with deadline(QUERY_SECONDS):
            connection = wanted.find_one(self._services.reports)
            is_marked = self._services.disconnects.mark(connection.id)
        if not is_marked:
            return redirect_with_message(back, FlashMessage.DISCONNECTED_BEFORE)
        log.info("the operator disconnected a connection", **connection.identity.log_fields())
        try:
            run_within(QUEUE_SECONDS, lambda: self._services.queue.disconnect(connection.id))
        except (QueueUnavailable, TimedOut) as error:
            log.warning("a disconnect waits for the sweep", **connection.identity.log_fields(), why=str(error))
            return redirect_with_message(back, FlashMessage.DISCONNECT_PENDING)
        return redirect_with_message(back, FlashMessage.DISCONNECT_QUEUED)

    def confirm_revocations(self) -> Response:
        return self._decide_revocations(self._services.brake.confirm, FlashMessage.REVOCATIONS_CONFIRMED)

    def dismiss_revocations(self) -> Response:
        return self._decide_revocations(self._services.brake.dismiss, FlashMessage.REVOCATIONS_DISMISSED)

    def _decide_revocations(self, decide: Callable[[], int | None], message: FlashMessage) -> Response:
        """`decide` returns how many connections it changed, or None where the brake is off."""
        back = Link("overview", "Back to the overview")
        self._view.check_csrf_token(back)
        with deadline(BRAKE_SECONDS):
            changed = decide()
        log.info("the operator decided on the brake", decision=message.value, connections=changed)
        return redirect_with_message(back, FlashMessage.BRAKE_IS_OFF if changed is None else message)


def _link_to_connection(wanted: WantedConnection) -> Link:
    return Link("connection", f"Back to account {wanted.hub_id}", wanted.address)
