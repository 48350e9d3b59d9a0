"""Statistics of refreshes and of the tokens that are served."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from shared.db.reports.refresh_stats import SAMPLE_ROWS, RefreshStats, Slot
from shared.domain.refresh_counters import LATENESS_BOUNDS_SECONDS, LIFETIME_BOUNDS_SECONDS, OUTCOMES, RefreshCounters
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once, read_totals

#: Of the tokens that the test of lifetimes serves.
SECONDS_LEFT = """
SELECT sum(extract(epoch FROM expires_at - clock_timestamp()))::double precision FROM tokenkeeper.connections
 WHERE hub_id IN (1, 3, 5)
"""


@pytest.fixture
def activity(engine: Engine) -> RefreshStats:
    return RefreshStats(engine)


def test_the_statistics_of_an_empty_database(activity: RefreshStats) -> None:
    slots = activity.read_slots()
    assert len(slots) == 72
    assert {(slot.refreshed, slot.failed) for slot in slots} == {(0, 0)}
    totals = read_totals(activity)
    assert totals.attempts == dict.fromkeys(OUTCOMES, 0)
    assert totals.lateness == dict.fromkeys(LATENESS_BOUNDS_SECONDS, 0)
    assert totals.lateness_seconds == 0
    life = activity.read_lifetimes()
    assert (life.counts, life.total_seconds, life.is_estimated) == (dict.fromkeys(LIFETIME_BOUNDS_SECONDS, 0), 0, False)
    assert (activity.count_without_token(), activity.count_undelivered_alerts()) == (0, 0)


def test_slots_have_no_gaps_and_end_with_the_current_one(activity: RefreshStats, stores: Stores, sql: SqlFixture):
    now = sql.now()
    counts = RefreshCounters()
    for outcome, ago in (("refreshed", 0), ("refreshed", 0), ("unavailable", 0), ("refreshed", 60), ("refreshed", 999)):
        counts.add([(outcome, None)], now - timedelta(minutes=ago))
    stores.counters.add(counts)
    slots = activity.read_slots(hours=2, minutes=10)
    assert len(slots) == 12
    assert {later.at - slot.at for slot, later in zip(slots, slots[1:], strict=False)} == {timedelta(minutes=10)}
    assert now - timedelta(minutes=10) < slots[-1].at <= sql.now()
    counts = [(slot.refreshed, slot.failed) for slot in slots if slot.refreshed or slot.failed]
    assert counts == [(1, 0), (2, 1)]
    assert all(slot.at.minute % 10 == 0 for slot in slots)
    assert isinstance(slots[0], Slot)


def test_totals_add_up_the_counts_of_concurrent_processes(activity: RefreshStats, stores: Stores, sql: SqlFixture):
    now = sql.now()
    counts = RefreshCounters()
    counts.add([("refreshed", now - timedelta(seconds=2.5))], now)
    counts.add([("refreshed", now - timedelta(days=1))], now)
    counts.add([("invalid_grant", now)], now)
    at_once([lambda: stores.counters.add(counts)] * 8)
    totals = read_totals(activity)
    assert {name: total for name, total in totals.attempts.items() if total} == {"refreshed": 16, "invalid_grant": 8}
    assert {bound: total for bound, total in totals.lateness.items() if total} == {3.0: 8, math.inf: 8}
    assert totals.lateness_seconds == pytest.approx(8 * (86400 + 2.5))


def test_counts_with_the_bounds_of_another_version_are_kept(activity: RefreshStats, sql: SqlFixture) -> None:
    sql.rows("INSERT INTO tokenkeeper.refresh_counters VALUES ('lateness', '0.7', 5), ('attempts', 'eaten', 2)")
    assert read_totals(activity).lateness[1.0] == 5
    assert read_totals(activity).attempts["eaten"] == 2


def test_lifetimes_are_those_of_the_served_tokens(
    activity: RefreshStats, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for hub_id in range(1, 6):
        connections.install(hub_id)
    sql.set("expires_at = now() + interval '100 seconds'", 1)
    sql.set("expires_at = now() - interval '1 second'", 2)
    sql.set("status = 'suspect', expires_at = now() + interval '100 seconds'", 3)
    sql.set("status = 'disconnected'", 4)
    most = sql.value(SECONDS_LEFT)
    life = activity.read_lifetimes()
    assert {bound: tokens for bound, tokens in life.counts.items() if tokens} == {120.0: 2, 1800.0: 1}
    assert sql.value(SECONDS_LEFT) <= life.total_seconds <= most <= 2000
    assert not life.is_estimated


def test_live_connections_without_a_valid_token_are_counted(
    activity: RefreshStats, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(3)
    for hub_id in range(11, 16):
        connections.install(hub_id)
    ended = "expires_at = now() - interval '1 second'"
    sql.set(f"{ended}, due_at = now() - interval '9 minutes'", 11)
    sql.set(f"{ended}, due_at = now() + interval '9 minutes', failures = 3", 12)
    sql.set(f"{ended}, due_at = now() + interval '5 seconds', status = 'suspect', failures = 0", 13)
    sql.set(f"{ended}, due_at = NULL, status = 'disconnected', failures = 3", 14)
    assert activity.count_without_token() == 6


def test_connections_without_a_valid_token_are_estimated_where_they_are_too_many_to_count(
    activity: RefreshStats, sql: SqlFixture
) -> None:
    due = SAMPLE_ROWS * 3 // 2
    sql.rows(
        "INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at)"
        f" SELECT hub_id, 'active', 'encrypted', now() FROM generate_series(1, {due}) AS hub_id"
    )
    sql.set("access_token = 'served', expires_at = now() + interval '1 hour' WHERE hub_id % 3 = 0")
    assert activity.count_without_token() == pytest.approx(SAMPLE_ROWS, rel=0.2)


def test_undelivered_alerts_are_counted(activity: RefreshStats, sql: SqlFixture) -> None:
    sql.rows("INSERT INTO tokenkeeper.alerts (kind) VALUES ('provider'), ('stale_connections')")
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = NULL, delivered_at = now() WHERE kind = 'provider'")
    assert activity.count_undelivered_alerts() == 1
