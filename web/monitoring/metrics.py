"""GET /metrics, for Prometheus. Everything is read from PostgreSQL, so every web process answers the same."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import accumulate

import structlog
from flask import Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shared.db.core.errors import StoreError
from shared.db.reports.connections import ConnectionReports, Overview
from shared.db.reports.journals import JournalReport
from shared.db.reports.oldest_snapshot import OldestSnapshot
from shared.db.reports.refresh_stats import RefreshStats, TokenLifetimes, Totals
from shared.domain.journal import JournalState
from shared.domain.provider import Condition
from shared.domain.sweep_liveness import sweep_overdue_seconds
from web.server.timeouts import TimedOut, run_in_thread

log = structlog.get_logger(__name__)

#: For PostgreSQL. Prometheus waits 10 seconds for a scrape.
READ_TIMEOUT_SECONDS = 2.0
#: A snapshot of at most this age is served where reading a new one takes too long.
MAX_SNAPSHOT_AGE_SECONDS = 60.0
OPENMETRICS = "application/openmetrics-text"
NO_DATABASE = "PostgreSQL does not answer: no metrics. /readyz says more.\n"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the metrics are made from, at one moment."""

    overview: Overview
    totals: Totals
    life: TokenLifetimes
    stale: int
    alerts_waiting: int
    oldest_snapshot: OldestSnapshot
    journals: list[JournalReport]
    sweep_seconds: float  #: the setting SWEEP_SECONDS


class Metrics:
    """Reads one snapshot at a time, also for concurrent scrapes: a slow database is not asked twice."""

    def __init__(self, reports: ConnectionReports, refresh_stats: RefreshStats, sweep_seconds: float) -> None:
        self._sweep_seconds = sweep_seconds
        self._reports = reports
        self._refresh_stats = refresh_stats
        self._lock = threading.Lock()
        self._pending: Future[Snapshot] | None = None
        self._latest: tuple[float, Snapshot] | None = None  #: and when its reading began

    def page(self) -> Response:
        try:
            snapshot = self._read_within_timeout()
        except (TimedOut, StoreError) as error:
            log.warning("a scrape got no metrics", why=str(error))
            return Response(NO_DATABASE, 503, mimetype="text/plain")
        return render_metrics(snapshot, request.headers.get("Accept", ""))

    def _read_within_timeout(self) -> Snapshot:
        """A new snapshot, or a recent one where that takes too long: also then a backlog has to be visible."""
        with self._lock:
            if self._pending is None or self._pending.done():
                self._pending = run_in_thread(self._read)
            pending = self._pending
        try:
            return pending.result(READ_TIMEOUT_SECONDS)
        except TimeoutError:
            if self._latest and time.monotonic() - self._latest[0] < MAX_SNAPSHOT_AGE_SECONDS:
                return self._latest[1]
            raise TimedOut(f"no answer within {READ_TIMEOUT_SECONDS} s") from None

    def _read(self) -> Snapshot:
        started_at = time.monotonic()
        snapshot = Snapshot(
            overview=self._reports.read_overview(),
            totals=self._refresh_stats.read_totals(),
            life=self._refresh_stats.read_lifetimes(),
            stale=self._refresh_stats.count_without_token(),
            alerts_waiting=self._refresh_stats.count_undelivered_alerts(),
            oldest_snapshot=self._refresh_stats.read_oldest_snapshot(),
            journals=self._refresh_stats.read_journals(),
            sweep_seconds=self._sweep_seconds,
        )
        self._latest = started_at, snapshot
        return snapshot


