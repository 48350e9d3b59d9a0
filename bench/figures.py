"""Every figure of the benchmark: the part of a run that measures it, and how it is shown. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """A part of a run. Where one fails, the others still run."""

    HUBSPOT = "the simulated HubSpot"
    REST = "at rest"
    SMALL_MEMORY = "memory with 1,000 connections"
    LATENESS = "lateness"
    INSTALLS = "installs"
    READS = "token reads"
    SUSTAINED = "sustained throughput"
    LAYERS = "layers of a refresh"
    PER_TASK = "a task per connection"
    TWO_APPS = "two apps"


@dataclass(frozen=True, slots=True)
class Figure:
    part: Part
    label: str  #: two spaces at its beginning: a detail of the figure above
    unit: str
    digits: int = 0  #: after the decimal point

    @property
    def name_with_unit(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


FIGURES: Mapping[str, Figure] = {
    "product": Figure(Part.SUSTAINED, "product, default settings", "refreshes/s"),
    "product_1000": Figure(Part.SUSTAINED, "product, REFRESH_CONCURRENCY=1000", "refreshes/s"),
    "bare": Figure(Part.SUSTAINED, "bare loop of requests, 2 x 400 threads", "refreshes/s"),
    "curl": Figure(Part.SUSTAINED, "bare loop of libcurl, 2 x 400 calls", "refreshes/s"),
    "curl_1000": Figure(Part.SUSTAINED, "bare loop of libcurl, 2 x 1,000 calls", "refreshes/s"),
    "per_task": Figure(Part.PER_TASK, "a Celery task per connection, 64 processes", "refreshes/s"),
    "to_bare": Figure(Part.SUSTAINED, "product / bare loop of requests", "x", 2),
    "to_per_task": Figure(Part.PER_TASK, "product / task per connection", "x", 1),
    "to_per_task_1000": Figure(Part.PER_TASK, "  the product with REFRESH_CONCURRENCY=1000", "x", 1),
    "to_curl": Figure(Part.SUSTAINED, "product / bare loop of libcurl, 400 calls", "x", 2),
    "to_curl_1000": Figure(Part.SUSTAINED, "product / bare loop of libcurl, 1,000 calls", "x", 2),
    "cpu": Figure(Part.SUSTAINED, "CPU per refresh: worker, PostgreSQL, Valkey", "ms", 3),
    "cpu_worker": Figure(Part.SUSTAINED, "  worker", "ms", 3),
    "cpu_postgres": Figure(Part.SUSTAINED, "  PostgreSQL", "ms", 3),
    "cpu_valkey": Figure(Part.SUSTAINED, "  Valkey", "ms", 3),
    "cpu_beat": Figure(Part.SUSTAINED, "  beat, besides", "ms", 3),
    "cpu_hubspot": Figure(Part.SUSTAINED, "  simulated HubSpot, besides", "ms", 3),
    "cost_growth": Figure(Part.SUSTAINED, "  of all, against the smallest number of connections", "x", 2),
    "cpu_1000": Figure(Part.SUSTAINED, "CPU per refresh, REFRESH_CONCURRENCY=1000", "ms", 3),
    "cpu_bare": Figure(Part.SUSTAINED, "CPU per call of the bare loop of requests", "ms", 3),
    "cpu_curl": Figure(Part.SUSTAINED, "CPU per call of the bare loop of libcurl, 400 calls", "ms", 3),
    "cpu_curl_1000": Figure(Part.SUSTAINED, "CPU per call of the bare loop of libcurl, 1,000 calls", "ms", 3),
    "cpu_per_task": Figure(Part.PER_TASK, "CPU per task, with PostgreSQL and Valkey", "ms", 3),
    "layers": Figure(Part.LAYERS, "refresh loop alone, in one process: CPU per refresh", "us"),
    "layer_rest": Figure(Part.LAYERS, "  libcurl, sockets, and the loop", "us"),
    "layer_attempt": Figure(Part.LAYERS, "  build the request, parse the reply, decide", "us"),
    "layer_open": Figure(Part.LAYERS, "  decrypt the refresh token (Fernet)", "us"),
    "layer_claim": Figure(Part.LAYERS, "  claim: SQL, and objects for the rows", "us"),
    "layer_save": Figure(Part.LAYERS, "  save: JSON, SQL", "us"),
    "layers_rate": Figure(Part.LAYERS, "  refreshes", "/s"),
    "wal": Figure(Part.SUSTAINED, "PostgreSQL's write volume per refresh", "bytes"),
    "row_bytes": Figure(Part.SUSTAINED, "a row on disk, with its indexes", "bytes"),
    "memory_worker": Figure(Part.SUSTAINED, "memory of the largest worker process", "MB"),
    "memory_small": Figure(Part.SMALL_MEMORY, "  with 1,000 connections", "MB"),
    "memory_growth": Figure(Part.SUSTAINED, "  against 1,000 connections", "x", 2),
    "late_p50": Figure(Part.LATENESS, "lateness p50", "s", 2),
    "late_p99": Figure(Part.LATENESS, "lateness p99", "s", 2),
    "pace": Figure(Part.LATENESS, "  refreshes that fall due", "/s"),
    "late_cpu": Figure(Part.LATENESS, "  CPU per refresh: worker, PostgreSQL, Valkey", "ms", 3),
    "read_p50": Figure(Part.READS, "token read by hub_id, p50", "ms", 3),
    "read_p99": Figure(Part.READS, "  p99", "ms", 3),
    "reads": Figure(Part.READS, "  throughput, 4 readers", "/s"),
    "to_bare_reads": Figure(Part.READS, "  of a bare index SELECT's", "x", 2),
    "customer_read_p50": Figure(Part.READS, "token read by customer, p50", "ms", 3),
    "to_bare_customer_reads": Figure(Part.READS, "  throughput, of a bare index SELECT's", "x", 2),
    "install_p95": Figure(Part.INSTALLS, "callback answered to token readable, p95", "ms"),
    "install_p50": Figure(Part.INSTALLS, "  p50", "ms"),
    "backlog_p95": Figure(Part.INSTALLS, "  p95 while a backlog drains", "ms"),
    "one_app": Figure(Part.TWO_APPS, "two apps: one alone", "refreshes/s"),
    "to_refused": Figure(Part.TWO_APPS, "  beside one whose secret is refused / alone", "x", 2),
    "to_silent": Figure(Part.TWO_APPS, "  beside one that HubSpot does not answer / alone", "x", 2),
    "rest_memory": Figure(Part.REST, "at rest, 1,000 connections: memory, shared pages once", "MB"),
    "rest_web": Figure(Part.REST, "  web", "MB"),
    "rest_worker": Figure(Part.REST, "  worker", "MB"),
    "rest_beat": Figure(Part.REST, "  beat", "MB"),
    "rest_postgres": Figure(Part.REST, "  PostgreSQL", "MB"),
    "rest_valkey": Figure(Part.REST, "  Valkey", "MB"),
    "rest_cpu": Figure(Part.REST, "at rest: CPU of all, of one core", "%", 1),
    "import": Figure(Part.SUSTAINED, "tokenkeeper import", "rows/s"),
    "hubspot_ceiling": Figure(Part.HUBSPOT, "simulated HubSpot alone, answering at once", "/s"),
    "hubspot_ceiling_cpu": Figure(Part.HUBSPOT, "  CPU per answer", "ms", 3),
}  # fmt: skip
