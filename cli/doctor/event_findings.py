"""What `tokenkeeper doctor` says about scopes that grants lack, and about events to our own product."""

from __future__ import annotations

from collections.abc import Sequence

from cli.doctor.findings import CheckFailed, Level, Result
from shared.db.reports.history_lines import DeliveryReport
from shared.db.reports.scopes import ScopeCounts
from shared.text_format import format_ago, format_duration, make_printable

#: Events are this far behind only where the receiver does not take them.
MAX_LAG_SECONDS = 60.0


def describe_scopes(counts: Sequence[ScopeCounts]) -> Result:
    lacking = [each for each in counts if each.lacking]
    if not any(each.counted_at for each in counts):
        return "not counted yet: the worker does that"
    if not lacking:
        return "no grant lacks a scope that the settings require"
    parts = []
    for each in lacking:
        by_count = sorted(each.by_scope.items(), key=lambda item: (-item[1], item[0]))
        scopes = ", ".join(f"{make_printable(scope)} {count:,}" for scope, count in by_count)
        parts.append(f"{each.lacking:,} of app {each.app} lack scopes ({scopes})")
    return Level.WARN, f"{'; '.join(parts)}: see: tokenkeeper scopes --links"


def describe_delivery(report: DeliveryReport) -> Result:
    if not report.is_enabled:
        return "not sent: EVENTS_WEBHOOK_URL is not set"
    why = f" ({make_printable(report.last_error)})" if report.last_error else ""
    if report.stopped_at is not None:
        since = format_ago(report.stopped_at, report.now)
        raise CheckFailed(f"the receiver answered 410 Gone {since}: correct it, then: tokenkeeper events resume")
    lag = format_duration(report.lag_seconds)
    if report.failing_since is not None and report.lag_seconds > MAX_LAG_SECONDS:
        since = format_ago(report.failing_since, report.now)
        raise CheckFailed(f"the receiver accepts nothing, since {since}{why}; the oldest event waits for {lag}")
    if report.waiting_connections or report.lag_seconds > MAX_LAG_SECONDS:
        return (
            Level.WARN,
            f"the oldest waits for {lag}; those of {report.waiting_connections:,} connections are refused{why}",
        )
    dropped = f"; {report.dropped:,} dropped after three days" if report.dropped else ""
    return f"{report.accepted:,} accepted{dropped}"
