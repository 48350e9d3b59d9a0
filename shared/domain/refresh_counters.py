"""What refreshes came to, in numbers: gathered in memory, told to PostgreSQL every few seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
    WrongHub,
)

REFRESHED, DECRYPTION_FAILED = "refreshed", "unopened"
#: The most special first: a WrongHub is a InvalidGrant too.
_BY_ERROR: tuple[tuple[type[ProviderError], str], ...] = (
    (WrongHub, "wrong_hub"),
    (InvalidGrant, "grant_dead"),
    (InvalidClient, "app_rejected"),
    (AccountMigrating, "portal_moving"),
    (Throttled, "throttled"),
    (TemporarilyUnavailable, "unwell"),
    (UnknownRefusal, "unknown_refusal"),
)
#: Everything that an attempt can come to.
OUTCOMES = (
    REFRESHED,
    "unwell",
    "throttled",
    "portal_moving",
    "app_rejected",
    "unknown_refusal",
    "grant_dead",
    "wrong_hub",
    DECRYPTION_FAILED,
)
#: Upper bounds, in seconds: how late a refresh was, from due until saved.
LATENESS_BOUNDS_SECONDS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, math.inf)
#: Upper bounds, in seconds: what a token that is served has left of its life.
LIFETIME_BOUNDS_SECONDS = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1500.0, 1800.0, math.inf)


def classify_outcome(error: ProviderError | None) -> str:
    """One of OUTCOMES, for an attempt that HubSpot answered with `error`; None: with a token."""
    if error is None:
        return REFRESHED
    return next((name for kind, name in _BY_ERROR if isinstance(error, kind)), "unknown_refusal")


@dataclass(slots=True)
class RefreshCounters:
    """Sums of attempts. `minutes`: how many brought a token and how many did not, by the minute's beginning."""

    attempts: Counter[str] = field(default_factory=Counter)
    minutes: dict[datetime, tuple[int, int]] = field(default_factory=dict)
    lateness: Counter[float] = field(default_factory=Counter)  #: refreshes, by upper bound
    lateness_seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.attempts)

    def add(self, outcome: str, at: datetime, due_at: datetime | None) -> None:
        """An attempt at a connection that was due at `due_at`, saved at `at`."""
        self.attempts[outcome] += 1
        minute = at.replace(second=0, microsecond=0)
        refreshed, failed = self.minutes.get(minute, (0, 0))
        if outcome != REFRESHED:
            self.minutes[minute] = refreshed, failed + 1
            return
        self.minutes[minute] = refreshed + 1, failed
        if due_at is not None:
            late = max(0.0, (at - due_at).total_seconds())
            self.lateness[find_lateness_bound(late)] += 1
            self.lateness_seconds += late


def find_lateness_bound(seconds: float) -> float:
    """The bound of LATENESS_BOUNDS_SECONDS under which so many seconds are counted."""
    return LATENESS_BOUNDS_SECONDS[bisect_left(LATENESS_BOUNDS_SECONDS, seconds)]
