"""What `tokenkeeper status` says: for people line by line, each with how well that is, and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.db.reports.connections import Overview
from shared.domain.connection import Status
from shared.domain.provider import DESCRIPTIONS, Condition
from shared.domain.severity import Severity
from shared.domain.sweep_liveness import is_sweep_overdue
from shared.text_format import format_ago, make_printable

#: Seconds by which refreshes may be late before the backlog is marked.
LATE = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    text: str
    mood: Severity = Severity.GOOD


def lines(overview: Overview, sweep_seconds: float) -> list[Line]:
    now = overview.now
    return [
        Line("connections", _counts(overview), Severity.WAIT if overview.counts[Status.SUSPECT] else Severity.GOOD),
        Line(
            "failing",
            f"{overview.failing:,} whose last attempt brought no token",
            Severity.WAIT if overview.failing else Severity.GOOD,
        ),
        Line("soonest expiry", _soonest(overview)),
        _backlog(overview),
        Line("HubSpot", _provider(overview), _mood_of(overview.provider.condition)),
        Line("brake", _brake(overview), Severity.BAD if overview.brake_since else Severity.GOOD),
        Line("last success", format_ago(overview.last_success_at, now) if overview.last_success_at else "none yet"),
        _sweep(overview, sweep_seconds),
    ]


def facts(overview: Overview) -> dict[str, object]:
    """The same for machines."""
    provider = overview.provider
    return {
        "at": overview.now,
        "connections": {str(status): overview.counts[status] for status in Status},
        "failing": overview.failing,
        "due": overview.due,
        "soonest_due_at": overview.soonest_due,
        "soonest_expires_at": overview.soonest_expiry,
        "hubspot": {
            "state": provider.condition,
            "since": provider.since,
            "reason": provider.reason,
            "paused_until": provider.paused_until,
            "refreshes_per_second": provider.rate,
        },
        "brake": {"on_since": overview.brake_since, "held": overview.held},
        "last_success_at": overview.last_success_at,
        "last_sweep_at": overview.swept_at,
    }


def _counts(overview: Overview) -> str:
    total = sum(overview.counts.values())
    return f"{total:,}: " + ", ".join(f"{overview.counts[status]:,} {status}" for status in Status)


def _soonest(overview: Overview) -> str:
    soonest = overview.soonest_expiry
    return f"{format_ago(soonest, overview.now)} ({soonest:%Y-%m-%d %H:%M:%S %Z})" if soonest else "no token is served"


def _backlog(overview: Overview) -> Line:
    if not overview.due or overview.soonest_due is None:
        return Line("backlog", "nothing is due")
    late = (overview.now - overview.soonest_due).total_seconds() > LATE
    text = f"{overview.due:,} due, the first of them {format_ago(overview.soonest_due, overview.now)}"
    return Line("backlog", text, Severity.WAIT if late else Severity.GOOD)


def _sweep(overview: Overview, sweep_seconds: float) -> Line:
    if overview.swept_at is None:
        return Line("last sweep", "never: start worker and beat", Severity.BAD)
    text = format_ago(overview.swept_at, overview.now)
    if is_sweep_overdue(overview.swept_at, overview.now, sweep_seconds):
        return Line("last sweep", f"{text}: do beat and worker run?", Severity.BAD)
    return Line("last sweep", text)


def _since(since: datetime | None, now: datetime) -> str:
    return f" since {since:%Y-%m-%d %H:%M:%S %Z} ({format_ago(since, now)})" if since else ""


def _brake(overview: Overview) -> str:
    if overview.brake_since is None:
        return "off"
    held = f"{overview.held:,} held suspect instead of revoked, see: tokenkeeper revocations"
    return f"ON{_since(overview.brake_since, overview.now)}: {held}"


def _mood_of(condition: Condition) -> Severity:
    if condition is Condition.OK:
        return Severity.GOOD
    return Severity.BAD if condition is Condition.APP_REJECTED else Severity.WAIT


def _provider(overview: Overview) -> str:
    provider = overview.provider
    parts = [f"{provider.condition}{_since(provider.since, overview.now)}"]
    if provider.paused_until and provider.paused_until > overview.now:
        parts.append(f"paused, resumes {format_ago(provider.paused_until, overview.now)}")
    if provider.condition is Condition.OK:
        parts += [f"ramping up, {provider.rate:g} refreshes a second"] if provider.rate else []
    else:
        reason = make_printable(provider.reason or "no reason given")
        parts.append(f"{reason}: {DESCRIPTIONS[provider.condition]}")
    return ", ".join(parts)
