"""The stored connections: imported with the product's own command, then given the due times that a figure needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.hubspot import TOKEN_CHARACTERS, make_refresh_token
from bench.testbed import BenchmarkError, Testbed

#: HubSpot's access tokens live so long.
TOKEN_SECONDS = 1800
#: When a refresh falls due, as a fraction of the token's life: half-way between REFRESH_FROM and REFRESH_UNTIL.
DUE_FRACTION = 0.675
#: Refreshes that fall due each second where the highest throughput is measured: more than the product can do.
OVERLOAD_PER_SECOND = 9000
#: The product's processes start within.
START_SECONDS = 3.0
#: Connections whose due times are spread, and whose table is rewritten, in a second on a slow machine.
SPREAD_ROWS_PER_SECOND = 10_000

#: As if all had been refreshed and identified before. What an import leaves behind is gone after its first refresh.
MAKE_REFRESHED = f"""
UPDATE tokenkeeper.connections
   SET access_token = rpad('CI' || hub_id, {TOKEN_CHARACTERS}, md5(hub_id::text)),
       expires_at = now() + interval '1 hour',
       lifetime_seconds = {TOKEN_SECONDS}, refreshed_at = now(), scopes = '{{oauth,crm.objects.contacts.read}}',
       account_info_due_at = NULL
 WHERE access_token IS NULL
"""
SPREAD_DUE_TIMES = "UPDATE tokenkeeper.connections SET due_at = now() + make_interval(secs => %s + random() * %s)"
SECONDS_UNTIL_DUE = "SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float FROM tokenkeeper.connections"
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


@dataclass(frozen=True, slots=True)
class TableSize:
    """Bytes, and a number of rows."""

    table: int
    indexes: int
    due_index: int
    dead_rows: int


def import_connections(testbed: Testbed, existing: int, size: int) -> float:
    """Imports the missing ones; returns rows a second."""
    csv = b"".join(_make_csv_lines(existing + 1, size))
    start = time.monotonic()
    testbed.run_command("import", "tokenkeeper", "import", "-", stdin=csv)
    seconds = time.monotonic() - start
    testbed.execute(MAKE_REFRESHED)
    return (size - existing) / seconds


def make_overdue(testbed: Testbed, size: int) -> int:
    """Makes half due now, and the rest due faster than can be done.

    Returns the life in seconds that new tokens must have for that to go on.
    """
    span = size / OVERLOAD_PER_SECOND
    _spread_due_times(testbed, -span, 2 * span)
    return max(1, round(span / DUE_FRACTION))


def make_balanced(testbed: Testbed, size: int) -> int:
    """Spreads due times evenly over the life of a token, from when the product will have started.

    Returns when it is time to start the product, so that it finds no backlog: the life in seconds of new tokens.
    """
    _spread_due_times(testbed, START_SECONDS + size / SPREAD_ROWS_PER_SECOND, DUE_FRACTION * TOKEN_SECONDS)
    time.sleep(max(0.0, float(testbed.fetch_value(SECONDS_UNTIL_DUE)) - START_SECONDS))
    return TOKEN_SECONDS


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


def measure_table(testbed: Testbed) -> TableSize:
    testbed.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    table, indexes, due, dead = testbed.execute("""
SELECT pg_table_size('tokenkeeper.connections'), pg_indexes_size('tokenkeeper.connections'),
       pg_relation_size('tokenkeeper.connections_due'),
       (SELECT dead_tuple_count FROM pgstattuple('tokenkeeper.connections'))
""")[0]
    return TableSize(table, indexes, due, dead)


def _spread_due_times(testbed: Testbed, first_seconds: float, span_seconds: float) -> None:
    """Rewrites the table, so that each measurement starts with the same one."""
    testbed.execute(SPREAD_DUE_TIMES, first_seconds, span_seconds)
    testbed.execute("VACUUM (FULL, ANALYZE) tokenkeeper.connections")
    testbed.execute("CHECKPOINT")


def _make_csv_lines(first: int, last: int) -> Iterator[bytes]:
    yield b"hub_id,refresh_token\n"
    for hub_id in range(first, last + 1):
        yield f"{hub_id},{make_refresh_token(hub_id)}\n".encode()
