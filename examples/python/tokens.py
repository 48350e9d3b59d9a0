"""Access tokens that work, out of PostgreSQL. Made to be copied into a job of yours.

The database is what libpq's own variables say: PGHOST, PGDATABASE, PGUSER, PGPASSWORD, or PGSERVICE and ~/.pgpass.
"""

from __future__ import annotations

import time

from psycopg_pool import ConnectionPool

READ = "SELECT access_token FROM hubspot.tokens WHERE hub_id = %s"
STATUS = "SELECT status FROM hubspot.connections WHERE hub_id = %s"
REQUEST = "SELECT hubspot.request_refresh(%s, %s)"

PATIENCE = 30.0  #: seconds that a new token may take: a sweep, a call to HubSpot and a retry
POLL = 0.25  #: seconds


class NoToken(Exception):
    """The account has no token that works now; `status` says why, None that it was never installed."""

    def __init__(self, hub_id: int, status: str | None) -> None:
        super().__init__(f"account {hub_id} has no token that works now: {status or 'never installed'}")
        self.hub_id = hub_id
        self.status = status


class StillRefused(Exception):
    """HubSpot refused a token, and no other one came in time."""


class Tokens:
    """Threads may share one."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def read(self, hub_id: int) -> str:
        """For one call to HubSpot: read again for the next one, that costs less than a millisecond. Raises NoToken."""
        with self._pool.connection() as connection:
            if row := connection.execute(READ, (hub_id,)).fetchone():
                return str(row[0])
            status = connection.execute(STATUS, (hub_id,)).fetchone()
            raise NoToken(hub_id, status[0] if status else None)

    def after_401(self, hub_id: int, refused: str) -> str:
        """Another token than the one that HubSpot refused. Raises NoToken, StillRefused."""
        with self._pool.connection() as connection:
            # False where another token is there already, or somebody else asked: either way it is there to be read.
            connection.execute(REQUEST, (hub_id, refused))
        deadline = time.monotonic() + PATIENCE
        while (token := self.read(hub_id)) == refused:
            if time.monotonic() > deadline:
                raise StillRefused(f"account {hub_id}: HubSpot refuses the token, and no other one came")
            time.sleep(POLL)
        return token
