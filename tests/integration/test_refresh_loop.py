"""The loop of one pool process on a real store: always full, never two for one hub, nothing forgotten."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from sandbox.embedded import EmbeddedPostgres
from shared.db.core.engine import make_engine as connect_engine
from shared.db.lifecycle.imports import ImportRow
from shared.db.schema.migrate import migrate
from shared.domain.errors import ProviderError, TemporarilyUnavailable, Throttled
from shared.domain.grant import Grant
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.builders import grant
from tests.support.polling import until
from tests.support.stores import SqlFixture, Stores
from worker.refresh import Refresher
from worker.refresh_loop import RefreshLoop

CIPHER = TokenCipher([Fernet.generate_key().decode()])


class CountingHubSpot:
    """Takes its time, and counts who is asked at once."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.trouble: dict[str, ProviderError] = {}
        self.everybody: ProviderError | None = None
        self.calls: Counter[str] = Counter()
        self.now: Counter[str] = Counter()
        self.most_at_once = self.most_of_one = 0
        self.gate = threading.Event()
        self.gate.set()
        self.turnstile = threading.Semaphore(1_000_000)  #: how many calls may yet end
        self._lock = threading.Lock()

    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        granted_at = clock()
        with self._lock:
            self.calls[refresh_token] += 1
            self.now[refresh_token] += 1
            self.most_at_once = max(self.most_at_once, self.now.total())
            self.most_of_one = max(self.most_of_one, self.now[refresh_token])
        time.sleep(self.seconds)
        self.gate.wait(30)
        self.turnstile.acquire(timeout=30)
        with self._lock:
            self.now[refresh_token] -= 1
        if error := self.everybody or self.trouble.get(refresh_token):
            raise error
        return grant(access_token=f"access-{refresh_token}", refresh_token=None, hub_id=None, granted_at=granted_at)


Start = Callable[..., RefreshLoop]


@pytest.fixture
def hubspot() -> CountingHubSpot:
    return CountingHubSpot()


@pytest.fixture
def start(hubspot: CountingHubSpot, engine: Engine) -> Iterator[Start]:
    loops: list[RefreshLoop] = []

    def started(concurrency: int = 10, engine: Engine = engine, cap: float = 0.0) -> RefreshLoop:
        stores = Stores(engine, lease_seconds=60, max_refreshes_per_second=cap)
        refresher = Refresher(hubspot, CIPHER, stores.claims.clock, Schedule(), 20)  # type: ignore[arg-type]
        loops.append(
            RefreshLoop(
                stores.claims, stores.results, stores.provider, stores.counters, refresher, concurrency=concurrency
            )
        )
        return loops[-1]

    yield started
    hubspot.gate.set()
    for loop in loops:
        assert loop.drain(30)


def fill(stores: Stores, count: int) -> None:
    stores.imports.import_rows(
        [ImportRow(hub, CIPHER.encrypt_refresh_token(hub, f"r{hub}")) for hub in range(1, count + 1)]
    )


