"""What raises an alert, once per change, and what is summed up."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.db.alerts.detection import CANDIDATE_ROWS, DETECT, AlertDetector
from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database
from shared.db.lifecycle.imports import ImportRow
from shared.domain.alerts import AlertKind
from shared.domain.errors import InvalidClient, TemporarilyUnavailable, Throttled
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once

SILENT = [CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))] * FAILURES_BEFORE_OUTAGE
SUCCESS = [CallOutcome(is_first_attempt=True)]
REVOKED = "status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL"
ACTIVE = "status = 'active'"
#: Failing, and with five seconds of thirty minutes left.
STALE = "failures = 4, expires_at = now() + interval '5 seconds', due_at = now() + interval '1 minute'"
FRESH = "failures = 0, expires_at = now() + interval '30 minutes', due_at = now() + interval '20 minutes'"


@pytest.fixture
def watch(engine: Engine) -> AlertDetector:
    return AlertDetector(engine, 2.0)


def told(sql: SqlFixture, kind: str) -> list[tuple[bool, dict[str, Any]]]:
    return list(
        sql.rows("SELECT recovered, detail FROM tokenkeeper.alerts WHERE kind = %s ORDER BY number", kind)  # type: ignore[arg-type]
    )


def later(sql: SqlFixture, seconds: float) -> None:
    sql.rows(f"UPDATE tokenkeeper.alerts SET at = at - interval '{seconds} seconds'")


def test_each_change_of_hubspots_state_is_told_once_and_its_end_once(stores: Stores, sql: SqlFixture) -> None:
    for _ in range(3):
        stores.provider.record_outcomes(SILENT)
    stores.provider.record_outcomes(SUCCESS)
    stores.provider.record_outcomes(SUCCESS)
    assert told(sql, "provider") == [
        (False, {"state": "unavailable", "before": "ok", "reason": "timeout"}),
        (True, {"state": "ok", "before": "unavailable", "reason": "timeout"}),
    ]


def test_one_trouble_that_becomes_another_is_one_change(stores: Stores, sql: SqlFixture) -> None:
    stores.provider.record_outcomes(SILENT)
    stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET", http_status=400))]
    )
    assert [detail["state"] for _, detail in told(sql, "provider")] == ["unavailable", "app_rejected"]
    assert not any(recovered for recovered, _ in told(sql, "provider"))


def test_a_pause_that_is_over_is_told_by_the_sweep_that_ends_it(stores: Stores, sql: SqlFixture) -> None:
    stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=Throttled("429", http_status=429, retry_after=0))]
    )
    stores.provider.begin_sweep(2.0)
    assert [recovered for recovered, _ in told(sql, "provider")] == [False, True]


def test_workers_that_see_the_same_outage_tell_it_once(stores: Stores, sql: SqlFixture) -> None:
    at_once([lambda: stores.provider.record_outcomes(SILENT)] * 6)
    assert len(told(sql, "provider")) == 1


def test_what_is_rolled_back_was_never_raised(engine: Engine, sql: SqlFixture) -> None:
    def change() -> None:
        with Database(engine).transaction() as connection:
            raise_alert(connection, AlertKind.BRAKE, detail={})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert told(sql, "revocation_brake") == []


def test_a_revoked_connection_is_told_and_that_it_is_back(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    assert not watch.detect(), "nothing to tell"
    connections.stores.results.save([connections.revoked(connections.claim_one())])
    assert watch.detect()
    assert watch.detect()
    assert told(sql, "connection_revoked") == [(False, {"count": 1, "hubs": [62515]})]
    connections.install()
    watch.detect()
    watch.detect()
    assert told(sql, "connection_revoked")[1:] == [(True, {"count": 1, "hubs": [62515]})]


def test_many_revoked_are_few_messages(connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture) -> None:
    connections.many_due(500)
    for first in range(1, 500, 50):
        sql.set(f"{REVOKED} WHERE hub_id BETWEEN {first} AND {first + 49}")
        watch.detect()
        later(sql, 2)
    later(sql, 60)
    watch.detect()
    counts = [detail["count"] for _, detail in told(sql, "connection_revoked")]
    assert sum(counts) == 500, "nobody is left out"
    assert len(counts) <= 4
    assert all(len(detail["hubs"]) <= 10 for _, detail in told(sql, "connection_revoked"))


def test_two_sweeps_at_once_tell_nobody_twice(connections: ConnectionFixture, engine: Engine, sql: SqlFixture) -> None:
    connections.many_due(40)
    sql.set(f"{REVOKED} WHERE hub_id <= 20")
    sql.set(f"lifetime_seconds = 1800, access_token = 'a', refreshed_at = now(), {STALE} WHERE hub_id > 20")
    at_once([AlertDetector(engine, 2.0).detect for _ in range(6)])
    assert sum(detail["count"] for _, detail in told(sql, "connection_revoked")) == 20
    assert [detail["count"] for _, detail in told(sql, "stale_connections")] == [20]


def test_a_connection_revoked_and_ended_by_the_operator_is_over(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    sql.set(REVOKED)
    watch.detect()
    connections.stores.disconnects.mark_and_read_tokens(62515)
    watch.detect()
    assert [recovered for recovered, _ in told(sql, "connection_revoked")] == [False, True]


def test_tokens_about_to_end_are_told_once_and_that_there_are_none_left(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    for hub in (1, 2, 3):
        connections.install(hub)
    watch.detect()
    assert told(sql, "stale_connections") == [], "all is well"
    sql.set(STALE, 2)
    for _ in range(3):
        watch.detect()
    assert told(sql, "stale_connections") == [(False, {"count": 1, "hubs": [2]})]
    sql.set(STALE, 3)
    watch.detect()
    sql.set(FRESH)
    for _ in range(3):
        watch.detect()
    assert told(sql, "stale_connections")[1:] == [(True, {"count": 0, "hubs": []})]


def test_a_backlog_that_nobody_works_on_is_told_before_its_tokens_end(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    sql.set("expires_at = now() + interval '2 minutes', due_at = now() - interval '9 seconds'")
    watch.detect()
    assert told(sql, "stale_connections") == [], "it is late, and still being waited for"
    sql.set("due_at = now() - interval '11 seconds'")
    watch.detect()
    assert told(sql, "stale_connections") == [(False, {"count": 1, "hubs": [62515]})]


def test_who_has_no_token_yet_or_is_revoked_cannot_go_stale(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(1, "sealed")])
    sql.set("due_at = now() - interval '1 hour', failures = 7")
    connections.install(2)
    sql.set(REVOKED, 2)
    watch.detect()
    assert told(sql, "stale_connections") == []


def test_thousands_that_were_revoked_hide_nobody_who_goes_stale(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.many_due(CANDIDATE_ROWS + 100)
    sql.set(f"{REVOKED}, revocation_alerted = true, failures = 1 + mod(hub_id, 2)")
    connections.install(9_000)
    sql.set(STALE, 9_000)
    watch.detect()
    assert told(sql, "stale_connections") == [(False, {"count": 1, "hubs": [9_000]})]


def test_when_ten_times_as_many_go_stale_that_is_told_too_but_not_at_once(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    for hub in range(1, 11):
        connections.install(hub)
    sql.set(STALE, 1)
    watch.detect()
    sql.set(STALE)
    watch.detect()
    assert len(told(sql, "stale_connections")) == 1
    later(sql, 601)
    watch.detect()
    watch.detect()
    assert [detail["count"] for _, detail in told(sql, "stale_connections")] == [1, 10]


def test_a_state_that_flickers_is_told_at_growing_distances(
    connections: ConnectionFixture, watch: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    for _ in range(30):
        sql.set(STALE)
        watch.detect()
        sql.set(FRESH)
        watch.detect()
        later(sql, 2)
    assert len(told(sql, "stale_connections")) <= 8


def test_a_look_at_many_connections_reads_no_table(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    connections.many_due(3000)
    sql.set(FRESH + ", access_token = 'a', lifetime_seconds = 1800, refreshed_at = now()")
    sql.rows("VACUUM ANALYZE tokenkeeper.connections")
    plan = Database(engine).execute(
        text(DETECT.text.replace("SELECT EXISTS", "EXPLAIN SELECT EXISTS", 1)), overdue_seconds=10.0
    )
    lines = [line for (line,) in plan]
    assert any("connections_revocation_alert_due" in line for line in lines)
    assert not any("Seq Scan on connections" in line for line in lines), "\n".join(lines)
