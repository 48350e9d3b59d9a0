"""Counts the contacts of every connected account: python every_account.py.

No transaction is open while HubSpot is asked, and each token is read for its call. A cursor over hubspot.tokens would
bring tokens that end while the job works, and keep PostgreSQL from clearing away what is refreshed meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import requests
from contacts import HubSpot
from psycopg_pool import ConnectionPool
from tokens import NoToken, StillRefused, Tokens

AT_ONCE = 8
PAGE = 500
HUBS = "SELECT hub_id FROM hubspot.tokens WHERE hub_id > %s ORDER BY hub_id LIMIT %s"


def hubs(pool: ConnectionPool) -> Iterator[int]:
    """Those that have a token now, a page at a time, by the primary key."""
    last = 0
    while True:
        with pool.connection() as connection:
            page = connection.execute(HUBS, (last, PAGE)).fetchall()
        if not page:
            return
        yield from (hub_id for (hub_id,) in page)
        last = page[-1][0]


def count(hubspot: HubSpot, hub_id: int) -> str:
    """One account's trouble is no other's: it is a line like all."""
    try:
        return f"{hub_id} {len(hubspot.get(hub_id, '/crm/v3/objects/contacts')['results'])}"
    except NoToken as gone:  # between the page and the call
        return f"{hub_id} skipped: {gone.status}"
    except (StillRefused, requests.RequestException) as error:
        return f"{hub_id} failed: {type(error).__name__}"


def main() -> None:
    with ConnectionPool(min_size=1, max_size=AT_ONCE + 1, open=True) as pool, ThreadPoolExecutor(AT_ONCE) as threads:
        hubspot = HubSpot(Tokens(pool))
        for line in threads.map(lambda hub_id: count(hubspot, hub_id), hubs(pool)):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