def leases(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL"))


def served(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM hubspot.tokens"))


def test_everything_due_is_refreshed_once_with_all_calls_in_flight(start, hubspot, stores, sql):
    fill(stores, 300)
    start(concurrency=20).wake(30)
    until(lambda: served(sql) == 300)
    assert set(hubspot.calls.values()) == {1}
    assert hubspot.most_at_once == 20


def test_two_loops_share_the_work_and_no_hub_is_asked_twice(start, hubspot, stores, sql):
    fill(stores, 300)
    for loop in (start(), start()):
        loop.wake(30)
    until(lambda: served(sql) == 300)
    assert set(hubspot.calls.values()) == {1}
    assert hubspot.most_at_once > 10


def test_it_does_nothing_until_it_is_woken(start, hubspot, stores, sql):
    fill(stores, 5)
    loop = start()
    assert hubspot.calls.total() == 0
    loop.wake(30)
    until(lambda: served(sql) == 5)


def test_one_account_that_hangs_holds_nobody_up(start, hubspot, stores, sql):
    fill(stores, 100)
    hubspot.trouble["r1"] = TemporarilyUnavailable("timeout")
    start().wake(30)
    until(lambda: served(sql) == 99)
    row = sql.row(1)
    assert (row["status"], row["failures"], row["last_error"]) == ("active", 1, "timeout")


def test_drained_it_finishes_what_is_in_flight_and_saves_it(start, hubspot, stores, sql):
    fill(stores, 100)
    loop = start()
    hubspot.gate.clear()
    loop.wake(30)
    until(lambda: hubspot.now.total() == 10)
    waiting = threading.Thread(target=loop.drain, args=(20,))
    waiting.start()
    hubspot.gate.set()
    waiting.join(20)
    assert served(sql) == 10
    assert leases(sql) == 0


def test_rows_are_claimed_ahead_of_the_calls_that_end_and_handed_back_uncalled_at_the_end(start, hubspot, stores, sql):
    fill(stores, 100)
    hubspot.turnstile = threading.Semaphore(20)
    loop = start(concurrency=20)
    loop.wake(30)
    until(lambda: hubspot.calls.total() == 40)
    until(lambda: 20 < leases(sql) <= 40)
    waiting = threading.Thread(target=loop.drain, args=(20,))
    waiting.start()
    hubspot.turnstile.release(100)
    waiting.join(20)
    assert (hubspot.calls.total(), hubspot.most_at_once, served(sql), leases(sql)) == (40, 20, 40, 0)


def test_a_429_stops_everybody_and_those_in_flight_are_saved(start, hubspot, stores, sql):
    fill(stores, 100)
    hubspot.everybody = Throttled("429", http_status=429, retry_after=60)
    loops = start(), start()
    for loop in loops:
        loop.wake(30)
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "throttled")
    until(lambda: leases(sql) == 0)
    assert hubspot.calls.total() <= 40  # those in flight when the first came back, and one more turn


def test_an_outage_turns_it_to_probes_and_its_end_brings_everybody_back(start, hubspot, stores, sql):
    fill(stores, 60)
    hubspot.everybody = TemporarilyUnavailable("connection")
    loop = start()
    loop.wake(300)
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "unavailable")
    until(lambda: leases(sql) == 0)
    asked = hubspot.calls.total()
    hubspot.everybody = None
    sql.rows("UPDATE tokenkeeper.provider SET bucket_level = 1")  # as ten seconds later: the next probe may go
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "ok")
    assert asked <= 40
    until(lambda: served(sql) == 60)


def test_a_cap_holds_over_all_loops_together(start, hubspot, stores, sql):
    fill(stores, 200)
    begun = time.monotonic()
    for loop in (start(cap=40), start(cap=40)):
        loop.wake(30)
    until(lambda: served(sql) >= 60)
    assert hubspot.calls.total() / (time.monotonic() - begun) < 40 * 1.5


@pytest.fixture
def own_engine(own_postgres: EmbeddedPostgres) -> Iterator[Engine]:
    migrate(own_postgres.url())
    engine = connect_engine(own_postgres.url())
    yield engine
    engine.dispose()


def test_results_wait_for_a_postgres_that_is_away(own_postgres, own_engine, start, hubspot):  # torn down backwards
    stores = Stores(own_engine, lease_seconds=60)
    fill(stores, 10)
    loop = start(engine=own_engine)
    hubspot.gate.clear()
    loop.wake(30)
    until(lambda: hubspot.now.total() == 10)
    own_postgres.stop()
    hubspot.gate.set()
    until(lambda: hubspot.now.total() == 0)
    own_postgres.start()
    until(lambda: stores.claims.count_due(100) == 0 and _all_fresh(own_engine))
    assert set(hubspot.calls.values()) == {1}


def _all_fresh(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT count(*) = 10 FROM hubspot.tokens").scalar())
