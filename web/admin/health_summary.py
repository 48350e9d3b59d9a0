"""Whether all is well, in one sentence, and if not, what comes first. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shared.db.reports.connections import Overview
from shared.domain.connection import Status
from shared.domain.provider import Condition
from shared.domain.severity import Severity
from shared.domain.sweep_liveness import is_sweep_overdue
from shared.text_format import format_ago


@dataclass(frozen=True, slots=True)
class HealthSummary:
    tone: Severity
    headline: str
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    overview: Overview
    stale: int  #: live connections of which no token can be served now
    sweep_seconds: float  #: the setting SWEEP_SECONDS

    @property
    def live(self) -> int:
        return self.count(Status.ACTIVE) + self.count(Status.SUSPECT)

    def count(self, status: Status) -> int:
        return self.overview.counts[status]


def summarize_health(seen: Seen) -> HealthSummary:
    """The first of these that is so: what keeps most from working, and what only the operator can end."""
    checks: tuple[Callable[[Seen], HealthSummary | None], ...] = (
        _brake,
        _app_rejected,
        _nobody_sweeps,
        _unwell,
        _stale,
        _revoked,
        _suspect,
        _failing,
    )
    return next((found for check in checks if (found := check(seen))), _fresh(seen))


def _brake(seen: Seen) -> HealthSummary | None:
    if seen.overview.brake_since is None:
        return None
    text = "HubSpot called more connections dead than is plausible. Say below whether it is right."
    return HealthSummary(Severity.BAD, f"{_connections(seen.overview.held)} held by the brake.", text)


def _app_rejected(seen: Seen) -> HealthSummary | None:
    if seen.overview.provider.condition is not Condition.APP_REJECTED:
        return None
    text = (
        "Nothing is refreshed until its settings are right. No connection is lost; tokens are served while they live."
    )
    return HealthSummary(Severity.BAD, "HubSpot refuses our app.", text)


def _nobody_sweeps(seen: Seen) -> HealthSummary | None:
    swept_at, now = seen.overview.swept_at, seen.overview.now
    if not is_sweep_overdue(swept_at, now, seen.sweep_seconds):
        return None
    last = "There has been no sweep yet." if swept_at is None else f"The last sweep was {format_ago(swept_at, now)}."
    return HealthSummary(
        Severity.BAD, "Nothing is refreshed.", f"{last} Start beat and the worker, or look into their logs."
    )


def _unwell(seen: Seen) -> HealthSummary | None:
    served = "Tokens are served while they live, and refreshes go on by themselves."
    if seen.overview.provider.condition is Condition.UNAVAILABLE:
        return HealthSummary(Severity.BAD if seen.stale else Severity.WAIT, "HubSpot does not answer.", served)
    if seen.overview.provider.condition is Condition.THROTTLED:
        return HealthSummary(Severity.BAD if seen.stale else Severity.WAIT, "HubSpot asks us to wait.", served)
    return None


def _stale(seen: Seen) -> HealthSummary | None:
    if not seen.stale:
        return None
    text = "Their next refresh did not come in time, or they wait for their first. See the connections that fail."
    return HealthSummary(Severity.BAD, f"{_connections(seen.stale)} without a token.", text)


def _revoked(seen: Seen) -> HealthSummary | None:
    count = seen.count(Status.REVOKED)
    if not count:
        return None
    verb = "needs" if count == 1 else "need"
    rest = " All others are served." if seen.live else ""
    text = f"HubSpot ended {'it' if count == 1 else 'them'}: have the customer install again, or disconnect.{rest}"
    return HealthSummary(Severity.WAIT, f"{count:,} connection{'' if count == 1 else 's'} {verb} you.", text)


def _suspect(seen: Seen) -> HealthSummary | None:
    count = seen.count(Status.SUSPECT)
    if not count:
        return None
    text = "HubSpot called the grant dead once; it is asked again. Until then the tokens are served."
    return HealthSummary(Severity.WAIT, f"{_connections(count)} in doubt.", text)


def _failing(seen: Seen) -> HealthSummary | None:
    count = seen.overview.failing
    if not count:
        return None
    text = "Their last attempt brought no token. They are tried again by themselves, ever less often."
    return HealthSummary(Severity.WAIT, f"All tokens are served, {_connections(count, be=False)} behind.", text)


def _fresh(seen: Seen) -> HealthSummary:
    if not seen.live:
        return HealthSummary(Severity.GOOD, "No account is connected.", "Connect one to see it here.")
    soonest = seen.overview.soonest_expiry
    text = (
        f"The soonest token would end {format_ago(soonest, seen.overview.now)}, and is refreshed before."
        if soonest
        else ""
    )
    return HealthSummary(Severity.GOOD, f"{_all(seen.live)} fresh.", text)


def _all(count: int) -> str:
    if count == 1:
        return "The one connection is"
    return "Both connections are" if count == 2 else f"All {count:,} connections are"  # noqa: PLR2004


def _connections(count: int, *, be: bool = True) -> str:
    """`1 connection is`, `12 connections are`."""
    noun, verb = ("connection", "is") if count == 1 else ("connections", "are")
    return f"{count:,} {noun} {verb}" if be else f"{count:,} {noun}"
