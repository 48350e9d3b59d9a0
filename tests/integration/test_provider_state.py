"""HubSpot's state in the provider's row: sweeps, outcomes, the token bucket and pauses, shared by all workers."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from shared.domain.errors import AccountMigrating, InvalidClient, InvalidGrant, TemporarilyUnavailable, Throttled
from shared.domain.provider import (
    FAILURES_BEFORE_OUTAGE,
    PROBES_PER_SECOND,
    RAMP_START_PER_SECOND,
    CallOutcome,
    Condition,
)
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once

NO_ANSWERS = [CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))] * FAILURES_BEFORE_OUTAGE


def set_provider(sql: SqlFixture, assignments: str) -> None:
    sql.rows(f"UPDATE tokenkeeper.provider SET {assignments}")


def test_a_new_database_has_a_healthy_provider(stores: Stores) -> None:
    assert stores.provider.read().is_healthy
    assert stores.provider.read().condition is Condition.OK


def test_of_concurrent_beats_one_begins_the_sweep(stores: Stores, engine: Engine, sql: SqlFixture) -> None:
    beats = [Stores(engine, lease_seconds=60) for _ in range(6)]
    for _ in range(3):
        begun = at_once([lambda beat=beat: beat.provider.begin_sweep(20.0) for beat in beats])
        assert sum(state is not None for state in begun) == 1
        assert stores.provider.begin_sweep(20.0) is None
        set_provider(sql, "swept_at = swept_at - interval '13 seconds'")


def test_a_clock_that_was_set_back_does_not_stop_the_sweeps(stores: Stores, sql: SqlFixture) -> None:
    set_provider(sql, "swept_at = now() + interval '1 day'")
    assert stores.provider.begin_sweep(20.0) is not None
    assert stores.provider.begin_sweep(20.0) is None


def test_a_claim_sets_the_clock(stores: Stores, sql: SqlFixture) -> None:
    with pytest.raises(RuntimeError, match="not known yet"):
        stores.claims.clock.now()
    stores.claims.claim(1)
    assert abs(stores.claims.clock.now() - sql.now()) < timedelta(seconds=60)


def test_an_outage_is_stored_and_a_success_ends_it(stores: Stores) -> None:
    assert stores.provider.record_outcomes(NO_ANSWERS).condition is Condition.UNAVAILABLE
    assert stores.provider.read().condition is Condition.UNAVAILABLE
    assert stores.provider.read().rate == PROBES_PER_SECOND
    assert stores.provider.record_outcomes([CallOutcome(is_first_attempt=False)]).condition is Condition.OK
    assert stores.provider.read().rate == RAMP_START_PER_SECOND


def test_successes_of_a_healthy_provider_write_nothing(stores: Stores, sql: SqlFixture) -> None:
    before = sql.value("SELECT ctid::text || xmin::text FROM tokenkeeper.provider")
    stores.provider.record_outcomes([CallOutcome(is_first_attempt=True)] * 50)
    stores.claims.claim(10)
    assert sql.value("SELECT ctid::text || xmin::text FROM tokenkeeper.provider") == before


def test_outcomes_recorded_concurrently_all_count(engine: Engine, stores: Stores) -> None:
    workers = [Stores(engine, lease_seconds=60) for _ in range(FAILURES_BEFORE_OUTAGE)]
    one = [CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))]
    at_once([lambda s=s: s.provider.record_outcomes(one) for s in workers])
    assert stores.provider.read().condition is Condition.UNAVAILABLE


def test_after_an_outage_postponed_connections_are_due(connections: ConnectionFixture, sql: SqlFixture) -> None:
    for hub_id in range(1, 7):
        connections.install(hub_id)
    sql.set("failures = 3, due_at = now() + interval '10 minutes'")
    sql.set("retry_not_before = now() + interval '5 minutes'", 2)
    sql.set("status = 'revoked', due_at = NULL, access_token = NULL, expires_at = NULL", 3)
    sql.set("failures = 0", 4)
    sql.set("status = 'suspect'", 5)
    connections.stores.provider.record_outcomes(NO_ANSWERS)
    assert connections.stores.claims.count_due(10) == 0
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=False)])
    due = "SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now() ORDER BY 1"
    assert [hub_id for (hub_id,) in sql.rows(due)] == [1, 5, 6]
    assert sql.value("SELECT due_at = retry_not_before FROM tokenkeeper.connections WHERE hub_id = 2")
    assert connections.stores.provider.make_postponed_due() == 0, "the one with its own Retry-After waits for it"
    assert connections.stores.claims.count_due(10) == 3


def test_a_pause_stops_every_claim_and_its_end_starts_probes_and_a_success_a_ramp(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(30)
    stores = connections.stores
    set_provider(sql, "bucket_level = 0, bucket_refilled_at = clock_timestamp()")
    stores.provider.record_outcomes([make_429(retry_after=60)])
    paused = stores.claims.claim(10)
    assert (paused.rows, paused.is_rate_limited) == ([], False)
    assert paused.provider.condition is Condition.THROTTLED
    set_provider(sql, "paused_until = clock_timestamp()")
    probe, none = stores.claims.claim(10), stores.claims.claim(10)
    assert (len(probe.rows), len(none.rows)) == (1, 0), "one at once, although the bucket was empty"
    ramp = stores.provider.record_outcomes([CallOutcome(is_first_attempt=True)])
    assert (ramp.condition, ramp.rate) == (Condition.OK, RAMP_START_PER_SECOND)
    set_provider(sql, "bucket_refilled_at = now() - interval '1 minute'")
    assert len(stores.claims.claim(10).rows) == 2, "a quarter of a second of ten per second"


def make_429(retry_after: float) -> CallOutcome:
    return CallOutcome(is_first_attempt=True, error=Throttled("throttled", http_status=429, retry_after=retry_after))


def test_an_operator_ends_a_pause_and_the_waits_of_the_connections_that_got_a_429(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(4)
    stores = connections.stores
    errors = [
        Throttled("throttled", http_status=429, retry_after=86_400),
        AccountMigrating("account_migrating", http_status=477, retry_after=86_400),
        TemporarilyUnavailable("timeout"),
    ]
    rows = sorted(stores.claims.claim(3).rows, key=lambda row: row.connection.identity.hub_id)
    (unclaimed,) = {1, 2, 3, 4} - {row.connection.identity.hub_id for row in rows}  # all are due at the same time
    stores.results.save([connections.make_failure(row, error) for row, error in zip(rows, errors, strict=True)])
    stores.provider.record_outcomes([make_429(retry_after=86_400)])
    before, after = stores.provider.resume("root@worker-1")
    assert (before.condition, after.condition, after.rate) == (Condition.THROTTLED, Condition.OK, RAMP_START_PER_SECOND)
    assert stores.provider.make_throttled_due() == 1
    stores.provider.make_postponed_due()  # the next sweep does
    due = "SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now() ORDER BY 1"
    assert {hub_id for (hub_id,) in sql.rows(due)} == {
        rows[0].connection.identity.hub_id,
        rows[2].connection.identity.hub_id,
        unclaimed,
    }
    assert sql.row(rows[0].connection.identity.hub_id)["retry_not_before"] is None
    detail = sql.value("SELECT detail FROM tokenkeeper.alerts WHERE recovered")
    assert (detail["resumed_by"], detail["before"]) == ("root@worker-1", "throttled")
    assert stores.provider.make_throttled_due() == 0


def test_where_nothing_is_paused_an_operator_changes_nothing(stores: Stores, sql: SqlFixture) -> None:
    before, after = stores.provider.resume("root@worker-1")
    assert before == after == stores.provider.read()
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts") == 0


def test_a_pause_stops_claims_under_a_rate_limit(engine: Engine, connections: ConnectionFixture) -> None:
    connections.import_due(3)
    connections.stores.provider.record_outcomes([make_429(retry_after=60)])
    limited = Stores(engine, lease_seconds=60, max_refreshes_per_second=100)
    assert limited.claims.claim(3).rows == []


def test_a_ramp_doubles_at_each_sweep_until_it_ends(stores: Stores, sql: SqlFixture) -> None:
    stores.provider.record_outcomes(NO_ANSWERS)
    stores.provider.record_outcomes([CallOutcome(is_first_attempt=False)])
    rates = []
    for _ in range(9):
        swept = stores.provider.begin_sweep(2.0)
        assert swept is not None
        rates.append(swept.provider.rate)
        set_provider(sql, "swept_at = NULL")
    assert rates == [20, 40, 80, 160, 320, 640, None, None, None]


def test_a_rate_limit_bounds_the_rows_claimed(connections: ConnectionFixture, engine: Engine, sql: SqlFixture) -> None:
    connections.import_due(100)
    limited = Stores(engine, lease_seconds=60, max_refreshes_per_second=40)
    set_provider(sql, "bucket_refilled_at = now() - interval '1 hour'")
    first = limited.claims.claim(50)
    assert (len(first.rows), first.is_rate_limited) == (10, True)
    set_provider(sql, "bucket_level = 0, bucket_refilled_at = now() - interval '100 milliseconds'")
    assert 4 <= len(limited.claims.claim(50).rows) <= 10
    set_provider(sql, "bucket_level = 0, bucket_refilled_at = now() + interval '1 hour'")
    assert limited.claims.claim(50).rows == []


def test_concurrent_workers_share_one_bucket(connections: ConnectionFixture, engine: Engine) -> None:
    connections.import_due(100)
    stores = [Stores(engine, lease_seconds=60, max_refreshes_per_second=0.01) for _ in range(6)]
    claims = at_once([lambda s=s: s.claims.claim(5) for s in stores])
    assert sum(len(found.rows) for found in claims) == 1
    assert all(found.is_rate_limited for found in claims)


def test_a_claim_takes_from_the_bucket_only_what_it_claims(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    connections.import_due(3)
    limited = Stores(engine, lease_seconds=60, max_refreshes_per_second=40)
    set_provider(sql, "bucket_level = 10, bucket_refilled_at = now() + interval '1 minute'")
    claims = limited.claims.claim(50)
    assert (len(claims.rows), claims.is_rate_limited) == (3, False)
    assert sql.value("SELECT bucket_level FROM tokenkeeper.provider") == 7


def test_while_the_app_is_rejected_one_probe_goes_out_every_ten_seconds(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(20)
    connections.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET", http_status=400))]
    )
    set_provider(sql, "bucket_refilled_at = now() - interval '1 hour'")
    first, second = connections.stores.claims.claim(10), connections.stores.claims.claim(10)
    assert (len(first.rows), first.is_rate_limited) == (1, True)
    assert (len(second.rows), second.is_rate_limited) == (0, True)
    set_provider(sql, "bucket_refilled_at = now() - interval '10.5 seconds'")
    assert len(connections.stores.claims.claim(10).rows) == 1


def test_the_last_success_is_stored_at_most_every_five_seconds(connections: ConnectionFixture, sql: SqlFixture) -> None:
    last_success = "SELECT last_success_at FROM tokenkeeper.provider"
    connections.install_due(1, 2)
    rows = connections.stores.claims.claim(2).rows
    failure = connections.make_failure(rows[0], TemporarilyUnavailable("timeout", retry_after=3600))
    connections.stores.results.save([failure])
    assert sql.value(last_success) is None
    connections.stores.results.save([connections.make_success(rows[1])])
    assert sql.value(last_success) is not None

    def save_another_within_five_seconds() -> tuple[datetime, datetime] | None:
        """The last success before it and after it; None: this machine took longer."""
        claimed = connections.claim_one(2)
        set_provider(sql, "last_success_at = now()")
        before = sql.value(last_success)
        connections.stores.results.save([connections.make_success(claimed)])
        return (before, sql.value(last_success)) if sql.now() - before < timedelta(seconds=5) else None

    before, after = until(save_another_within_five_seconds)
    assert after == before
    set_provider(sql, "last_success_at = now() - interval '5.1 seconds'")
    connections.stores.results.save([connections.make_success(connections.claim_one(2))])
    assert sql.value(last_success) > before


def test_an_invalid_grant_ends_an_outage(stores: Stores) -> None:
    stores.provider.record_outcomes(NO_ANSWERS)
    assert (
        stores.provider.record_outcomes(
            [CallOutcome(is_first_attempt=True, error=InvalidGrant("BAD_REFRESH_TOKEN"))]
        ).condition
        is Condition.OK
    )
