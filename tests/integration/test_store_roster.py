"""What people and dashboards are shown."""

from __future__ import annotations

from datetime import timedelta

from shared.db.imports import ImportRow
from shared.db.roster import Roster
from shared.domain.connection import Status
from tests.builders import HUB
from tests.integration.store_rig import Sql, Town


def test_an_empty_house(roster: Roster) -> None:
    overview = roster.overview()
    assert overview.counts == dict.fromkeys(Status, 0)
    assert (overview.failing, overview.due, overview.soonest_expiry) == (0, 0, None)
    assert overview.swept_at is None
    assert overview.provider.at_ease
    assert roster.page() == []
    assert roster.one(HUB) is None
    assert roster.history(HUB) == []


def test_the_overview_counts_what_is_there(town: Town, roster: Roster, sql: Sql) -> None:
    for hub_id in range(1, 9):
        town.install(hub_id)
    sql.set("status = 'suspect', failures = 2", 2)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL, failures = 1", 3)
    sql.set("status = 'disconnected', due_at = NULL, failures = 1", 4)
    sql.set("expires_at = now() + interval '10 minutes', due_at = now() - interval '5 seconds'", 5)
    sql.set("expires_at = now() - interval '1 minute', due_at = now() - interval '9 minutes'", 6)
    town.store.begin_sweep(2.0)
    overview = roster.overview()
    assert overview.counts == {
        Status.ACTIVE: 5,
        Status.SUSPECT: 1,
        Status.REVOKED: 1,
        Status.DISCONNECTED: 1,
    }
    assert (overview.failing, overview.due) == (1, 2), "whoever is revoked or disconnected fails no more"
    assert overview.soonest_expiry is not None
    assert timedelta(minutes=9) < overview.soonest_expiry - overview.now < timedelta(minutes=10)
    assert overview.soonest_due is not None
    assert overview.soonest_due < overview.now - timedelta(minutes=8)
    assert overview.swept_at is not None
    assert overview.swept_at <= overview.now


def test_the_counts_alone_are_those_of_the_overview(town: Town, roster: Roster, sql: Sql) -> None:
    for hub_id in range(1, 5):
        town.install(hub_id)
    sql.set("status = 'suspect'", 2)
    now, counts = roster.counts()
    overview = roster.overview()
    assert counts == overview.counts
    assert now <= overview.now


def test_a_great_backlog_is_estimated(town: Town, roster: Roster, sql: Sql) -> None:
    town.many_due(30_000)
    sql.rows("UPDATE tokenkeeper.connections SET failures = 1 WHERE hub_id <= 25000")
    sql.rows("UPDATE tokenkeeper.connections SET failures = 0 WHERE hub_id <= 24000")
    sql.rows("UPDATE tokenkeeper.connections SET failures = 1, status = 'revoked' WHERE hub_id > 29000")
    overview = roster.overview()
    assert overview.failing == 1000
    assert 26_000 < overview.due <= 34_000


def test_connections_come_in_pages_by_hub(town: Town, roster: Roster, sql: Sql) -> None:
    town.many_due(25)
    sql.set("status = 'suspect'", 7)
    sql.set("status = 'suspect'", 20)
    pages = [roster.page(limit=10)]
    while pages[-1]:
        pages.append(roster.page(after=pages[-1][-1].hub_id, limit=10))
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [seen.hub_id for page in pages for seen in page] == list(range(1, 26))
    assert [seen.hub_id for seen in roster.page(status=Status.SUSPECT)] == [7, 20]
    assert [seen.hub_id for seen in roster.page(status=Status.SUSPECT, after=7)] == [20]


def test_one_connection_with_its_history_newest_first(town: Town, roster: Roster) -> None:
    town.install()
    town.store.save([town.failed(town.claim_one())])
    seen = roster.one(HUB)
    assert seen is not None
    assert (seen.status, seen.failures, seen.last_error) == (Status.ACTIVE, 1, "timeout")
    assert seen.scopes == ("oauth", "crm.objects.contacts.read")
    lines = roster.history(HUB)
    assert [line.event for line in lines] == ["refresh_failed", "installed"]
    assert lines[0].detail == {"code": "timeout"}
    assert len(roster.history(HUB, limit=1)) == 1


def test_every_sealed_token_can_be_walked_through(town: Town, roster: Roster) -> None:
    town.store.import_([ImportRow(hub_id, f"s{hub_id}") for hub_id in (3, 1, 2)])
    assert roster.sealed(limit=2) == [(1, "s1"), (2, "s2")]
    assert roster.sealed(after=2) == [(3, "s3")]


def test_the_time_is_the_databases(roster: Roster, sql: Sql) -> None:
    before = sql.now()
    assert before <= roster.now() <= sql.now()


def test_the_rare_states_are_counted_and_listed_by_an_index(town: Town, sql: Sql) -> None:
    town.many_due(5000)
    sql.rows("VACUUM ANALYZE tokenkeeper.connections")
    for question in (
        "SELECT * FROM hubspot.connections WHERE hub_id > 5 AND status = 'revoked' ORDER BY hub_id LIMIT 10",
        "SELECT count(*) FROM tokenkeeper.connections WHERE status <> 'active'",
    ):
        assert "connections_not_active" in str(sql.rows(f"EXPLAIN {question}"))
