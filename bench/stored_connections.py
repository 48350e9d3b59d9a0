"""The stored connections: imported by the product or copied in bulk, then given the due times that a figure needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.hubspot import TOKEN_CHARACTERS, make_refresh_token
from bench.testbed import BenchmarkError, Testbed
from sandbox.child_processes import ChildProcess

#: HubSpot's access tokens live so long.
TOKEN_SECONDS = 1800
#: When a refresh falls due, as a fraction of the token's life: half-way between REFRESH_FROM and REFRESH_UNTIL.
DUE_FRACTION = 0.675
#: Refreshes that fall due each second where the highest throughput is measured: more than the product can do.
OVERLOAD_PER_SECOND = 9000
#: The most that fall due each second where lateness is measured: with more connections, tokens live longer.
MAX_PACE_PER_SECOND = 1000
#: The product's processes start within.
START_SECONDS = 3.0
#: Copies that are stored: usually, and at least.
COPIED_ROWS_PER_SECOND, MIN_COPIED_ROWS_PER_SECOND = 15_000, 1000
#: A larger table is not rewritten between two figures, which would take longer than the figures.
MAX_REWRITTEN_ROWS = 100_000

#: As if all had been refreshed and identified before. What an import leaves behind is gone after its first refresh.
MAKE_REFRESHED = f"""
UPDATE tokenkeeper.connections
   SET access_token = rpad('CI' || hub_id, {TOKEN_CHARACTERS}, md5(hub_id::text)),
       expires_at = now() + interval '3 hours',
       lifetime_seconds = {TOKEN_SECONDS}, refreshed_at = now(), scopes = '{{oauth,crm.objects.contacts.read}}',
       account_info_due_at = NULL
 WHERE access_token IS NULL
"""
SPREAD_DUE_TIMES = "UPDATE tokenkeeper.connections SET due_at = now() + make_interval(secs => %s + random() * %s)"
#: As if they had been refreshed when they were due.
PUT_OFF = """
UPDATE tokenkeeper.connections SET due_at = due_at + make_interval(secs => %s)
 WHERE app = 'default' AND due_at < now() + make_interval(secs => %s)
"""
SECONDS_UNTIL_DUE = """
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float FROM tokenkeeper.connections WHERE app = 'default'
"""
#: Those that would be due soonest, which lie anywhere in the table.
MAKE_OVERDUE = """
UPDATE tokenkeeper.connections SET due_at = now() - make_interval(secs => random() * 60)
 WHERE id IN (SELECT id FROM tokenkeeper.connections WHERE app = 'default' AND due_at > now() ORDER BY due_at LIMIT %s)
"""
COUNT_OVERDUE = """
SELECT count(*) FROM (SELECT FROM tokenkeeper.connections
                       WHERE app = 'default' AND due_at < clock_timestamp() - make_interval(secs => %s) LIMIT %s) AS due
"""
#: Of the newest tokens that HubSpot issued, those that are not in their row.
COUNT_MISSING_TOKENS = """
SELECT count(*) FROM unnest(%s::bigint[], %s::bigint[]) AS issued(hub_id, serial)
  LEFT JOIN tokenkeeper.connections AS c
         ON c.hub_id = issued.hub_id AND substr(c.access_token, 3, 12) = lpad(issued.serial::text, 12, '0')
 WHERE c.hub_id IS NULL
"""
COUNT_UNFINISHED = """
SELECT count(*) FROM tokenkeeper.connections WHERE app = 'default' AND (lease_until IS NOT NULL OR failures > 0)
"""
#: All but those of constraints, which the copies do not slow down: they are sorted by hub and id.
LIST_INDEXES = """
SELECT format('%I.%I', schemaname, indexname), indexdef FROM pg_indexes
 WHERE schemaname = 'tokenkeeper' AND tablename = 'connections'
   AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = 'tokenkeeper.connections'::regclass)
"""
ROW_BYTES = "SELECT pg_total_relation_size('tokenkeeper.connections')::float / %s"


@dataclass(frozen=True, slots=True)
class Installation:
    """A database with so many connections."""

    testbed: Testbed
    size: int


def import_connections(testbed: Testbed, size: int) -> float:
    """Import them with the product's command; returns rows a second. Raises BenchmarkError."""
    csv = b"".join(_make_csv_lines(1, size))
    start = time.monotonic()
    testbed.run_command("import", "tokenkeeper", "import", "-", stdin=csv)
    seconds = time.monotonic() - start
    testbed.execute(MAKE_REFRESHED)
    return size / seconds


