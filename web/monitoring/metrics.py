"""GET /metrics, for Prometheus. Everything is read from PostgreSQL, so every web process answers the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from concurrent.futures import Future

import structlog
from flask import Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shared.db.core.errors import StoreError
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.history_lines import HistoryReader
from shared.db.reports.refresh_stats import RefreshStats
from shared.db.reports.scopes import ScopeReports
from web.monitoring.metric_families import Snapshot, SnapshotCollector
from web.server.timeouts import TimedOut, run_in_thread

log = structlog.get_logger(__name__)

#: For PostgreSQL. Prometheus waits 10 seconds for a scrape.
READ_TIMEOUT_SECONDS = 2.0
#: A snapshot of at most this age is served where reading a new one takes too long.
MAX_SNAPSHOT_AGE_SECONDS = 60.0
OPENMETRICS = "application/openmetrics-text"
NO_DATABASE = "PostgreSQL does not answer: no metrics. /readyz says more.\n"


class Metrics:
    """Reads one snapshot at a time, also for concurrent scrapes: a slow database is not asked twice."""

    def __init__(
        self,
        reports: ConnectionReports,
        refresh_stats: RefreshStats,
        history: HistoryReader,
        scope_reports: ScopeReports,
        *,
        app_names: Collection[str],
        sweep_seconds: float,
    ) -> None:
        self._app_names = sorted(app_names)
        self._sweep_seconds = sweep_seconds
        self._reports = reports
        self._refresh_stats = refresh_stats
        self._history = history
        self._scope_reports = scope_reports
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
            delivery=self._history.read_delivery(),
            scope_counts=self._scope_reports.read_counts(),
            app_names=self._app_names,
            sweep_seconds=self._sweep_seconds,
        )
        self._latest = started_at, snapshot
        return snapshot


def render_metrics(snapshot: Snapshot, accept: str) -> Response:
    """In OpenMetrics' format where the Accept header names it, else in Prometheus's older one."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))
    # Not the whole header: choose_encoder raises ValueError for a version that is no number.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    response = Response(encode(registry), content_type=content_type)
    response.vary.add("Accept")
    return response
