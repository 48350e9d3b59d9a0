"""Counts the contacts of every connected account: python every_account.py.

No transaction is open during a call to HubSpot, and each token is read just before its call. A cursor over
hubspot.tokens would return tokens that expire while the job runs, and keep PostgreSQL from removing old row versions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import requests
from contacts import HubSpot
from psycopg_pool import ConnectionPool
from tokens import NoToken, StillRefused, Tokens

CONCURRENCY = 8
PAGE_ROWS = 500
HUBS = "SELECT hub_id FROM hubspot.tokens WHERE hub_id > %s ORDER BY hub_id LIMIT %s"


def read_hubs(pool: ConnectionPool) -> Iterator[int]:
    """Accounts with a valid token, in pages ordered by the primary key."""
    last = 0
    while True:
        with pool.connection() as connection:
            page = connection.execute(HUBS, (last, PAGE_ROWS)).fetchall()
        if not page:
            return
        yield from (hub_id for (hub_id,) in page)
        last = page[-1][0]


def count(hubspot: HubSpot, hub_id: int) -> str:
    """A failure of one account becomes its line and does not stop the others."""
    try:
        return f"{hub_id} {len(hubspot.get(hub_id, '/crm/objects/2026-09/contacts')['results'])}"
    except NoToken as gone:  # between the page and the call
        return f"{hub_id} skipped: {gone.status}"
    except (StillRefused, requests.RequestException) as error:
        return f"{hub_id} failed: {type(error).__name__}"


def main() -> None:
    with (
        ConnectionPool(min_size=1, max_size=CONCURRENCY + 1, open=True) as pool,
        ThreadPoolExecutor(CONCURRENCY) as threads,
    ):
        hubspot = HubSpot(Tokens(pool))
        for line in threads.map(lambda hub_id: count(hubspot, hub_id), read_hubs(pool)):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
