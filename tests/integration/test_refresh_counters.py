"""What the refresh loop counts: every attempt once, also while counters cannot be stored; and no save waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from shared.db.lifecycle.imports import ImportRow
from shared.db.reports.refresh_stats import RefreshStats, Totals
from shared.domain.errors import InvalidGrant, TemporarilyUnavailable
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.hubspot import ScriptedHubSpot
from tests.support.polling import until
from tests.support.stores import SqlFixture, Stores, read_totals
from worker.refresh.loop import RefreshLoop
from worker.refresh.refresher import Refresher

CIPHER = TokenCipher([Fernet.generate_key().decode()])
#: It becomes inactive once nothing is due: this only ends the work of a test that fails.
ACTIVE_SECONDS = 60


@pytest.fixture
def hubspot() -> ScriptedHubSpot:
    return ScriptedHubSpot(refresh_answer=None)


@pytest.fixture
def loop(hubspot: ScriptedHubSpot, stores: Stores) -> Iterator[RefreshLoop]:
    refresher = Refresher(hubspot, CIPHER, stores.claims.clock, Schedule(), 20)  # type: ignore[arg-type]
    loop = RefreshLoop(stores.claims, stores.results, stores.provider, stores.counters, refresher, concurrency=10)
    loop.start()
    yield loop
    assert loop.drain(30)


@pytest.fixture
def activity(engine: Engine) -> RefreshStats:
    return RefreshStats(engine)


def import_hubs(stores: Stores, *hub_ids: int) -> None:
    stores.imports.import_rows([ImportRow(hub, CIPHER.encrypt_refresh_token(hub, f"r{hub}")) for hub in hub_ids])


def nonzero_attempts(totals: Totals) -> dict[str, int]:
    return {name: total for name, total in totals.attempts.items() if total}


def test_every_attempt_is_counted_once_by_its_outcome(
    hubspot: ScriptedHubSpot, stores: Stores, loop: RefreshLoop, activity: RefreshStats, sql: SqlFixture
) -> None:
    import_hubs(stores, *range(1, 31))
    stores.imports.import_rows(
        [ImportRow(31, TokenCipher([Fernet.generate_key().decode()]).encrypt_refresh_token(31, "lost key"))]
    )
    sql.set("due_at = now() - interval '40 seconds'")
    hubspot.error_by_token = {
        "r1": TemporarilyUnavailable("timeout", retry_after=3600),
        "r2": InvalidGrant("BAD_REFRESH_TOKEN"),
    }
    loop.activate(ACTIVE_SECONDS)
    until(lambda: sum(read_totals(activity).attempts.values()) >= 31)
    assert loop.drain(60)
    totals = read_totals(activity)
    undecrypted = sql.row(31)["failures"]  # more than one where the others took longer than its first retry waits
    assert nonzero_attempts(totals) == {
        "refreshed": 28,
        "unavailable": 1,
        "invalid_grant": 1,
        "decryption_failed": undecrypted,
    }
    assert totals.lateness[60.0] == sum(totals.lateness.values()) == 28
    assert 28 * 40 < totals.lateness_seconds < 28 * 60
    slots = activity.read_slots(hours=1)
    assert (sum(slot.refreshed for slot in slots), sum(slot.failed for slot in slots)) == (28, 2 + undecrypted)


def test_a_result_that_postgresql_rejects_is_not_counted_and_the_others_are(
    stores: Stores, loop: RefreshLoop, activity: RefreshStats, sql: SqlFixture
) -> None:
    import_hubs(stores, 1, 3)
    stores.imports.import_rows(
        [ImportRow(2, CIPHER.encrypt_refresh_token(2, "\x00"))]
    )  # its access token has a zero byte
    loop.activate(ACTIVE_SECONDS)
    until(lambda: sum(read_totals(activity).attempts.values()) == 2)
    assert nonzero_attempts(read_totals(activity)) == {"refreshed": 2}
    assert sql.value("SELECT array_agg(hub_id ORDER BY hub_id) FROM hubspot.tokens") == [1, 3]


def test_counters_that_have_to_wait_delay_no_save_and_are_not_lost(
    stores: Stores, loop: RefreshLoop, activity: RefreshStats, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    other_connection = connect()
    other_connection.autocommit = False
    SqlFixture(other_connection).rows("LOCK TABLE tokenkeeper.refresh_counters IN EXCLUSIVE MODE")
    for hub_id in (1, 2, 3):
        import_hubs(stores, hub_id)
        loop.activate(ACTIVE_SECONDS)
        until(lambda hub_id=hub_id: sql.read_served_token(hub_id) is not None)
    assert nonzero_attempts(read_totals(activity)) == {}
    other_connection.rollback()
    until(lambda: nonzero_attempts(read_totals(activity)) == {"refreshed": 3})


def test_a_process_that_stops_adds_its_counters_first(
    stores: Stores, loop: RefreshLoop, activity: RefreshStats, sql: SqlFixture
) -> None:
    import_hubs(stores, *range(1, 6))
    loop.activate(ACTIVE_SECONDS)
    until(lambda: sql.read_served_token(5) is not None)
    assert loop.drain(30)
    assert nonzero_attempts(read_totals(activity)) == {"refreshed": sql.value("SELECT count(*) FROM hubspot.tokens")}
