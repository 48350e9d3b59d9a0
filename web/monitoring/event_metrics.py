"""The metrics of events to our own product, and of connections that lack scopes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shared.db.reports.history_lines import DeliveryReport
from shared.db.reports.scopes import ScopeCounts


def collect_delivery(report: DeliveryReport) -> Iterator[Metric]:
    for name, help_text, value in (
        (
            "events_lag_seconds",
            "Since the oldest event happened that the receiver has not accepted.",
            report.lag_seconds,
        ),
        ("events_waiting_connections", "Connections whose oldest event was refused.", report.waiting_connections),
        (
            "events_stopped",
            "1: the receiver answered 410 Gone, and an operator must resume; 0: it did not.",
            int(report.stopped_at is not None),
        ),
    ):
        yield GaugeMetricFamily(f"tokenkeeper_{name}", help_text, value=value)
    yield CounterMetricFamily(
        "tokenkeeper_events_accepted", "Events that the receiver accepted.", value=report.accepted
    )
    yield CounterMetricFamily(
        "tokenkeeper_events_dropped", "Events that were not accepted for three days.", value=report.dropped
    )


def collect_lacking(counts: Sequence[ScopeCounts]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "tokenkeeper_connections_lacking_scopes",
        "Active and suspect connections whose grant lacks a required scope, counted every ten minutes.",
        labels=["app"],
    )
    for each in counts:
        family.add_metric([each.app], each.lacking)
    yield family