def copy_connections(testbed: Testbed, size: int) -> None:
    """Import one connection, and store copies of its row for the other hubs, each with its own encrypted token.

    Due times are spread evenly over the life of a token, from when all will have been stored.
    """
    import_connections(testbed, 1)
    token_seconds = find_balanced_token_seconds(size)
    first_due = str(testbed.fetch_value(f"SELECT now() + interval '{START_SECONDS + size / COPIED_ROWS_PER_SECOND} s'"))
    # 1. Rows, by a process for each core.
    indexes = testbed.execute(LIST_INDEXES)
    for name, _ in indexes:
        testbed.execute(f"DROP INDEX {name}")
    _run_copying(testbed, size, (first_due, str(token_seconds)))
    # 2. Indexes and statistics.
    for _, definition in indexes:
        testbed.execute(f"SET maintenance_work_mem = '512MB'; {definition}")
    testbed.execute("VACUUM (ANALYZE) tokenkeeper.connections")
    testbed.execute("CHECKPOINT")


def find_balanced_token_seconds(size: int) -> int:
    """The life of tokens with which no more fall due than MAX_PACE_PER_SECOND."""
    return max(TOKEN_SECONDS, round(size / MAX_PACE_PER_SECOND / DUE_FRACTION))


def prepare_overdue(testbed: Testbed, size: int, seconds: float) -> None:
    """Make more connections overdue than the product refreshes in `seconds`, or all of them.

    New tokens get a life with which that goes on.
    """
    wanted = min(size, int(seconds * OVERLOAD_PER_SECOND))
    testbed.execute(MAKE_OVERDUE, max(0, wanted - count_overdue(testbed, at_most=wanted)))
    testbed.hubspot.configure(max(1, min(TOKEN_SECONDS, round(size / OVERLOAD_PER_SECOND / DUE_FRACTION))))
    settle_table(testbed, size)


def prepare_balanced(testbed: Testbed, size: int) -> None:
    """Spread due times evenly over the life of a token, and return when it is time to start the product."""
    testbed.execute(SPREAD_DUE_TIMES, START_SECONDS + 1, DUE_FRACTION * TOKEN_SECONDS)
    settle_table(testbed, size)
    wait_for_balance(testbed, size)


def wait_for_balance(testbed: Testbed, size: int) -> None:
    """Due times are spread. Put off those that have passed, and return when it is time to start the product."""
    token_seconds = find_balanced_token_seconds(size)
    testbed.hubspot.configure(token_seconds)
    testbed.execute(PUT_OFF, token_seconds * DUE_FRACTION, START_SECONDS)
    time.sleep(max(0.0, float(testbed.fetch_value(SECONDS_UNTIL_DUE)) - START_SECONDS))


def settle_table(testbed: Testbed, size: int) -> None:
    """Remove what earlier changes have left in the table, its indexes and the write-ahead log."""
    testbed.execute(f"VACUUM ({'FULL, ' * (size <= MAX_REWRITTEN_ROWS)}ANALYZE) tokenkeeper.connections")
    testbed.execute("CHECKPOINT")


def count_overdue(testbed: Testbed, *, at_most: int, seconds: float = 0.0) -> int:
    """Counts those that have been due for longer than `seconds`; those in flight are among them."""
    return int(testbed.fetch_value(COUNT_OVERDUE, seconds, at_most))


def measure_row_bytes(testbed: Testbed, size: int) -> float:
    """Of the table with its indexes."""
    return float(testbed.fetch_value(ROW_BYTES, size))


def check_all_saved(testbed: Testbed) -> None:
    """Raises BenchmarkError unless the newest token that HubSpot issued to each hub is in its row, without a lease.

    A result that was not saved would have left its lease, and no newer token could arrive while that lasts.
    """
    newest = testbed.hubspot.take_newest_tokens()
    missing = testbed.fetch_value(COUNT_MISSING_TOKENS, list(newest), list(newest.values()))
    unfinished = testbed.fetch_value(COUNT_UNFINISHED)
    if missing or unfinished:
        raise BenchmarkError(
            f"of {len(newest)} hubs {missing} lack their newest token; {unfinished} rows have a lease or failures"
        )


def _run_copying(testbed: Testbed, size: int, arguments: Sequence[str]) -> None:
    processes = os.cpu_count() or 1
    bounds = [2 + (size - 1) * number // processes for number in range(processes + 1)]
    copying: list[ChildProcess] = []
    try:
        for first, end in pairwise(bounds):
            command = ("python", "-m", "bench.copying", str(first), str(end), *arguments)
            copying.append(testbed.start(f"copy-{first}", *command))
        for process in copying:
            process.wait_for_output("stored", seconds=60 + size / MIN_COPIED_ROWS_PER_SECOND)
    finally:
        for process in copying:
            process.kill()


def _make_csv_lines(first: int, last: int) -> Iterator[bytes]:
    yield b"hub_id,refresh_token\n"
    for hub_id in range(first, last + 1):
        yield f"{hub_id},{make_refresh_token(hub_id)}\n".encode()
