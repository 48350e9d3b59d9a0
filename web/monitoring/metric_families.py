"""The metrics of /metrics, made from one reading of PostgreSQL. What is one app's own has the label `app`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.db.reports.history_lines import DeliveryReport
from shared.db.reports.journals import JournalReport
from shared.db.reports.oldest_snapshot import OldestSnapshot
from shared.db.reports.overview import AppState, Overview
from shared.db.reports.refresh_stats import TokenLifetimes, Totals
from shared.db.reports.scopes import ScopeCounts
from shared.domain.journal import JournalState
from shared.domain.provider import Condition
from shared.domain.sweep_liveness import sweep_overdue_seconds
from web.monitoring.event_metrics import collect_delivery, collect_lacking


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the metrics are made from, at one moment."""

    overview: Overview
    totals: Mapping[str, Totals]  #: by app
    life: TokenLifetimes
    stale: int
    alerts_waiting: int
    oldest_snapshot: OldestSnapshot
    journals: Sequence[JournalReport]
    delivery: DeliveryReport
    scope_counts: Sequence[ScopeCounts]
    app_names: Sequence[str]  #: those of the settings
    sweep_seconds: float  #: the setting SWEEP_SECONDS

    @property
    def apps(self) -> tuple[AppState, ...]:
        """Of the settings: those that are swept."""
        return self.overview.select(self.app_names).apps


class SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        yield _make_gauge(
            "build_info", "Always 1. The version that answers.", {(version("tokenkeeper"),): 1}, "version"
        )
        yield from _connections(snapshot.overview.apps)
        yield from _tokens(snapshot)
        yield from _refreshes(snapshot.totals, snapshot.app_names)
        yield from _backlog(snapshot)
        yield from _sweep(snapshot)
        yield from _provider(snapshot)
        yield from _brake_and_alerts(snapshot)
        yield from _neighbours(snapshot.oldest_snapshot)
        yield from _journals(snapshot.journals)
        yield from collect_lacking(snapshot.scope_counts)
        yield from collect_delivery(snapshot.delivery)


def _connections(apps: Iterable[AppState]) -> Iterator[Metric]:
    """Also of apps that are in no setting any more: their connections are kept."""
    yield _make_gauge(
        "connections",
        "Connected HubSpot accounts, by app and status. active and suspect are kept fresh.",
        {(state.app, status.value): count for state in apps for status, count in state.counts.items()},
        "app",
        "status",
    )
    yield _make_gauge(
        "connections_failing",
        "Active or suspect connections whose last attempt at a refresh brought no token.",
        {(state.app,): state.failing for state in apps},
        "app",
    )


def _tokens(snapshot: Snapshot) -> Iterator[Metric]:
    overview, life = snapshot.overview, snapshot.life
    yield _make_gauge(
        "tokens_stale",
        "Active and suspect connections of which no token can be served now: their jobs find no row. "
        "From some 20,000 overdue ones on, an estimate.",
        {(): snapshot.stale},
    )
    life_histogram = HistogramMetricFamily(
        "tokenkeeper_token_remaining_life_seconds",
        "How much life the tokens that are served have left. A snapshot of this moment: take no rate() of it. "
        "Above 20,000 connections it is an estimate from a sample.",
    )
    life_histogram.add_metric([], _make_buckets(life.counts), life.total_seconds)
    yield life_histogram
    soonest = overview.soonest_expiry
    yield _make_gauge(
        "token_remaining_life_seconds_min",
        "Life left in the token that ends soonest of those served. Missing where none is served.",
        {(): (soonest - overview.now).total_seconds()} if soonest else {},
    )


def _refreshes(totals_by_app: Mapping[str, Totals], app_names: Iterable[str]) -> Iterator[Metric]:
    refreshes = CounterMetricFamily(
        "tokenkeeper_refreshes",
        "Attempts at a refresh, by app and outcome. Only refreshed brought a token.",
        labels=["app", "outcome"],
    )
    lateness = HistogramMetricFamily(
        "tokenkeeper_refresh_lateness_seconds", "How long after it was due a refresh was stored.", labels=["app"]
    )
    for app in sorted({*totals_by_app, *app_names}):
        totals = totals_by_app.get(app) or Totals.empty()
        for outcome, count in totals.attempts.items():
            refreshes.add_metric([app, outcome], count)
        lateness.add_metric([app], _make_buckets(totals.lateness), totals.lateness_seconds)
    yield refreshes
    yield lateness


def _backlog(snapshot: Snapshot) -> Iterator[Metric]:
    now, apps = snapshot.overview.now, snapshot.apps
    yield _make_gauge_by_app(
        "refreshes_due", "The backlog: refreshes that are due now, in flight or not.", apps, lambda state: state.due
    )
    yield _make_gauge_by_app(
        "oldest_due_age_seconds",
        "How long the longest waiting refresh has been due; 0: none is.",
        apps,
        lambda state: max(0.0, (now - state.soonest_due).total_seconds()) if state.soonest_due else 0.0,
    )
    yield _make_gauge_by_app(
        "last_success_timestamp_seconds",
        "When HubSpot last issued a token, to within five seconds; 0: never.",
        apps,
        lambda state: _epoch_seconds(state.last_success_at),
    )


