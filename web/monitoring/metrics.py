"""GET /metrics: what Prometheus is told. All of it is read from PostgreSQL, so every web process tells the same."""

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
from shared.db.reports.refresh_stats import Life, RefreshStats, Totals
from shared.domain.provider import Condition
from web.server.timeouts import TimedOut, run_in_thread

log = structlog.get_logger(__name__)

#: Seconds. Prometheus gives a scrape ten.
PATIENCE = 2.0
#: Seconds for which a reading may stand in for one that takes longer than that: two scrapes, where those are far apart.
KEPT = 60.0
OPENMETRICS = "application/openmetrics-text"
SILENT = "PostgreSQL does not answer: no metrics. /readyz says more.\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to tell, of one moment."""

    overview: Overview
    totals: Totals
    life: Life
    stale: int
    alerts_waiting: int


class Metrics:
    """Reads one at a time, whoever asks meanwhile: what is slow is not made slower by asking twice."""

    def __init__(self, reports: ConnectionReports, activity: RefreshStats) -> None:
        self._roster = reports
        self._activity = activity
        self._one_at_a_time = threading.Lock()
        self._under_way: Future[Reading] | None = None
        self._latest: tuple[float, Reading] | None = None

    def page(self) -> Response:
        try:
            reading = self._reading()
        except (TimedOut, StoreError) as error:
            log.warning("no metrics for whoever asked", why=str(error))
            return Response(SILENT, 503, mimetype="text/plain")
        return exposed(reading, request.headers.get("Accept", ""))

    def _reading(self) -> Reading:
        """In time, if it has to be that of a moment ago: a backlog must not hide itself by slowing this down."""
        try:
            return self._asked().result(PATIENCE)
        except TimeoutError:
            if self._latest and time.monotonic() - self._latest[0] < KEPT:
                return self._latest[1]
            raise TimedOut(f"no answer within {PATIENCE} s") from None

    def _asked(self) -> Future[Reading]:
        with self._one_at_a_time:
            if self._under_way is None or self._under_way.done():
                self._under_way = run_in_thread(self._read)
            return self._under_way

    def _read(self) -> Reading:
        began = time.monotonic()
        reading = Reading(
            overview=self._roster.overview(),
            totals=self._activity.totals(),
            life=self._activity.life(),
            stale=self._activity.stale(),
            alerts_waiting=self._activity.alerts_waiting(),
        )
        self._latest = began, reading
        return reading


def exposed(reading: Reading, accept: str) -> Response:
    """In OpenMetrics' words for whoever says that it reads them, else in Prometheus's older ones."""
    registry = CollectorRegistry()
    registry.register(_Collected(reading))
    # Not the whole header: a version in it that is no number would be its encoder's end.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    response = Response(encode(registry), content_type=content_type)
    response.vary.add("Accept")
    return response


class _Collected(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "Always 1. The version that answers.", {("version", version("tokenkeeper")): 1})
        yield from _connections(self._reading)
        yield from _tokens(self._reading)
        yield from _refreshes(self._reading)
        yield from _sweep(self._reading.overview)
        yield from _provider(self._reading.overview)
        yield from _brake_and_alerts(self._reading)


def _connections(reading: Reading) -> Iterator[Metric]:
    counts = reading.overview.counts
    yield gauge(
        "connections",
        "Connected HubSpot accounts, by status. active and suspect are kept fresh.",
        {("status", status.value): count for status, count in counts.items()},
    )
    yield gauge(
        "connections_failing",
        "Active or suspect connections whose last attempt at a refresh brought no token.",
        reading.overview.failing,
    )


def _tokens(reading: Reading) -> Iterator[Metric]:
    overview, life = reading.overview, reading.life
    yield gauge(
        "tokens_stale",
        "Active and suspect connections of which no token can be served now: their jobs find no row. "
        "From some 20,000 overdue ones on, an estimate.",
        reading.stale,
    )
    yield histogram(
        "token_remaining_life_seconds",
        "How much life the tokens that are served have left. A snapshot of this moment: take no rate() of it. "
        "Above 20,000 connections it is an estimate from a sample.",
        life.lives,
        life.seconds,
    )
    yield gauge(
        "token_remaining_life_seconds_min",
        "Life left in the token that ends soonest of those served. Missing where none is served.",
        (overview.soonest_expiry - overview.now).total_seconds() if overview.soonest_expiry else None,
    )


