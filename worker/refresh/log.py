"""Logs the refreshes: one line for each change of a connection, and totals of the rest."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from shared.db.refresh.leases import RefreshResult
from shared.domain.connection import EventName

log = structlog.get_logger(__name__)

#: Between two lines of totals while there is work.
TOTALS_SECONDS = 10.0
#: Logged as warnings: an operator may have to act.
WARNING_EVENTS = (EventName.SUSPECTED, EventName.REVOKED)


class RefreshLog:
    """Does not log a line per refresh: that would be thousands a second."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._refreshed = self._failed = 0
        self._logged_at = time.monotonic()

    def log_results(self, saved: Sequence[RefreshResult], held: Collection[int] = ()) -> None:
        """`held`: connections that the revocation brake kept from becoming revoked."""
        for result in saved:
            if result.transition.grant is not None:
                self._refreshed += 1
            else:
                self._failed += 1
            for event in result.transition.events:
                is_held = event.name is EventName.REVOKED and result.lease.connection_id in held
                change = "held by the revocation brake" if is_held else event.name.value
                log_change = log.warning if event.name in WARNING_EVENTS else log.info
                identity = result.transition.connection.identity
                log_change(f"connection {change}", **{**_flatten(event.detail), **identity.log_fields()})

    def log_totals_if_due(self, *, is_idle: bool) -> None:
        """The totals since the last such line: at once where there is no work left."""
        is_due = is_idle or time.monotonic() - self._logged_at > TOTALS_SECONDS
        if not is_due or not self._refreshed + self._failed:
            return
        log.info("refreshes", app=self._app, connections=self._refreshed, failed=self._failed)
        self._refreshed = self._failed = 0
        self._logged_at = time.monotonic()


def _flatten(detail: dict[str, Any]) -> dict[str, Any]:
    """Without nesting, so that `correlation_id` is one field, wherever in the detail it is."""
    flat: dict[str, Any] = {}
    for name, value in detail.items():
        if isinstance(value, dict):
            flat |= _flatten(value)
        else:
            flat[name] = value if isinstance(value, (bool, int, float)) else str(value)
    return flat
