"""GET /metrics over HTTP, from a database with known connections, read by Prometheus's own parsers."""

from __future__ import annotations

import math
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import requests
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from shared.domain.errors import Throttled
from shared.domain.provider import CallOutcome
from shared.domain.refresh_counters import LATENESS_BOUNDS_SECONDS, LIFETIME_BOUNDS_SECONDS, OUTCOMES, RefreshCounters
from tests.support.builders import ACCESS_TOKEN, REFRESH_TOKEN
from tests.support.http_server import serving
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture

Environment = Callable[..., dict[str, str]]
PASSWORD = "the-operators-password"
BUSY_SECONDS = 27  #: what a busy machine may add to a time limit


class Scraper:
    """Reads /metrics as Prometheus does."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/metrics"

    def get(self, *, accept: str = "", password: str | None = PASSWORD, method: str = "GET") -> requests.Response:
        auth = ("operator", password) if password is not None else None
        return requests.request(method, self.url, auth=auth, headers={"Accept": accept}, timeout=60)

    def get_metrics(self, accept: str = "") -> requests.Response:
        """Asks again, as Prometheus does, where PostgreSQL took longer than a scrape waits: two seconds."""
        return until(lambda: self.get(accept=accept))

    def scrape(self) -> dict[str, Metric]:
        response = self.get_metrics()
        assert response.status_code == 200, response.text
        return {family.name: family for family in text_string_to_metric_families(response.text)}

    def value(self, name: str, **labels: str) -> float:
        """The value of the only sample with this name and these labels."""
        (value,) = self.values(name, **labels)
        return value

    def values(self, name: str, **labels: str) -> list[float]:
        samples = [sample for family in self.scrape().values() for sample in family.samples]
        return [each.value for each in samples if each.name == f"tokenkeeper_{name}" and each.labels == labels]


@pytest.fixture
def scraper(environment: Environment) -> Iterator[Scraper]:
    with serving(environment(OPERATOR_PASSWORD=PASSWORD)) as url:
        yield Scraper(url)


def test_connections_are_counted_by_status(scraper: Scraper, connections: ConnectionFixture, sql: SqlFixture) -> None:
    for hub_id in range(1, 8):
        connections.install(hub_id)
    sql.set("status = 'suspect', failures = 2", 2)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL, failures = 1", 3)
    sql.set("status = 'disconnected', due_at = NULL", 4)
    counts = {
        status: scraper.value("connections", app="default", status=status)
        for status in ("active", "suspect", "revoked")
    }
    assert counts == {"active": 4, "suspect": 1, "revoked": 1}
    assert scraper.value("connections", app="default", status="disconnected") == 1
    assert scraper.value("connections_failing", app="default") == 1


def test_an_empty_database_has_every_metric(scraper: Scraper) -> None:
    families = scraper.scrape()
    assert scraper.value("connections", app="default", status="active") == 0
    assert scraper.value("sweep_age_seconds", app="default") == math.inf
    assert scraper.value("last_sweep_timestamp_seconds", app="default") == 0
    assert scraper.value("last_success_timestamp_seconds", app="default") == 0
    assert scraper.value("oldest_due_age_seconds", app="default") == 0
    assert scraper.value("provider_rate_limit", app="default") == math.inf
    assert scraper.values("token_remaining_life_seconds_min") == []
    assert all(family.documentation for family in families.values())


def test_tokens_that_are_served_and_stale_ones_are_counted(
    scraper: Scraper, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for hub_id in range(1, 5):
        connections.install(hub_id)
    sql.set("expires_at = now() + interval '29 seconds'", 2)
    sql.set("expires_at = now() - interval '1 second', due_at = now() - interval '90 seconds'", 3)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL", 4)
    assert scraper.value("tokens_stale") == 1
    assert scraper.value("token_remaining_life_seconds_count") == 2
    assert scraper.value("token_remaining_life_seconds_bucket", le="30.0") == 1
    assert scraper.value("token_remaining_life_seconds_bucket", le="+Inf") == 2
    assert 1700 < scraper.value("token_remaining_life_seconds_sum") < 1829
    assert 1 < scraper.value("token_remaining_life_seconds_min") <= 29
    assert scraper.value("refreshes_due", app="default") == 1
    assert 90 <= scraper.value("oldest_due_age_seconds", app="default") < 120


def test_refreshes_are_counted_by_outcome_and_lateness(
    scraper: Scraper, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    now, counts = sql.now(), RefreshCounters()
    for late in (0.1, 0.4, 20.0):
        counts.add([("refreshed", now - timedelta(seconds=late))], now)
    counts.add([("unavailable", now)], now)
    connections.stores.counters.add(counts)
    assert scraper.value("refreshes_total", app="default", outcome="refreshed") == 3
    assert scraper.value("refreshes_total", app="default", outcome="unavailable") == 1
    assert scraper.value("refresh_lateness_seconds_bucket", app="default", le="0.25") == 1
    assert scraper.value("refresh_lateness_seconds_bucket", app="default", le="0.5") == 2
    assert scraper.value("refresh_lateness_seconds_bucket", app="default", le="10.0") == 2
    assert scraper.value("refresh_lateness_seconds_count", app="default") == 3
    assert scraper.value("refresh_lateness_seconds_sum", app="default") == pytest.approx(20.5)
    outcomes = {sample.labels["outcome"] for sample in scraper.scrape()["tokenkeeper_refreshes"].samples}
    assert outcomes == set(OUTCOMES)


def test_every_histogram_bucket_is_exported_before_its_first_value(scraper: Scraper) -> None:
    for name, bounds in (
        ("token_remaining_life_seconds", LIFETIME_BOUNDS_SECONDS),
        ("refresh_lateness_seconds", LATENESS_BOUNDS_SECONDS),
    ):
        buckets = [sample for sample in scraper.scrape()[f"tokenkeeper_{name}"].samples if "le" in sample.labels]
        assert [float(sample.labels["le"]) for sample in buckets] == list(bounds)


def test_the_metrics_show_hubspots_state_the_brake_and_the_last_sweep(
    scraper: Scraper, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(1)
    sql.set("""status = 'suspect', pending_revocation = '{"code": "BAD_REFRESH_TOKEN"}'""", 1)
    connections.stores.provider.begin_sweep(2.0)
    connections.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=Throttled("429", http_status=429, retry_after=300))]
    )
    sql.rows("UPDATE tokenkeeper.provider SET brake_since = now()")
    states = {
        state: scraper.value("provider_state", app="default", state=state)
        for state in ("ok", "throttled", "unavailable")
    }
    assert states == {"ok": 0, "throttled": 1, "unavailable": 0}
    assert 200 < scraper.value("provider_paused_seconds", app="default") <= 300
    assert scraper.value("revocation_brake", app="default") == 1
    assert scraper.value("revocations_held", app="default") == 1
    assert scraper.value("alerts_waiting") == 1
    assert 0 <= scraper.value("sweep_age_seconds", app="default") < 60
    assert scraper.value("last_sweep_timestamp_seconds", app="default") == pytest.approx(sql.now().timestamp(), abs=60)


def test_a_client_that_accepts_openmetrics_gets_it_and_its_strict_parser_accepts_it(
    scraper: Scraper, connections: ConnectionFixture
) -> None:
    connections.install(1)
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    response = scraper.get_metrics(prometheus)
    assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert {family.name for family in openmetrics_families(response.text)} == set(scraper.scrape())


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "text/plain;version=x", ",;=;,"])
def test_any_other_client_gets_the_older_text_format(scraper: Scraper, accept: str) -> None:
    response = scraper.get_metrics(accept)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_an_invalid_version_in_accept_is_no_server_error(scraper: Scraper) -> None:
    assert scraper.get_metrics("application/openmetrics-text;version=x").status_code == 200


@pytest.mark.parametrize("password", [None, "wrong", ""])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_metrics_need_the_operators_password(scraper: Scraper, password: str | None, method: str) -> None:
    response = scraper.get(password=password, method=method)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert "tokenkeeper_" not in response.text


def test_metrics_contain_no_secret_and_no_account(
    scraper: Scraper, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(987654321, access_token=ACCESS_TOKEN, encrypted_refresh_token=REFRESH_TOKEN)
    sql.set("failures = 3, last_error = 'last-error-of-it', status = 'suspect', status_reason = 'reason-of-it'")
    text = scraper.get_metrics().text
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "987654321", "last-error-of-it", "reason-of-it", PASSWORD):
        assert secret not in text


def test_a_database_that_never_answers_is_a_503_within_three_seconds(environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user:secret@127.0.0.1:{silent.getsockname()[1]}/db"
        with serving(environment(OPERATOR_PASSWORD=PASSWORD, DATABASE_URL=url)) as url:
            started_at = time.monotonic()
            response = Scraper(url).get()
            assert time.monotonic() - started_at < 3 + BUSY_SECONDS
    assert (response.status_code, response.headers["Content-Type"]) == (503, "text/plain; charset=utf-8")
    assert "PostgreSQL does not answer" in response.text


def test_a_recent_snapshot_is_served_while_a_new_one_takes_too_long(
    scraper: Scraper, connections: ConnectionFixture, connect: Callable[..., Any]
) -> None:
    assert scraper.value("connections", app="default", status="active") == 0
    connections.install(1)
    with lock_provider(connect()):
        assert scraper.value("connections", app="default", status="active") == 0
    until(lambda: scraper.value("connections", app="default", status="active") == 1)


def test_a_snapshot_that_took_too_long_is_served_to_the_next_scrape(
    scraper: Scraper, connect: Callable[..., Any]
) -> None:
    with lock_provider(connect()):
        assert scraper.get().status_code == 503
    until(lambda: scraper.get().status_code == 200)


@contextmanager
def lock_provider(connection: Any) -> Iterator[None]:
    """Locks the row that every snapshot reads, for the block."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE tokenkeeper.provider IN ACCESS EXCLUSIVE MODE")
        yield
        cursor.execute("ROLLBACK")


def test_a_database_that_is_not_migrated_is_a_503(environment: Environment, empty_database_url: str) -> None:
    with serving(environment(OPERATOR_PASSWORD=PASSWORD, DATABASE_URL=empty_database_url)) as url:
        assert Scraper(url).get().status_code == 503


def test_promtool_finds_nothing_to_report(scraper: Scraper, connections: ConnectionFixture) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH; it comes with Prometheus")
    connections.install(1)
    text = scraper.get_metrics().text
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
