"""The overview's headline: whether everything works, else the most important thing that does not. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shared.db.reports.overview import Overview
from shared.domain.connection import Status
from shared.domain.provider import DESCRIPTIONS, Condition
from shared.domain.severity import Severity
from shared.domain.sweep_liveness import is_beat_missing, is_sweep_overdue
from shared.text_format import format_ago


@dataclass(frozen=True, slots=True)
class HealthSummary:
    severity: Severity
    headline: str
    text: str


@dataclass(frozen=True, slots=True)
class HealthFacts:
    overview: Overview
    without_token: int  #: active or suspect connections of which no token can be served now
    sweep_seconds: float  #: the setting SWEEP_SECONDS

    @property
    def live(self) -> int:
        """Connections that are active or suspect."""
        return self.count(Status.ACTIVE) + self.count(Status.SUSPECT)

    def count(self, status: Status) -> int:
        return self.overview.counts[status]


def summarize_health(facts: HealthFacts) -> HealthSummary:
    """The first check that fails decides. They are ordered: what stops most, and what only the operator can solve."""
    checks: tuple[Callable[[HealthFacts], HealthSummary | None], ...] = (
        _check_brake,
        _check_app,
        _check_sweep,
        _check_provider,
        _check_tokens,
        _check_beat,
        _check_revoked,
        _check_suspect,
        _check_failing,
    )
    return next((summary for check in checks if (summary := check(facts))), _summarize_healthy(facts))


def _check_brake(facts: HealthFacts) -> HealthSummary | None:
    if facts.overview.brake_since is None:
        return None
    text = "HubSpot refused the refresh tokens of unusually many connections. Confirm or dismiss it below."
    return HealthSummary(Severity.BAD, f"{_count_connections(facts.overview.held)} held by the brake.", text)


def _check_app(facts: HealthFacts) -> HealthSummary | None:
    if facts.overview.provider.condition is not Condition.APP_REJECTED:
        return None
    description = DESCRIPTIONS[Condition.APP_REJECTED]
    return HealthSummary(Severity.BAD, f"{description.summary}.", description.next_steps)


def _check_sweep(facts: HealthFacts) -> HealthSummary | None:
    swept_at, now = facts.overview.swept_at, facts.overview.now
    if not is_sweep_overdue(swept_at, now, facts.sweep_seconds):
        return None
    last = "There has been no sweep yet." if swept_at is None else f"The last sweep was {format_ago(swept_at, now)}."
    text = f"{last} Start a worker and beat. If they run, read their logs."
    return HealthSummary(Severity.BAD, "Nothing is refreshed.", text)


def _check_beat(facts: HealthFacts) -> HealthSummary | None:
    since, now = facts.overview.swept_without_beat_since, facts.overview.now
    if since is None or not is_beat_missing(since, now, facts.sweep_seconds):
        return None
    text = f"The last one came {format_ago(since, now)}. Tokens stay fresh. Start beat, or repair Redis."
    return HealthSummary(Severity.WAIT, "The workers sweep without beat.", text)


def _check_provider(facts: HealthFacts) -> HealthSummary | None:
    condition = facts.overview.provider.condition
    if condition not in (Condition.UNAVAILABLE, Condition.THROTTLED):
        return None
    severity = Severity.BAD if facts.without_token else Severity.WAIT
    return HealthSummary(severity, f"{DESCRIPTIONS[condition].summary}.", DESCRIPTIONS[condition].next_steps)


def _check_tokens(facts: HealthFacts) -> HealthSummary | None:
    if not facts.without_token:
        return None
    text = "Their next refresh was not in time, or their first one is still due. See the connections that fail."
    return HealthSummary(Severity.BAD, f"{_count_connections(facts.without_token)} without a token.", text)


def _check_revoked(facts: HealthFacts) -> HealthSummary | None:
    count = facts.count(Status.REVOKED)
    if not count:
        return None
    customers = "the customer" if count == 1 else "the customers"
    others = " All other connections are served." if facts.live else ""
    text = f"HubSpot ended {'it' if count == 1 else 'them'}. Ask {customers} to install again, or disconnect.{others}"
    return HealthSummary(Severity.WAIT, f"{_count_connections(count)} revoked.", text)


def _check_suspect(facts: HealthFacts) -> HealthSummary | None:
    count = facts.count(Status.SUSPECT)
    if not count:
        return None
    text = "HubSpot refused a refresh token once and is asked again. Until then, tokens are served until they expire."
    return HealthSummary(Severity.WAIT, f"{_count_connections(count)} suspect.", text)


def _check_failing(facts: HealthFacts) -> HealthSummary | None:
    count = facts.overview.failing
    if not count:
        return None
    text = "All tokens are served. Failed refreshes are tried again automatically, with growing pauses."
    return HealthSummary(Severity.WAIT, f"{_count_connections(count)} behind schedule.", text)


def _summarize_healthy(facts: HealthFacts) -> HealthSummary:
    if not facts.live:
        return HealthSummary(Severity.GOOD, "No account is connected.", "Connect one to see it here.")
    connections = {1: "The one connection has", 2: "Both connections have"}.get(
        facts.live, f"All {facts.live:,} connections have"
    )
    soonest = facts.overview.soonest_expiry
    expires = format_ago(soonest, facts.overview.now) if soonest else ""
    text = f"The next token expires {expires}; it is refreshed before then." if expires else ""
    return HealthSummary(Severity.GOOD, f"{connections} a valid token.", text)


def _count_connections(count: int) -> str:
    """`1 connection is`, `12 connections are`."""
    return f"{count:,} connection is" if count == 1 else f"{count:,} connections are"