def _sweep(snapshot: Snapshot) -> Iterator[Metric]:
    now, apps = snapshot.overview.now, snapshot.apps
    yield _make_gauge_by_app(
        "sweep_age_seconds",
        "How long ago the last sweep of the app began, by PostgreSQL's clock; +Inf: there was none. "
        "Without sweeps nothing is refreshed.",
        apps,
        lambda state: (now - state.swept_at).total_seconds() if state.swept_at else math.inf,
    )
    yield _make_gauge(
        "sweep_overdue_seconds",
        "The age above which the last sweep is overdue: five times SWEEP_SECONDS, and half a minute at least.",
        {(): sweep_overdue_seconds(snapshot.sweep_seconds)},
    )
    yield _make_gauge_by_app(
        "last_sweep_timestamp_seconds",
        "When the last sweep of the app began; 0: there was none.",
        apps,
        lambda state: _epoch_seconds(state.swept_at),
    )
    since = snapshot.overview.swept_without_beat_since
    yield _make_gauge(
        "swept_without_beat_seconds",
        "For how long workers have swept by themselves, because no message of beat reaches them; 0: beat works.",
        {(): max(0.0, (now - since).total_seconds()) if since else 0.0},
    )


def _provider(snapshot: Snapshot) -> Iterator[Metric]:
    now, apps = snapshot.overview.now, snapshot.apps
    yield _make_gauge(
        "provider_state",
        "1 for the state that HubSpot is in for the app, 0 for the others.",
        {
            (state.app, condition.value): int(condition is state.provider.condition)
            for state in apps
            for condition in Condition
        },
        "app",
        "state",
    )
    yield _make_gauge_by_app(
        "provider_paused_seconds",
        "For how long no request of the app is sent to HubSpot, because it said so.",
        apps,
        lambda state: (
            max(0.0, (state.provider.paused_until - now).total_seconds()) if state.provider.paused_until else 0.0
        ),
    )
    yield _make_gauge_by_app(
        "provider_rate_limit",
        "Refreshes a second that may begin while HubSpot is probed, or a backlog is worked off; +Inf: no such limit.",
        apps,
        lambda state: math.inf if state.provider.rate is None else state.provider.rate,
    )


def _brake_and_alerts(snapshot: Snapshot) -> Iterator[Metric]:
    yield _make_gauge_by_app(
        "revocation_brake",
        "1: on, and waiting for an operator's confirm or dismiss; 0: off.",
        snapshot.apps,
        lambda state: int(state.brake_since is not None),
    )
    yield _make_gauge_by_app(
        "revocations_held",
        "Suspect connections that would be revoked, were it not for the brake.",
        snapshot.apps,
        lambda state: state.held,
    )
    yield _make_gauge(
        "alerts_waiting", "Alerts that were raised and are not delivered yet.", {(): snapshot.alerts_waiting}
    )


def _neighbours(oldest: OldestSnapshot) -> Iterator[Metric]:
    yield _make_gauge(
        "oldest_snapshot_age_seconds",
        "How long the oldest snapshot in PostgreSQL has been open, as sweeps see it; 0: none is.",
        {(): oldest.age_seconds},
    )
    yield _make_gauge(
        "notification_queue_usage",
        "How full PostgreSQL's queue of notifications is, 0 to 1. From 0.5 on no change of status is notified.",
        {(): oldest.queue_usage},
    )


def _journals(journals: Iterable[JournalReport]) -> Iterator[Metric]:
    yield _make_gauge(
        "journal_lag_seconds",
        "How long ago the end of HubSpot's journal was reached, by app; +Inf: never. "
        "Later uninstalls are not known yet.",
        {(journal.app,): journal.lag_seconds for journal in journals},
        "app",
    )
    yield _make_gauge(
        "journal_readable",
        "1: HubSpot lets the app read its journal, 0: not now, or not at all; an uninstall is then noticed at the next "
        "refresh.",
        {(journal.app,): float(journal.state is JournalState.READING) for journal in journals},
        "app",
    )


def _make_gauge(name: str, help_text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    """`values`: by the values of the labels; the empty tuple where there are none."""
    family = GaugeMetricFamily(f"tokenkeeper_{name}", help_text, labels=list(labels))
    for label_values, number in values.items():
        family.add_metric(list(label_values), number)
    return family


def _make_gauge_by_app(
    name: str, help_text: str, apps: Iterable[AppState], read: Callable[[AppState], float]
) -> GaugeMetricFamily:
    return _make_gauge(name, help_text, {(state.app,): read(state) for state in apps}, "app")


def _make_buckets(counts: Mapping[float, int]) -> list[tuple[str, int]]:
    """`counts`: by upper bound, how many values are under it and above the bound before."""
    bounds = sorted(counts)
    cumulative: Iterable[int] = accumulate(counts[bound] for bound in bounds)
    labels = ["+Inf" if bound == math.inf else str(bound) for bound in bounds]
    return list(zip(labels, cumulative, strict=True))


def _epoch_seconds(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0
