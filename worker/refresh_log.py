"""What the log tells of refreshes: each change of a connection, and the rest in sums."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from shared.db.refresh.claims import RefreshResult
from shared.domain.connection import EventName

log = structlog.get_logger(__name__)

#: Seconds between two sums while the work does not end.
EVERY = 10.0
#: What somebody may have to look after.
TROUBLE = (EventName.SUSPECTED, EventName.REVOKED)


class RefreshLog:
    """A line per refresh would be a thousand a second."""

    def __init__(self) -> None:
        self._refreshed = self._failed = 0
        self._told_at = time.monotonic()

    def note(self, landed: Sequence[RefreshResult], held: Collection[int] = ()) -> None:
        """`held`: hubs that the revocation brake kept from becoming revoked."""
        for result in landed:
            if result.transition.grant is not None:
                self._refreshed += 1
            else:
                self._failed += 1
            for event in result.transition.events:
                say = log.warning if event.name in TROUBLE else log.info
                stopped = event.name is EventName.REVOKED and result.lease.hub_id in held
                what = "held by the revocation brake" if stopped else event.name.value
                say(f"connection {what}", hub_id=result.lease.hub_id, **_plain(event.detail))

    def tell(self, *, at_once: bool) -> None:
        """The sum since the last one, where there is one and it is time."""
        if not self._refreshed + self._failed or not (at_once or time.monotonic() - self._told_at > EVERY):
            return
        log.info("refreshed", connections=self._refreshed, failed=self._failed)
        self._refreshed = self._failed = 0
        self._told_at = time.monotonic()


def _plain(detail: dict[str, Any]) -> dict[str, Any]:
    """Evidence by its own names, also where it is one witness's of two: `correlation_id` is what people search for."""
    plain: dict[str, Any] = {}
    for name, value in detail.items():
        if isinstance(value, dict):
            plain |= _plain(value)
        else:
            plain[name] = value if isinstance(value, (bool, int, float)) else str(value)
    return plain
