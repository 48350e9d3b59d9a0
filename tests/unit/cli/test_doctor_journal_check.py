"""What `tokenkeeper doctor` says of HubSpot's journal."""

from dataclasses import replace
from datetime import timedelta

import pytest

from cli.doctor.findings import Level
from cli.doctor.journal_finding import describe_journal
from shared.db.reports.journals import JournalReport
from shared.domain.journal import STOPPED_AFTER, JournalState
from tests.support.builders import START

SECONDS = timedelta(seconds=4)
READ = JournalReport("default", JournalState.READING, None, since=START, read_at=START, now=START + SECONDS)


def test_a_journal_that_is_read_is_ok():
    assert describe_journal(READ, 10.0) == "its end was reached 4 s ago"


def test_a_journal_that_is_turned_off_is_ok_and_says_what_that_means():
    assert "JOURNAL_SECONDS is 0" in describe_journal(None, 0.0)


@pytest.mark.parametrize(
    ("journal", "says"),
    [
        (None, "was not read yet: start a worker"),
        (replace(READ, state=JournalState.STARTING, read_at=None), "its end was not reached yet"),
        (replace(READ, state=JournalState.FAILING, reason="timeout"), "cannot be read, since 4 s ago (timeout)"),
        (replace(READ, state=JournalState.REFUSED, reason="BAD_SCOPES"), "does not let this app read it (BAD_SCOPES)"),
        (replace(READ, now=START + STOPPED_AFTER + SECONDS), "5 min 4 s ago: is a worker running?"),
    ],
)
def test_a_journal_that_is_not_read_is_a_warning_that_says_why(journal, says):
    level, what = describe_journal(journal, 10.0)
    assert level is Level.WARN
    assert says in what
    assert "noticed at the next refresh" in what
