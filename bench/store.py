"""`python -m bench.store`: the throughput of PostgreSQL alone. Processes claim and save in a loop, without HubSpot.

Statements, leases, fences and history are the product's own; the grants are generated. The result is the limit that
PostgreSQL sets, once there are enough workers.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from queue import Queue

from bench.hubspot import TOKEN_CHARACTERS
from bench.measure import read_cpu_seconds
from bench.stored_connections import TOKEN_SECONDS, copy_connections
from bench.testbed import BenchmarkError, Testbed, run_testbed
from shared.db.core.engine import make_engine
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.leases import RefreshResult
from shared.db.refresh.results import RefreshResults
from shared.domain.connection import apply_refresh
from shared.domain.grant import Grant
from shared.domain.schedule import Schedule

CONNECTIONS = 200_000
#: In one claim and in one save, as the worker's loop does under load.
BATCH_ROWS = 100
PROCESSES = 2
LEASE_SECONDS = 60
SECONDS = 10.0
RESULT_TIMEOUT_SECONDS = SECONDS + 30
#: More than is refreshed while it is measured.
MAKE_OVERDUE = "UPDATE tokenkeeper.connections SET due_at = now() - interval '1 hour' * random()"


def run_worker(database_url: str, seconds: float, row_counts: Queue[int]) -> None:
    """One process: claims and saves for `seconds`, then puts the number of saved rows into `row_counts`."""
    engine = make_engine(database_url, pool_size=1)
    claims = ConnectionClaims(engine, lease_seconds=LEASE_SECONDS)
    results = RefreshResults(engine, lease_seconds=LEASE_SECONDS)
    schedule, rows = Schedule(), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        batch = claims.claim(BATCH_ROWS)
        refreshed = []
        for claimed in batch.rows:
            grant = Grant(f"CI{claimed.connection.identity.hub_id:0{TOKEN_CHARACTERS - 2}d}", TOKEN_SECONDS, batch.now)
            refreshed.append(RefreshResult(claimed.lease, apply_refresh(claimed.connection, grant, schedule)))
        rows += len(results.save(refreshed).saved)
    engine.dispose()
    row_counts.put(rows)


def measure_store(testbed: Testbed) -> dict[str, float]:
    """Figures by their labels. Raises BenchmarkError."""
    copy_connections(testbed, CONNECTIONS)
    testbed.execute(MAKE_OVERDUE)
    testbed.execute("VACUUM (FULL, ANALYZE) tokenkeeper.connections")
    testbed.execute("CHECKPOINT")
    assert testbed.postgres.process is not None  # noqa: S101  it runs
    postgres_pid = testbed.postgres.process.pid
    context = multiprocessing.get_context("spawn")
    row_counts = context.Queue()
    wal_start = testbed.fetch_value("SELECT pg_current_wal_insert_lsn()")
    cpu_start = read_cpu_seconds(postgres_pid)
    workers = [
        context.Process(target=run_worker, args=(testbed.database_url, SECONDS, row_counts)) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    rows = sum(row_counts.get(timeout=RESULT_TIMEOUT_SECONDS) for _ in workers)
    for worker in workers:
        worker.join()
    if rows >= CONNECTIONS:
        raise BenchmarkError("every connection was refreshed before the time was over: there is no rate to report")
    cpu_seconds = read_cpu_seconds(postgres_pid) - cpu_start
    wal_bytes = float(testbed.fetch_value(f"SELECT pg_current_wal_insert_lsn() - '{wal_start}'::pg_lsn"))
    return {
        "rows a second": rows / SECONDS,
        "PostgreSQL's CPU, us a row": 1e6 * cpu_seconds / rows,
        "WAL, bytes a row, right after a checkpoint": wal_bytes / rows,
    }


def main() -> int:
    with run_testbed() as testbed:
        figures = measure_store(testbed)
    print(f"{PROCESSES} processes, {BATCH_ROWS} rows in a claim and in a save, {CONNECTIONS:,} rows")
    for label, figure in figures.items():
        print(f"{label:<46}{figure:10,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
