"""Reports for pages, commands and metrics."""

from __future__ import annotations

from datetime import timedelta

from shared.db.reports.connections import ConnectionReports
from shared.db.reports.overview import MAX_CANDIDATE_ROWS
from shared.domain.connection import Status
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture


def test_the_reports_of_an_empty_database(reports: ConnectionReports) -> None:
    overview = reports.read_overview()
    assert overview.counts == dict.fromkeys(Status, 0)
    assert (overview.failing, overview.due, overview.soonest_expiry) == (0, 0, None)
    assert overview.swept_at is None
    assert overview.provider.is_healthy
    assert reports.find(HUB) == []
    assert reports.read_history(HUB) == []


def test_the_overview_counts_connections_by_status(
    connections: ConnectionFixture, reports: ConnectionReports, sql: SqlFixture
) -> None:
    for hub_id in range(1, 9):
        connections.install(hub_id)
    sql.set("status = 'suspect', failures = 2", 2)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL, failures = 1", 3)
    sql.set("status = 'disconnected', due_at = NULL, failures = 1", 4)
    sql.set("expires_at = now() + interval '10 minutes', due_at = now() - interval '5 seconds'", 5)
    sql.set("expires_at = now() - interval '1 minute', due_at = now() - interval '9 minutes'", 6)
    connections.stores.provider.begin_sweep(2.0)
    overview = reports.read_overview()
    assert overview.counts == {
        Status.ACTIVE: 5,
        Status.SUSPECT: 1,
        Status.REVOKED: 1,
        Status.DISCONNECTED: 1,
    }
    assert (overview.failing, overview.due) == (1, 2), "revoked and disconnected connections do not count as failing"
    assert overview.soonest_expiry is not None
    assert timedelta(minutes=9) < overview.soonest_expiry - overview.now < timedelta(minutes=10)
    assert overview.soonest_due is not None
    assert overview.soonest_due < overview.now - timedelta(minutes=8)
    assert overview.swept_at is not None
    assert overview.swept_at <= overview.now


def test_the_soonest_expiry_is_that_of_a_failing_connection_behind_a_backlog(
    reports: ConnectionReports, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(MAX_CANDIDATE_ROWS + 1)
    connections.install(9_000)
    sql.set("failures = 1, expires_at = now() + interval '5 minutes', due_at = now() + interval '1 hour'", 9_000)
    overview = reports.read_overview()
    assert overview.soonest_expiry is not None
    assert timedelta(minutes=4) < overview.soonest_expiry - overview.now < timedelta(minutes=5)


def test_the_counts_equal_those_of_the_overview(
    connections: ConnectionFixture, reports: ConnectionReports, sql: SqlFixture
) -> None:
    for hub_id in range(1, 5):
        connections.install(hub_id)
    sql.set("status = 'suspect'", 2)
    now, counts = reports.read_counts()
    overview = reports.read_overview()
    assert counts == overview.counts
    assert now <= overview.now


def test_a_large_backlog_is_estimated(
    connections: ConnectionFixture, reports: ConnectionReports, sql: SqlFixture
) -> None:
    connections.import_due(30_000)
    sql.rows("UPDATE tokenkeeper.connections SET failures = 1 WHERE hub_id <= 25000")
    sql.rows("UPDATE tokenkeeper.connections SET failures = 0 WHERE hub_id <= 24000")
    sql.rows("UPDATE tokenkeeper.connections SET failures = 1, status = 'revoked' WHERE hub_id > 29000")
    overview = reports.read_overview()
    assert overview.failing == 1000
    assert 26_000 < overview.due <= 34_000


def test_a_connection_and_its_history_are_read_with_the_newest_event_first(
    connections: ConnectionFixture, reports: ConnectionReports
) -> None:
    connections.install()
    connections.stores.results.save([connections.make_failure(connections.claim_one())])
    (connection,) = reports.find(HUB)
    assert (connection.status, connection.failures, connection.last_error) == (Status.ACTIVE, 1, "timeout")
    assert connection.scopes == ("oauth", "crm.objects.contacts.read")
    lines = reports.read_history(HUB)
    assert [line.event for line in lines] == ["refresh_failed", "installed"]
    assert lines[0].detail == {"code": "timeout"}
    assert len(reports.read_history(HUB, limit=1)) == 1


def test_the_time_is_by_postgresqls_clock(reports: ConnectionReports, sql: SqlFixture) -> None:
    before = sql.now()
    assert before <= reports.read_time() <= sql.now()


def test_rare_statuses_are_counted_and_listed_by_an_index(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.import_due(5000)
    sql.rows("VACUUM ANALYZE tokenkeeper.connections")
    for question in (
        "SELECT * FROM hubspot.connections WHERE hub_id > 5 AND status = 'revoked' ORDER BY hub_id LIMIT 10",
        "SELECT count(*) FROM tokenkeeper.connections WHERE status <> 'active'",
    ):
        assert "connections_not_active" in str(sql.rows(f"EXPLAIN {question}"))
