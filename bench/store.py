"""`python -m bench.store`: what PostgreSQL alone allows. Claim and save in a loop by several processes, and no HubSpot.

The store's own statements, leases, fences and history; the answers are made up, and come at once. What it says is where
PostgreSQL ends, once enough workers ask it.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path
from queue import Queue

import psutil  # type: ignore[import-untyped]

from bench import fleet
from bench.hubspot import TOKEN_LENGTH
from bench.processes import Failed
from bench.world import World, world
from shared.db.core.engine import make_engine
from shared.db.refresh.claims import ConnectionClaims, RefreshResult
from shared.db.refresh.results import RefreshResults
from shared.domain.connection import apply_refresh
from shared.domain.grant import Grant
from shared.domain.schedule import Schedule

SIZE = 200_000
#: Rows in one claim and in one save: as the loop in a worker does it under load.
BATCH = 100
PROCESSES = 2
#: Seconds.
WINDOW = 10.0


def worked(database_url: str, seconds: float, refreshed_rows: Queue[int]) -> None:
    """One process: claims and saves until the time is over, and tells how many rows."""
    engine = make_engine(database_url, pool_size=1)
    claims, results = ConnectionClaims(engine, lease_seconds=60), RefreshResults(engine, lease_seconds=60)
    schedule, rows = Schedule(), 0
    ending = time.monotonic() + seconds
    while time.monotonic() < ending:
        batch = claims.claim(BATCH)
        made = []
        for claimed in batch.rows:
            grant = Grant(f"CI{claimed.connection.hub_id:0{TOKEN_LENGTH - 2}d}", fleet.LIFE, batch.now)
            made.append(RefreshResult(claimed.lease, apply_refresh(claimed.connection, grant, schedule)))
        rows += len(results.save(made).saved)
    engine.dispose()
    refreshed_rows.put(rows)


def measured(there: World) -> dict[str, float]:
    """Everything is due, and stays due for longer than is measured."""
    fleet.grow(there, 0, SIZE)
    there.sql("UPDATE tokenkeeper.connections SET due_at = now() - interval '1 hour' * random()")
    there.sql("VACUUM (FULL, ANALYZE) tokenkeeper.connections")
    assert there.postgres.process is not None  # noqa: S101  it runs
    server = psutil.Process(there.postgres.process.pid)
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    there.sql("CHECKPOINT")
    wal, spent = there.value("SELECT pg_current_wal_insert_lsn()"), cpu(server)
    workers = [context.Process(target=worked, args=(there.database_url, WINDOW, done)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    rows = sum(done.get(timeout=WINDOW + 30) for _ in workers)
    for worker in workers:
        worker.join()
    if rows >= SIZE:
        raise Failed("all were done before the time was over: there is no rate to tell")
    written = float(there.value(f"SELECT pg_current_wal_insert_lsn() - '{wal}'::pg_lsn"))
    return {
        "rows a second": rows / WINDOW,
        "PostgreSQL's CPU, us a row": 1e6 * (cpu(server) - spent) / rows,
        "WAL, bytes a row, right after a checkpoint": written / rows,
    }


def cpu(server: psutil.Process) -> float:
    """Seconds of PostgreSQL, its processes that have ended included."""
    times = [process.cpu_times() for process in (server, *server.children())]
    return float(sum(each.user + each.system for each in times) + times[0].children_user + times[0].children_system)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="tokenkeeper-bench-"))
    folder.chmod(0o711)  # PostgreSQL has an account of its own where we are root
    try:
        with world(folder) as there:
            figures = measured(there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{PROCESSES} processes, {BATCH} rows in a claim and in a save, {SIZE:,} rows")
    for words, figure in figures.items():
        print(f"{words:<46}{figure:10,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