def _refreshes(reading: Reading) -> Iterator[Metric]:
    overview, totals = reading.overview, reading.totals
    refreshes = CounterMetricFamily(
        "tokenkeeper_refreshes",
        "Attempts at a refresh, by what they came to. Only refreshed brought a token.",
        labels=["outcome"],
    )
    for outcome, count in totals.attempts.items():
        refreshes.add_metric([outcome], count)
    yield refreshes
    yield histogram(
        "refresh_lateness_seconds",
        "How long after it was due a refresh was stored.",
        totals.lateness,
        totals.lateness_seconds,
    )
    yield gauge("refreshes_due", "The backlog: refreshes that are due now, in flight or not.", overview.due)
    late = (overview.now - overview.soonest_due).total_seconds() if overview.soonest_due else 0.0
    yield gauge(
        "oldest_due_age_seconds", "How long the longest waiting refresh has been due; 0: none is.", max(0.0, late)
    )
    yield gauge(
        "last_success_timestamp_seconds",
        "When HubSpot last handed out a token, to within five seconds; 0: it never did.",
        _timestamp(overview.last_success_at),
    )


def _sweep(overview: Overview) -> Iterator[Metric]:
    yield gauge(
        "sweep_age_seconds",
        "How long ago the last sweep began, by PostgreSQL's clock; +Inf: there was none. Nothing is refreshed without.",
        (overview.now - overview.swept_at).total_seconds() if overview.swept_at else math.inf,
    )
    yield gauge(
        "last_sweep_timestamp_seconds", "When the last sweep began; 0: there was none.", _timestamp(overview.swept_at)
    )


def _provider(overview: Overview) -> Iterator[Metric]:
    provider = overview.provider
    yield gauge(
        "provider_state",
        "1 for the state that HubSpot is in, 0 for the others.",
        {("state", state.value): int(state is provider.condition) for state in Condition},
    )
    paused = (provider.paused_until - overview.now).total_seconds() if provider.paused_until else 0.0
    yield gauge("provider_paused_seconds", "For how long nobody asks HubSpot, because it said so.", max(0.0, paused))
    yield gauge(
        "provider_rate_limit",
        "Refreshes a second that may begin while HubSpot is probed, or a backlog is worked off; +Inf: no such limit.",
        math.inf if provider.rate is None else provider.rate,
    )


def _brake_and_alerts(reading: Reading) -> Iterator[Metric]:
    overview = reading.overview
    braked = int(overview.brake_since is not None)
    yield gauge("revocation_brake", "1: on, and waiting for an operator's confirm or dismiss; 0: off.", braked)
    yield gauge(
        "revocations_held", "Suspect connections that would be revoked, were it not for the brake.", overview.held
    )
    yield gauge("alerts_waiting", "Alerts that were raised and are not delivered yet.", reading.alerts_waiting)


def gauge(name: str, told: str, value: float | Mapping[tuple[str, str], float] | None) -> GaugeMetricFamily:
    """`value`: the only one; or one for each label and its value; None: there is none."""
    if isinstance(value, Mapping):
        ((label, _), *_) = value
        family = GaugeMetricFamily(f"tokenkeeper_{name}", told, labels=[label])
        for (_, labelled), number in value.items():
            family.add_metric([labelled], number)
        return family
    family = GaugeMetricFamily(f"tokenkeeper_{name}", told)
    if value is not None:
        family.add_metric([], value)
    return family


def histogram(name: str, told: str, counts: Mapping[float, int], total: float) -> HistogramMetricFamily:
    """`counts`: how many are under each bound and above the one before it."""
    bounds = sorted(counts)
    summed: Iterable[int] = accumulate(counts[bound] for bound in bounds)
    buckets = [(_le(bound), count) for bound, count in zip(bounds, summed, strict=True)]
    return HistogramMetricFamily(f"tokenkeeper_{name}", told, buckets=buckets, sum_value=total)


def _le(bound: float) -> str:
    return "+Inf" if bound == math.inf else str(bound)


def _timestamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0
