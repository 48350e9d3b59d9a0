"""What `tokenkeeper doctor` says of old snapshots and of scopes that grants lack."""

import pytest

from cli.doctor.checks import describe_snapshot
from cli.doctor.event_findings import describe_scopes
from cli.doctor.findings import Level
from shared.db.reports.oldest_snapshot import OldestSnapshot
from shared.db.reports.scopes import ScopeCounts
from tests.support.builders import START

HOLDER = {"kind": "session", "name": "4711", "user": "etl", "application": "psql"}


def test_no_old_snapshot_is_ok():
    assert describe_snapshot(OldestSnapshot(0.0, {}, 0.0)) == "none is older than 30 min"


@pytest.mark.parametrize(
    ("queue_usage", "text"),
    [
        (0.0, "session 4711 of user etl (psql) has kept one open for 1 h: tables grow until it is closed"),
        (0.9, "PostgreSQL's queue of notifications is 90% full: end the transaction of the session that listens"),
    ],
)
def test_an_old_snapshot_is_a_warning_that_names_its_holder(queue_usage, text):
    level, what = describe_snapshot(OldestSnapshot(3600.0, HOLDER, queue_usage))
    assert level is Level.WARN
    assert text in what


def test_scopes_that_grants_lack_are_a_warning_with_the_most_frequent_first():
    complete = ScopeCounts("crm", 0, {}, START)
    assert describe_scopes([complete]) == "no grant lacks a scope that the settings require"
    lacking = ScopeCounts("personal", 1200, {"forms": 3, "tickets": 1199}, START)
    level, what = describe_scopes([complete, lacking])
    assert level is Level.WARN
    assert what.startswith("1,200 of app personal lack scopes (tickets 1,199, forms 3): see: tokenkeeper scopes")
