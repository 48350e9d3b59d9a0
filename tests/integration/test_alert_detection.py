"""What raises an alert, that each change raises one, and which changes one alert summarizes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.db.alerts.detection import CANDIDATE_ROWS, DETECT, LOCK_ALERTS, LOCK_BEAT_ALERTS, AlertDetector
from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database
from shared.db.lifecycle.imports import ImportRow
from shared.domain.alerts import AlertKind
from shared.domain.errors import InvalidClient, TemporarilyUnavailable, Throttled
from shared.domain.identity import DEFAULT_APP
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, CallOutcome
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once, open_transaction

NO_ANSWERS = [CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))] * FAILURES_BEFORE_OUTAGE
ONE_SUCCESS = [CallOutcome(is_first_attempt=True)]
REVOKED = "status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL"
ACTIVE = "status = 'active'"
#: Failing, and the token has five seconds of thirty minutes left.
STALE = "failures = 4, expires_at = now() + interval '5 seconds', due_at = now() + interval '1 minute'"
FRESH = "failures = 0, expires_at = now() + interval '30 minutes', due_at = now() + interval '20 minutes'"


@pytest.fixture
def detector(engine: Engine) -> AlertDetector:
    return AlertDetector(engine, 2.0, search_pause_factor=0)


def read_alerts(sql: SqlFixture, kind: str) -> list[tuple[bool, dict[str, Any]]]:
    return list(
        sql.rows("SELECT recovered, detail FROM tokenkeeper.alerts WHERE kind = %s ORDER BY number", kind)  # type: ignore[arg-type]
    )


def move_alerts_back(sql: SqlFixture, seconds: float) -> None:
    sql.rows(f"UPDATE tokenkeeper.alerts SET at = at - interval '{seconds} seconds'")


def test_each_state_of_hubspot_raises_one_alert_and_its_end_another(stores: Stores, sql: SqlFixture) -> None:
    for _ in range(3):
        stores.provider.record_outcomes(NO_ANSWERS)
    stores.provider.record_outcomes(ONE_SUCCESS)
    stores.provider.record_outcomes(ONE_SUCCESS)
    assert read_alerts(sql, "provider") == [
        (False, {"state": "unavailable", "before": "ok", "reason": "timeout"}),
        (True, {"state": "ok", "before": "unavailable", "reason": "timeout"}),
    ]


def test_one_fault_of_hubspot_that_becomes_another_raises_one_alert(stores: Stores, sql: SqlFixture) -> None:
    stores.provider.record_outcomes(NO_ANSWERS)
    stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET", http_status=400))]
    )
    assert [detail["state"] for _, detail in read_alerts(sql, "provider")] == ["unavailable", "app_rejected"]
    assert not any(recovered for recovered, _ in read_alerts(sql, "provider"))


def test_the_first_success_after_a_pause_raises_the_alert_about_its_end(stores: Stores, sql: SqlFixture) -> None:
    stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=Throttled("429", http_status=429, retry_after=0))]
    )
    sql.rows("UPDATE tokenkeeper.provider SET paused_until = now()")
    stores.provider.record_outcomes([CallOutcome(is_first_attempt=True)])
    assert [recovered for recovered, _ in read_alerts(sql, "provider")] == [False, True]


def test_concurrent_workers_raise_one_alert_about_the_same_outage(stores: Stores, sql: SqlFixture) -> None:
    at_once([lambda: stores.provider.record_outcomes(NO_ANSWERS)] * 6)
    assert len(read_alerts(sql, "provider")) == 1


def test_an_alert_of_a_transaction_that_is_rolled_back_is_not_raised(engine: Engine, sql: SqlFixture) -> None:
    def change() -> None:
        with Database(engine).transaction() as connection:
            raise_alert(connection, AlertKind.BRAKE, detail={})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert read_alerts(sql, "revocation_brake") == []


def test_a_revoked_connection_raises_one_alert_and_its_reinstall_another(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    assert not detector.detect(), "nothing to deliver"
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    assert detector.detect()
    assert detector.detect()
    assert read_alerts(sql, "connection_revoked") == [(False, {"count": 1, "hubs": [62515]})]
    connections.install()
    detector.detect()
    detector.detect()
    assert read_alerts(sql, "connection_revoked")[1:] == [(True, {"count": 1, "hubs": [62515]})]


def test_an_alert_about_one_connection_of_a_user_level_app_names_the_user(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.install(user_id=42)
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    assert detector.detect()
    assert read_alerts(sql, "connection_revoked") == [(False, {"count": 1, "hubs": [62515], "user_id": 42})]


def test_many_revocations_raise_few_alerts(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.import_due(500)
    for first in range(1, 500, 50):
        sql.set(f"{REVOKED} WHERE hub_id BETWEEN {first} AND {first + 49}")
        detector.detect()
        move_alerts_back(sql, 2)
    move_alerts_back(sql, 60)
    detector.detect()
    counts = [detail["count"] for _, detail in read_alerts(sql, "connection_revoked")]
    assert sum(counts) == 500, "every connection is counted once"
    assert len(counts) <= 4
    assert all(len(detail["hubs"]) <= 10 for _, detail in read_alerts(sql, "connection_revoked"))


def test_concurrent_sweeps_raise_no_alert_twice(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    connections.import_due(40)
    sql.set(f"{REVOKED} WHERE hub_id <= 20")
    sql.set(f"lifetime_seconds = 1800, access_token = 'a', refreshed_at = now(), {STALE} WHERE hub_id > 20")
    at_once([AlertDetector(engine, 2.0, search_pause_factor=0).detect for _ in range(6)])
    assert sum(detail["count"] for _, detail in read_alerts(sql, "connection_revoked")) == 20
    assert [detail["count"] for _, detail in read_alerts(sql, "stale_connections")] == [20]


def test_a_sweep_waits_for_the_alert_about_stale_connections_that_another_one_is_raising(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    sql.set(STALE)
    other = connect()
    other.autocommit = False
    SqlFixture(other).rows(LOCK_ALERTS.text.replace(":app", "%s"), DEFAULT_APP)
    with ThreadPoolExecutor(2) as pool:
        sweeps = [pool.submit(AlertDetector(engine, 2.0).detect) for _ in range(2)]
        until(lambda: sql.count_lock_waits() == 2)
        other.rollback()
        assert [sweep.result(60) for sweep in sweeps] == [True, True]
    assert len(read_alerts(sql, "stale_connections")) == 1


def test_a_sweep_raises_no_alert_about_beat_that_another_one_is_raising(
    stores: Stores, engine: Engine, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    stores.provider.begin_sweep(2.0, is_from_beat=False)
    sql.rows("UPDATE tokenkeeper.provider SET swept_without_beat_since = now() - interval '1 hour'")
    with ThreadPoolExecutor(2) as pool:
        with open_transaction(connect) as other:
            other.rows(LOCK_BEAT_ALERTS.text)
            sweeps = [pool.submit(AlertDetector(engine, 2.0).detect) for _ in range(2)]
            until(lambda: sql.count_lock_waits() == 2)
        assert [sweep.result(60) for sweep in sweeps] == [True, True]
    assert len(read_alerts(sql, "beat_missing")) == 1


def test_a_detection_says_whether_there_is_an_alert_to_log_or_to_post_now(
    detector: AlertDetector, engine: Engine, sql: SqlFixture
) -> None:
    assert not detector.detect()
    with Database(engine).transaction() as connection:
        raise_alert(connection, AlertKind.BRAKE, detail={"held": 1})
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() + interval '1 hour'")
    assert detector.detect(), "it is not logged yet"
    sql.rows("UPDATE tokenkeeper.alerts SET logged_at = now()")
    assert not detector.detect(), "it is logged, and waits for its next attempt"
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now()")
    assert detector.detect()
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = NULL")
    assert not detector.detect()


def test_a_disconnect_ends_the_alert_about_a_revocation(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    sql.set(REVOKED)
    detector.detect()
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(62515))
    detector.detect()
    assert [recovered for recovered, _ in read_alerts(sql, "connection_revoked")] == [False, True]


def test_stale_connections_raise_one_alert_and_their_end_another(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    for hub in (1, 2, 3):
        connections.install(hub)
    detector.detect()
    assert read_alerts(sql, "stale_connections") == [], "all tokens are fresh"
    sql.set(STALE, 2)
    for _ in range(3):
        detector.detect()
    assert read_alerts(sql, "stale_connections") == [(False, {"count": 1, "hubs": [2]})]
    sql.set(STALE, 3)
    detector.detect()
    sql.set(FRESH)
    for _ in range(3):
        detector.detect()
    assert read_alerts(sql, "stale_connections")[1:] == [(True, {"count": 0, "hubs": []})]


def test_connections_that_are_stale_again_after_the_end_raise_an_alert_again(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    for state in (STALE, FRESH, STALE):
        sql.set(state)
        detector.detect()
        move_alerts_back(sql, 601)
    assert [recovered for recovered, _ in read_alerts(sql, "stale_connections")] == [False, True, False]


def test_a_connection_overdue_for_five_sweeps_raises_an_alert_before_its_token_expires(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    detector = AlertDetector(engine, 60.0, search_pause_factor=0)
    connections.install()
    sql.set("expires_at = now() + interval '2 minutes', due_at = now() - interval '200 seconds'")
    detector.detect()
    assert read_alerts(sql, "stale_connections") == [], "a few sweeps late is not stale yet"
    sql.set("due_at = now() - interval '301 seconds'")
    detector.detect()
    assert read_alerts(sql, "stale_connections") == [(False, {"count": 1, "hubs": [62515]})]


def test_connections_without_a_token_and_revoked_ones_are_never_stale(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(1, "encrypted")])
    sql.set("due_at = now() - interval '1 hour', failures = 7")
    connections.install(2)
    sql.set(REVOKED, 2)
    detector.detect()
    assert read_alerts(sql, "stale_connections") == []


def test_thousands_of_revoked_connections_do_not_hide_a_stale_one(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.import_due(CANDIDATE_ROWS + 100)
    sql.set(f"{REVOKED}, revocation_alerted = true, failures = 1 + mod(hub_id, 2)")
    connections.install(9_000)
    sql.set(STALE, 9_000)
    detector.detect()
    assert read_alerts(sql, "stale_connections") == [(False, {"count": 1, "hubs": [9_000]})]


def test_ten_times_as_many_stale_connections_raise_another_alert_ten_minutes_later(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    for hub in range(1, 11):
        connections.install(hub)
    sql.set(STALE, 1)
    detector.detect()
    sql.set(STALE)
    detector.detect()
    assert len(read_alerts(sql, "stale_connections")) == 1
    move_alerts_back(sql, 601)
    detector.detect()
    detector.detect()
    assert [detail["count"] for _, detail in read_alerts(sql, "stale_connections")] == [1, 10]


def test_a_state_that_changes_back_and_forth_raises_alerts_at_growing_intervals(
    connections: ConnectionFixture, detector: AlertDetector, sql: SqlFixture
) -> None:
    connections.install()
    for _ in range(30):
        sql.set(STALE)
        detector.detect()
        sql.set(FRESH)
        detector.detect()
        move_alerts_back(sql, 2)
    assert len(read_alerts(sql, "stale_connections")) <= 8


def test_the_detection_reads_indexes_not_the_table(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    connections.import_due(3000)
    sql.set(FRESH + ", access_token = 'a', lifetime_seconds = 1800, refreshed_at = now()")
    sql.rows("VACUUM ANALYZE tokenkeeper.connections")
    plan = Database(engine).execute(
        text(f"SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; EXPLAIN {DETECT.sql}"),
        overdue_seconds=10.0,
        beat_missing_seconds=30.0,
    )
    lines = [line for (line,) in plan]
    assert any("connections_revocation_alert_due" in line for line in lines)
    assert not any("Seq Scan on connections" in line for line in lines), "\n".join(lines)
