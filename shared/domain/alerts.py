"""What operators are told of: each kind of alert in words, and how often anybody is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class AlertKind(StrEnum):
    """Each is told when it begins, and once more, as recovered, when it is over."""

    #: HubSpot as a whole: `detail` has state, before and reason
    PROVIDER = "provider"
    #: HubSpot ended connections: `detail` has count and hubs, the first of them
    REVOKED = "connection_revoked"
    #: tokens end without a refresh having worked: `detail` has count and hubs, the first of them
    STALE = "stale_connections"
    #: more connections were called dead than is plausible
    BRAKE = "revocation_brake"


@dataclass(frozen=True, slots=True)
class Alert:
    """One change, told under one id however often it takes to get through."""

    id: str
    kind: AlertKind
    at: datetime
    recovered: bool = False
    subject: str = ""  #: whom it is about, where that is one thing: a hub
    detail: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  #: how often it was posted, this time included


#: Seconds between the tries to post an alert: the first, and the longest. Doubled each time.
FIRST_WAIT, LONGEST_WAIT = 2.0, 3600.0
#: After so long nobody is waiting for it any more.
GIVEN_UP_AFTER = timedelta(hours=24)
#: How far back `pause` looks.
LATELY = timedelta(minutes=10)
#: Seconds between the first and the second message of a kind; doubled with each further one.
FIRST_PAUSE = 10.0


def wait(attempts: int) -> float:
    """Seconds until the next try after `attempts` in vain (at least 1)."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 30))


def pause(told_lately: int) -> float:
    """Seconds that must have passed since the last message of a kind, of which there were so many LATELY.

    The first is told at once; a hundred in ten minutes become seven, each of which sums what came meanwhile.
    """
    return FIRST_PAUSE * 2.0 ** min(told_lately - 1, 6) if told_lately else 0.0
