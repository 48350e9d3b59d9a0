"""What `tokenkeeper doctor` says of HubSpot's journal of an app, in which uninstalls are noticed."""

from __future__ import annotations

from cli.doctor.findings import Level, Result
from shared.db.reports.journals import JournalReport
from shared.domain.journal import STOPPED_AFTER, JournalState
from shared.text_format import format_ago, make_printable

LATER = "until then an uninstall is noticed at the next refresh"


def describe_journal(journal: JournalReport | None, journal_seconds: float) -> Result:
    """`journal`: None where no worker has tried to read it. `journal_seconds`: the setting JOURNAL_SECONDS."""
    if not journal_seconds:
        return "is not read, because JOURNAL_SECONDS is 0: an uninstall is noticed at the next refresh"
    if journal is None:
        return Level.WARN, f"was not read yet: start a worker; {LATER}"
    if journal.state in (JournalState.REFUSED, JournalState.FAILING):
        return Level.WARN, _describe_failure(journal)
    if journal.read_at is None:
        return Level.WARN, f"its end was not reached yet; {LATER}"
    read = f"its end was reached {format_ago(journal.read_at, journal.now)}"
    is_late = journal.lag_seconds > STOPPED_AFTER.total_seconds()
    return (
        (Level.WARN, f"{read}: is a worker running? Later uninstalls are noticed at the next refresh")
        if is_late
        else read
    )


def _describe_failure(journal: JournalReport) -> str:
    reason = make_printable(journal.reason or "no reason given")
    if journal.state is JournalState.REFUSED:
        return (
            f"HubSpot does not let this app read it ({reason}): an uninstall is noticed at the next refresh; it is "
            "tried again every ten minutes (docs/uninstalls.md)"
        )
    return f"cannot be read, since {format_ago(journal.since, journal.now)} ({reason}); it is tried again, and {LATER}"
