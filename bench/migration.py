"""`python -m bench.migration [--rows N]`: migrates a database of revision 0004 while its rows are read and refreshed.

Prints how long the preparation and the last step took, how many refreshes were saved meanwhile, and the longest time
that a reader and a refresh waited: for as long as any lock of the migration held them up.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2

from sandbox.embedded import EmbeddedPostgres
from shared.db.schema import migrate as migrations

#: The first two and what a migration finds there are those of revision 0004.
FIRST_REVISION = "0004"
INSERT = """
INSERT INTO tokenkeeper.connections (hub_id, status, access_token, expires_at, lifetime_seconds, scopes, refreshed_at,
                                     encrypted_refresh_token, installed_at, due_at)
SELECT n, 'active', repeat('a', 200), now() + interval '1 hour', 1800, '{oauth}', now(), repeat('r', 250), now(),
       now() + interval '1 second' * (n %% 600)
  FROM generate_series(%s, %s) AS n
"""
#: As claims and saves of revision 0004, and valid at 0005 too while there is one app.
CLAIM = """
UPDATE tokenkeeper.connections SET lease_until = now() + interval '1 minute', lease_number = lease_number + 1
 WHERE hub_id IN (SELECT hub_id FROM tokenkeeper.connections WHERE hub_id BETWEEN %s AND %s
                  ORDER BY hub_id FOR NO KEY UPDATE SKIP LOCKED)
RETURNING hub_id
"""
SAVE = """
UPDATE tokenkeeper.connections SET access_token = repeat('b', 200), refreshed_at = now(), lease_until = NULL,
       due_at = now() + interval '20 minutes', expires_at = now() + interval '30 minutes'
 WHERE hub_id IN (SELECT hub_id FROM tokenkeeper.connections WHERE hub_id = ANY(%s)
                  ORDER BY hub_id FOR NO KEY UPDATE SKIP LOCKED)
"""
READ = "SELECT access_token FROM hubspot.tokens WHERE hub_id = %s"
BATCH_ROWS, FILL_ROWS = 50, 50_000
#: Between two reads, and between two refreshes of a batch.
READ_PAUSE_SECONDS, REFRESH_PAUSE_SECONDS = 0.002, 0.01


class Load(threading.Thread):
    """Repeats one piece of work on a connection of its own, and measures how long each took."""

    def __init__(self, url: str, work: Callable[[Any, int], int], pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._url, self._work, self._pause_seconds = url, work, pause_seconds
        self._is_stopping = threading.Event()
        self.longest_seconds = 0.0
        self.done = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            connection = psycopg2.connect(self._url)
            connection.autocommit = True
            with connection.cursor() as cursor:
                number = 0
                while not self._is_stopping.wait(self._pause_seconds):
                    started_at = time.monotonic()
                    self.done += self._work(cursor, number)
                    self.longest_seconds = max(self.longest_seconds, time.monotonic() - started_at)
                    number += 1
            connection.close()
        except psycopg2.Error as error:
            self.error = error

    def stop(self) -> None:
        self._is_stopping.set()
        self.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.migration", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            return _measure(server.url(), rows)
        finally:
            server.stop()


def _measure(url: str, rows: int) -> int:
    # 1. A database of revision 0004, with these rows.
    migrations.migrate(url, last_revision=FIRST_REVISION)
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for start in range(1, rows + 1, FILL_ROWS):
            cursor.execute(INSERT, (start, min(rows, start + FILL_ROWS - 1)))
        cursor.execute("VACUUM ANALYZE tokenkeeper.connections")

    # 2. Migrate it under load.
    def refresh(cursor: Any, number: int) -> int:
        first = number * BATCH_ROWS % rows + 1
        cursor.execute(CLAIM, (first, first + BATCH_ROWS - 1))
        hub_ids = [hub_id for (hub_id,) in cursor.fetchall()]
        cursor.execute(SAVE, (hub_ids,))
        return int(cursor.rowcount)

    def read(cursor: Any, number: int) -> int:
        cursor.execute(READ, (number * 7919 % rows + 1,))
        return len(cursor.fetchall())

    loads = {"read": Load(url, read, READ_PAUSE_SECONDS), "refresh": Load(url, refresh, REFRESH_PAUSE_SECONDS)}
    for load in loads.values():
        load.start()
    started_at = time.monotonic()
    migrations.migrate(url, prepare_only=True)
    prepared_at = time.monotonic()
    migrations.migrate(url)
    ended_at = time.monotonic()
    for load in loads.values():
        load.stop()

    # 3. Report.
    print(f"rows {rows:,}, prepared in {prepared_at - started_at:.1f} s, last steps {ended_at - prepared_at:.2f} s")
    for name, load in loads.items():
        print(f"{name}: {load.done:,} rows meanwhile, the longest took {1000 * load.longest_seconds:.0f} ms", end="")
        print(f", stopped by {type(load.error).__name__}: {load.error}" if load.error else "")
    return 0 if all(load.error is None and load.longest_seconds < 1.0 for load in loads.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
