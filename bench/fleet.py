"""The stored connections: taken in by the product's own import, then given the age that a figure needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.hubspot import TOKEN_LENGTH, refresh_token
from bench.processes import Failed, run
from bench.world import World

#: Seconds that HubSpot's access tokens live.
LIFE = 1800
#: Of that, when a refresh falls due: half-way between REFRESH_FROM and REFRESH_UNTIL.
SHARE = 0.675
#: Refreshes a second that fall due where the product is to show how much it can do: more than it can.
DEMAND = 3000

#: As if all had been refreshed and identified before. What an import leaves behind is gone within its first round.
GROW_UP = f"""
UPDATE tokenkeeper.connections
   SET access_token = rpad('CI' || hub_id, {TOKEN_LENGTH}, md5(hub_id::text)), expires_at = now() + interval '1 hour',
       lifetime_seconds = {LIFE}, refreshed_at = now(), scopes = '{{oauth,crm.objects.contacts.read}}',
       account_info_due_at = NULL
 WHERE access_token IS NULL
"""
SPREAD = "UPDATE tokenkeeper.connections SET due_at = now() + make_interval(secs => %s + random() * %s)"
UNTIL_DUE = "SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float FROM tokenkeeper.connections"
#: Seconds that the processes of the product take to start.
START = 3.0
#: Connections that are spread, and their table rewritten, in a second: on a slow day.
SPREAD_A_SECOND = 10_000
#: Of the tokens that HubSpot says it gave last, those that are not in their row.
MISSING = """
SELECT count(*) FROM unnest(%s::bigint[], %s::bigint[]) AS given(hub_id, number)
  LEFT JOIN tokenkeeper.connections AS c
         ON c.hub_id = given.hub_id AND substr(c.access_token, 3, 12) = lpad(given.number::text, 12, '0')
 WHERE c.hub_id IS NULL
"""
TROUBLED = "SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL OR failures > 0"


@dataclass(frozen=True, slots=True)
class Bulk:
    """Bytes on disk, and what of the rows is dead."""

    table: int
    indexes: int
    due_index: int
    dead_rows: int


def grow(world: World, have: int, size: int) -> float:
    """Import those that are missing. Rows a second."""
    lines = b"".join(_lines(have + 1, size))
    begun = time.monotonic()
    run("import", ["tokenkeeper", "import", "-"], world.environment, stdin=lines)
    took = time.monotonic() - begun
    world.sql(GROW_UP)
    return (size - have) / took


def overdue(world: World, size: int) -> int:
    """Half are due now, and more fall due than can be done. The life that their next tokens must have for it."""
    span = size / DEMAND
    _spread(world, -span, 2 * span)
    return max(1, round(span / SHARE))


def in_balance(world: World, size: int) -> int:
    """Due as in a fleet that has always been kept: evenly, from when the product has started. The life of their tokens.

    Returns when it is time to start it, so that it finds no backlog.
    """
    _spread(world, START + size / SPREAD_A_SECOND, SHARE * LIFE)
    time.sleep(max(0.0, float(world.value(UNTIL_DUE)) - START))
    return LIFE


def landed(world: World) -> None:
    """Raises Failed unless the newest token that HubSpot gave each hub is in its row, and no lease is left.

    A save that was lost would have left its lease, and no newer token would have come in the minute that it stands.
    """
    given = world.hubspot.newest()
    missing = world.value(MISSING, list(given), list(given.values()))
    troubled = world.value(TROUBLED)
    if missing or troubled:
        raise Failed(
            f"of {len(given)} hubs {missing} lack their newest token; {troubled} rows have a lease or failures"
        )


def bulk(world: World) -> Bulk:
    world.sql("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    table, indexes, due, dead = world.sql("""
SELECT pg_table_size('tokenkeeper.connections'), pg_indexes_size('tokenkeeper.connections'),
       pg_relation_size('tokenkeeper.connections_due'),
       (SELECT dead_tuple_count FROM pgstattuple('tokenkeeper.connections'))
""")[0]
    return Bulk(table, indexes, due, dead)


def _spread(world: World, first: float, span: float) -> None:
    """The table is as after a VACUUM FULL: what a figure's own writing does to it is the figure's."""
    world.sql(SPREAD, first, span)
    world.sql("VACUUM (FULL, ANALYZE) tokenkeeper.connections")
    world.sql("CHECKPOINT")


def _lines(first: int, last: int) -> Iterator[bytes]:
    yield b"hub_id,refresh_token\n"
    for hub_id in range(first, last + 1):
        yield f"{hub_id},{refresh_token(hub_id)}\n".encode()