def render_metrics(snapshot: Snapshot, accept: str) -> Response:
    """In OpenMetrics' format where the Accept header names it, else in Prometheus's older one."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    # Not the whole header: choose_encoder raises ValueError for a version that is no number.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    response = Response(encode(registry), content_type=content_type)
    response.vary.add("Accept")
    return response


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield make_gauge("build_info", "Always 1. The version that answers.", {("version", version("tokenkeeper")): 1})
        yield from _connections(self._snapshot)
        yield from _tokens(self._snapshot)
        yield from _refreshes(self._snapshot)
        yield from _sweep(self._snapshot.overview, self._snapshot.sweep_seconds)
        yield from _provider(self._snapshot.overview)
        yield from _brake_and_alerts(self._snapshot)
        yield from _neighbours(self._snapshot.oldest_snapshot)
        yield from _journals(self._snapshot.journals)


def _connections(snapshot: Snapshot) -> Iterator[Metric]:
    counts = snapshot.overview.counts
    yield make_gauge(
        "connections",
        "Connected HubSpot accounts, by status. active and suspect are kept fresh.",
        {("status", status.value): count for status, count in counts.items()},
    )
    yield make_gauge(
        "connections_failing",
        "Active or suspect connections whose last attempt at a refresh brought no token.",
        snapshot.overview.failing,
    )


def _tokens(snapshot: Snapshot) -> Iterator[Metric]:
    overview, life = snapshot.overview, snapshot.life
    yield make_gauge(
        "tokens_stale",
        "Active and suspect connections of which no token can be served now: their jobs find no row. "
        "From some 20,000 overdue ones on, an estimate.",
        snapshot.stale,
    )
    yield make_histogram(
        "token_remaining_life_seconds",
        "How much life the tokens that are served have left. A snapshot of this moment: take no rate() of it. "
        "Above 20,000 connections it is an estimate from a sample.",
        life.counts,
        life.total_seconds,
    )
    yield make_gauge(
        "token_remaining_life_seconds_min",
        "Life left in the token that ends soonest of those served. Missing where none is served.",
        (overview.soonest_expiry - overview.now).total_seconds() if overview.soonest_expiry else None,
    )


def _refreshes(snapshot: Snapshot) -> Iterator[Metric]:
    overview, totals = snapshot.overview, snapshot.totals
    refreshes = CounterMetricFamily(
        "tokenkeeper_refreshes",
        "Attempts at a refresh, by outcome. Only refreshed brought a token.",
        labels=["outcome"],
    )
    for outcome, count in totals.attempts.items():
        refreshes.add_metric([outcome], count)
    yield refreshes
    yield make_histogram(
        "refresh_lateness_seconds",
        "How long after it was due a refresh was stored.",
        totals.lateness,
        totals.lateness_seconds,
    )
    yield make_gauge("refreshes_due", "The backlog: refreshes that are due now, in flight or not.", overview.due)
    overdue = (overview.now - overview.soonest_due).total_seconds() if overview.soonest_due else 0.0
    yield make_gauge(
        "oldest_due_age_seconds", "How long the longest waiting refresh has been due; 0: none is.", max(0.0, overdue)
    )
    yield make_gauge(
        "last_success_timestamp_seconds",
        "When HubSpot last handed out a token, to within five seconds; 0: never.",
        _epoch_seconds(overview.last_success_at),
    )


def _sweep(overview: Overview, sweep_seconds: float) -> Iterator[Metric]:
    yield make_gauge(
        "sweep_age_seconds",
        "How long ago the last sweep began, by PostgreSQL's clock; +Inf: there was none. "
        "Without sweeps nothing is refreshed.",
        (overview.now - overview.swept_at).total_seconds() if overview.swept_at else math.inf,
    )
    yield make_gauge(
        "sweep_overdue_seconds",
        "The age above which the last sweep is overdue: five times SWEEP_SECONDS, and half a minute at least.",
        sweep_overdue_seconds(sweep_seconds),
    )
    yield make_gauge(
        "last_sweep_timestamp_seconds",
        "When the last sweep began; 0: there was none.",
        _epoch_seconds(overview.swept_at),
    )
    since = overview.swept_without_beat_since
    yield make_gauge(
        "swept_without_beat_seconds",
        "For how long workers have swept by themselves, because no message of beat reaches them; 0: beat works.",
        max(0.0, (overview.now - since).total_seconds()) if since else 0.0,
    )


def _provider(overview: Overview) -> Iterator[Metric]:
    provider = overview.provider
    yield make_gauge(
        "provider_state",
        "1 for the state that HubSpot is in, 0 for the others.",
        {("state", condition.value): int(condition is provider.condition) for condition in Condition},
    )
    paused = (provider.paused_until - overview.now).total_seconds() if provider.paused_until else 0.0
    yield make_gauge(
        "provider_paused_seconds", "For how long no request is sent to HubSpot, because it said so.", max(0.0, paused)
    )
    yield make_gauge(
        "provider_rate_limit",
        "Refreshes a second that may begin while HubSpot is probed, or a backlog is worked off; +Inf: no such limit.",
        math.inf if provider.rate is None else provider.rate,
    )


def _brake_and_alerts(snapshot: Snapshot) -> Iterator[Metric]:
    overview = snapshot.overview
    yield make_gauge(
        "revocation_brake",
        "1: on, and waiting for an operator's confirm or dismiss; 0: off.",
        int(overview.brake_since is not None),
    )
    yield make_gauge(
        "revocations_held", "Suspect connections that would be revoked, were it not for the brake.", overview.held
    )
    yield make_gauge("alerts_waiting", "Alerts that were raised and are not delivered yet.", snapshot.alerts_waiting)


def _neighbours(oldest: OldestSnapshot) -> Iterator[Metric]:
    yield make_gauge(
        "oldest_snapshot_age_seconds",
        "How long the oldest snapshot in PostgreSQL has been open, as sweeps see it; 0: none is.",
        oldest.age_seconds,
    )
    yield make_gauge(
        "notification_queue_usage",
        "How full PostgreSQL's queue of notifications is, 0 to 1. From 0.5 on no change of status is notified.",
        oldest.queue_usage,
    )


def _journals(journals: Iterable[JournalReport]) -> Iterator[Metric]:
    lag = {("app", journal.app): journal.lag_seconds for journal in journals}
    readable = {("app", journal.app): float(journal.state is JournalState.READING) for journal in journals}
    yield make_gauge(
        "journal_lag_seconds",
        "How long ago the end of HubSpot's journal was reached, by app; +Inf: never. "
        "Later uninstalls are not known yet.",
        lag or None,
    )
    yield make_gauge(
        "journal_readable",
        "1: HubSpot lets the app read its journal, 0: not now, or not at all; an uninstall is then noticed at the next "
        "refresh.",
        readable or None,
    )


def make_gauge(name: str, help_text: str, value: float | Mapping[tuple[str, str], float] | None) -> GaugeMetricFamily:
    """`value`: a number; numbers by label and label value, all of one label; or None for a gauge without a sample."""
    if isinstance(value, Mapping):
        ((label, _), *_) = value
        family = GaugeMetricFamily(f"tokenkeeper_{name}", help_text, labels=[label])
        for (_, label_value), number in value.items():
            family.add_metric([label_value], number)
        return family
    family = GaugeMetricFamily(f"tokenkeeper_{name}", help_text)
    if value is not None:
        family.add_metric([], value)
    return family


def make_histogram(name: str, help_text: str, counts: Mapping[float, int], total: float) -> HistogramMetricFamily:
    """`counts`: by upper bound, how many values are under it and above the bound before."""
    bounds = sorted(counts)
    cumulative: Iterable[int] = accumulate(counts[bound] for bound in bounds)
    labels = ["+Inf" if bound == math.inf else str(bound) for bound in bounds]
    buckets = list(zip(labels, cumulative, strict=True))
    return HistogramMetricFamily(f"tokenkeeper_{name}", help_text, buckets=buckets, sum_value=total)


def _epoch_seconds(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0
