"""What `tokenkeeper status` shows: for people line by line, each with its severity, and for machines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from shared.db.reports.journals import JournalReport
from shared.db.reports.overview import AppState, Overview
from shared.domain.connection import Status
from shared.domain.journal import STOPPED_AFTER, JournalState
from shared.domain.provider import DESCRIPTIONS, Condition
from shared.domain.severity import Severity
from shared.domain.sweep_liveness import is_beat_missing, is_sweep_overdue
from shared.text_format import format_ago, make_printable

#: A backlog that is later than this is marked.
LATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class StatusLine:
    name: str
    text: str
    severity: Severity = Severity.GOOD


@dataclass(frozen=True, slots=True)
class StatusReading:
    overview: Overview
    journals: Sequence[JournalReport]  #: of the apps whose journal a worker has tried to read


def make_lines(reading: StatusReading, sweep_seconds: float, configured: Collection[str] = ()) -> list[StatusLine]:
    """`configured`: the names of the apps in the settings; () where these describe none."""
    overview = _select_apps(reading.overview, configured)
    now, counts = overview.now, overview.counts
    by_status = ", ".join(f"{counts[status]:,} {status}" for status in Status)
    return [
        StatusLine("connections", f"{sum(counts.values()):,}: {by_status}", _wait_if(counts[Status.SUSPECT])),
        StatusLine("failing", f"{overview.failing:,} whose last attempt brought no token", _wait_if(overview.failing)),
        StatusLine(
            "soonest expiry",
            f"{format_ago(overview.soonest_expiry, now)} ({overview.soonest_expiry:%Y-%m-%d %H:%M:%S %Z})"
            if overview.soonest_expiry
            else "no token is served",
        ),
        _make_backlog_line(overview),
        *_make_app_lines(overview),
        StatusLine(
            "last success", format_ago(overview.last_success_at, now) if overview.last_success_at else "none yet"
        ),
        _make_sweep_line(overview, sweep_seconds),
        *(_make_journal_line(journal, reading.journals) for journal in reading.journals),
        *map(_make_line_without_settings, overview.find_without_settings(configured)),
    ]


def make_json_report(reading: StatusReading, configured: Collection[str] = ()) -> dict[str, object]:
    """As a whole, and then by app. `configured` as in make_lines."""
    overview = _select_apps(reading.overview, configured)
    journals = {
        journal.app: {
            "state": journal.state,
            "since": journal.since,
            "reason": journal.reason,
            "read_at": journal.read_at,
        }
        for journal in reading.journals
    }
    by_app = {state.app: _make_json_summary(replace(overview, apps=(state,))) for state in overview.apps}
    without_settings = [state.app for state in overview.find_without_settings(configured)]
    return {
        "at": overview.now,
        **_make_json_summary(overview),
        "apps": by_app,
        "journals": journals,
        "without_settings": without_settings,
    }


def _make_json_summary(overview: Overview) -> dict[str, object]:
    provider = overview.provider
    return {
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
        "swept_without_beat_since": overview.swept_without_beat_since,
    }


def _select_apps(overview: Overview, configured: Collection[str]) -> Overview:
    """Without apps that have neither settings nor connections, such as `default` where a file names others."""
    names = [state.app for state in overview.apps if state.app in configured or any(state.counts.values())]
    return overview.select(names) if names else overview


def _make_app_lines(overview: Overview) -> list[StatusLine]:
    """HubSpot and the brake; one line an app where there are several."""
    if len(overview.apps) <= 1:
        return [_make_hubspot_line(overview), _make_brake_line(overview)]
    return [_make_app_line(state, replace(overview, apps=(state,))) for state in overview.apps]


def _make_app_line(state: AppState, overview: Overview) -> StatusLine:
    hubspot, brake = _make_hubspot_line(overview), _make_brake_line(overview)
    work = f"{state.live:,} live, {state.failing:,} failing, {state.due:,} due"
    severity = max(hubspot.severity, brake.severity, key=list(Severity).index)
    return StatusLine(f"app {state.app}", f"{work}; HubSpot {hubspot.text}; brake {brake.text}", severity)


def _make_line_without_settings(state: AppState) -> StatusLine:
    text = f"{state.live:,} of app {state.app}, which is in no setting; see: tokenkeeper doctor"
    return StatusLine("not refreshed", text, Severity.WAIT)


def _wait_if(is_wanting: object) -> Severity:
    return Severity.WAIT if is_wanting else Severity.GOOD


def _make_backlog_line(overview: Overview) -> StatusLine:
    if not overview.due or overview.soonest_due is None:
        return StatusLine("backlog", "nothing is due")
    is_late = (overview.now - overview.soonest_due).total_seconds() > LATE_SECONDS
    text = f"{overview.due:,} due, the first of them {format_ago(overview.soonest_due, overview.now)}"
    return StatusLine("backlog", text, _wait_if(is_late))


def _make_hubspot_line(overview: Overview) -> StatusLine:
    provider = overview.provider
    parts = [f"{provider.condition}{_format_since(provider.since, overview.now)}"]
    if provider.paused_until and provider.is_paused(overview.now):
        parts.append(f"paused, resumes {format_ago(provider.paused_until, overview.now)}")
    if provider.condition is Condition.OK:
        parts += [f"ramping up, {provider.rate:g} refreshes a second"] if provider.rate else []
        return StatusLine("HubSpot", ", ".join(parts))
    parts.append(f"{make_printable(provider.reason or 'no reason given')}: {DESCRIPTIONS[provider.condition]}")
    severity = Severity.BAD if provider.condition is Condition.APP_REJECTED else Severity.WAIT
    return StatusLine("HubSpot", ", ".join(parts), severity)


def _make_brake_line(overview: Overview) -> StatusLine:
    if overview.brake_since is None:
        return StatusLine("brake", "off")
    since = _format_since(overview.brake_since, overview.now)
    text = f"ON{since}: {overview.held:,} held suspect instead of revoked, see: tokenkeeper revocations"
    return StatusLine("brake", text, Severity.BAD)


def _make_sweep_line(overview: Overview, sweep_seconds: float) -> StatusLine:
    if overview.swept_at is None:
        return StatusLine("last sweep", "never: start worker and beat", Severity.BAD)
    text = format_ago(overview.swept_at, overview.now)
    if is_sweep_overdue(overview.swept_at, overview.now, sweep_seconds):
        return StatusLine("last sweep", f"{text}: does a worker run?", Severity.BAD)
    since = overview.swept_without_beat_since
    if since is not None and is_beat_missing(since, overview.now, sweep_seconds):
        without = f"without beat since {format_ago(since, overview.now)}: start beat, or repair Redis"
        return StatusLine("last sweep", f"{text}, {without}", Severity.WAIT)
    return StatusLine("last sweep", text)


def _make_journal_line(journal: JournalReport, journals: Sequence[JournalReport]) -> StatusLine:
    """One that HubSpot does not let the app read is no fault that passes: uninstalls are noticed at refreshes then."""
    name = "journal" if len(journals) == 1 else f"journal {journal.app}"
    reason = make_printable(journal.reason or "no reason given")
    if journal.state is JournalState.REFUSED:
        return StatusLine(name, f"HubSpot does not let the app read it ({reason})")
    if journal.state is JournalState.FAILING:
        since = format_ago(journal.since, journal.now)
        return StatusLine(name, f"cannot be read since {since} ({reason})", Severity.WAIT)
    if journal.read_at is None:
        return StatusLine(name, "not read to its end yet", Severity.WAIT)
    is_late = journal.lag_seconds > STOPPED_AFTER.total_seconds()
    return StatusLine(name, f"read to its end {format_ago(journal.read_at, journal.now)}", _wait_if(is_late))


def _format_since(since: datetime | None, now: datetime) -> str:
    return f" since {since:%Y-%m-%d %H:%M:%S %Z} ({format_ago(since, now)})" if since else ""
