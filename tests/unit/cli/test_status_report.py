"""What `tokenkeeper status` says of HubSpot's journal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cli.status_report import StatusLine, StatusReading, make_json_report, make_lines
from shared.db.reports.journals import JournalReport
from shared.db.reports.overview import Overview
from shared.domain.journal import STOPPED_AFTER, JournalState
from shared.domain.severity import Severity
from tests.support.builders import START

SECONDS = timedelta(seconds=4)
READ = JournalReport("default", JournalState.READING, None, since=START, read_at=START, now=START + SECONDS)


def find_journal_lines(*journals: JournalReport) -> list[StatusLine]:
    lines = make_lines(StatusReading(Overview(START, ()), journals), sweep_seconds=2.0)
    return [line for line in lines if line.name.startswith("journal")]


@pytest.mark.parametrize(
    ("journal", "text", "severity"),
    [
        (READ, "read to its end 4 s ago", Severity.GOOD),
        (replace(READ, now=START + STOPPED_AFTER + SECONDS), "read to its end 5 min 4 s ago", Severity.WAIT),
        (replace(READ, state=JournalState.STARTING, read_at=None), "not read to its end yet", Severity.WAIT),
        (
            replace(READ, state=JournalState.FAILING, reason="timeout"),
            "cannot be read since 4 s ago (timeout)",
            Severity.WAIT,
        ),
        (
            replace(READ, state=JournalState.REFUSED, reason="missing_scopes"),
            "HubSpot does not let the app read it (missing_scopes)",
            Severity.GOOD,
        ),
    ],
)
def test_status_says_how_far_the_journal_is_read(journal: JournalReport, text: str, severity: Severity) -> None:
    assert find_journal_lines(journal) == [StatusLine("journal", text, severity)]


def test_status_names_the_app_of_each_of_several_journals_and_none_where_none_is_read() -> None:
    lines = find_journal_lines(READ, replace(READ, app="crm"))
    assert [line.name for line in lines] == ["journal default", "journal crm"]
    assert find_journal_lines() == []


def test_status_as_json_has_the_state_of_each_journal() -> None:
    report = make_json_report(StatusReading(Overview(START, ()), [READ]))
    assert report["journals"] == {
        "default": {"state": JournalState.READING, "since": START, "reason": None, "read_at": START}
    }
