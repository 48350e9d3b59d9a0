"""Counts of refreshes by outcome, minute and lateness: in memory here, and added up in PostgreSQL every few seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
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

REFRESHED, DECRYPTION_FAILED = "refreshed", "decryption_failed"
#: A subclass comes before its base class: WrongHub is an InvalidGrant too.
_OUTCOME_BY_ERROR: tuple[tuple[type[ProviderError], str], ...] = (
    (WrongHub, "wrong_hub"),
    (InvalidGrant, "invalid_grant"),
    (InvalidClient, "app_rejected"),
    (AccountMigrating, "account_migrating"),
    (Throttled, "throttled"),
    (TemporarilyUnavailable, "unavailable"),
    (UnknownRefusal, "unknown_refusal"),
)
#: Every outcome of an attempt: the values of the label `outcome` of `tokenkeeper_refreshes_total`.
OUTCOMES = (
    REFRESHED,
    "unavailable",
    "throttled",
    "account_migrating",
    "app_rejected",
    "unknown_refusal",
    "invalid_grant",
    "wrong_hub",
    DECRYPTION_FAILED,
)
#: Upper bounds of the histogram of lateness: seconds from the due time until the result was saved.
LATENESS_BOUNDS_SECONDS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, math.inf)
#: Upper bounds of the histogram of lifetimes: seconds that a served token has left.
LIFETIME_BOUNDS_SECONDS = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1500.0, 1800.0, math.inf)


def classify_outcome(error: ProviderError | None) -> str:
    """One of OUTCOMES; `error` is None where HubSpot issued a token."""
    if error is None:
        return REFRESHED
    return next((name for kind, name in _OUTCOME_BY_ERROR if isinstance(error, kind)), "unknown_refusal")


@dataclass(slots=True)
class RefreshCounters:
    attempts: Counter[str] = field(default_factory=Counter)  #: by outcome
    #: attempts that brought a token and attempts that did not, by the start of the minute
    minutes: dict[datetime, tuple[int, int]] = field(default_factory=dict)
    lateness: Counter[float] = field(default_factory=Counter)  #: refreshes by upper bound, in one bucket each
    lateness_seconds: float = 0.0  #: sum

    def __bool__(self) -> bool:
        return bool(self.attempts)

    def add(self, attempts: Collection[tuple[str, datetime | None]], at: datetime) -> None:
        """Count attempts that were saved together at `at`: the outcome of each, and when it was due."""
        if not attempts:
            return
        self.attempts.update([outcome for outcome, _ in attempts])
        due = [due_at for outcome, due_at in attempts if outcome == REFRESHED]
        minute = at.replace(second=0, microsecond=0)
        refreshed, failed = self.minutes.get(minute, (0, 0))
        self.minutes[minute] = refreshed + len(due), failed + len(attempts) - len(due)
        late = [max(0.0, (at - due_at).total_seconds()) for due_at in due if due_at is not None]
        self.lateness.update([find_lateness_bound(seconds) for seconds in late])
        self.lateness_seconds += sum(late)


def find_lateness_bound(seconds: float) -> float:
    """The bucket of so many seconds, named by its upper bound in LATENESS_BOUNDS_SECONDS."""
    return LATENESS_BOUNDS_SECONDS[bisect_left(LATENESS_BOUNDS_SECONDS, seconds)]
