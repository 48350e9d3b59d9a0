"""Reads valid access tokens from PostgreSQL. Copy it into your job.

The connection is configured by libpq's variables: PGHOST, PGDATABASE, PGUSER, PGPASSWORD, or PGSERVICE and ~/.pgpass.
"""

from __future__ import annotations

import time

from psycopg_pool import ConnectionPool

READ = "SELECT access_token FROM hubspot.tokens WHERE hub_id = %s"
STATUS = "SELECT status FROM hubspot.connections WHERE hub_id = %s"
REQUEST = "SELECT hubspot.request_refresh(%s, %s)"

TIMEOUT_SECONDS = 30.0  #: for a new token: a sweep, a call to HubSpot and a retry
POLL_SECONDS = 0.25


class NoToken(Exception):
    """The account has no valid token; `status` says why, None means that it was never installed."""

    def __init__(self, hub_id: int, status: str | None) -> None:
        super().__init__(f"account {hub_id} has no token that works now: {status or 'never installed'}")
        self.hub_id = hub_id
        self.status = status


class StillRefused(Exception):
    """HubSpot refused a token, and no new one arrived in time."""


class Tokens:
    """May be shared by threads."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def read(self, hub_id: int) -> str:
        """A token for one call to HubSpot; read again for the next call, in under a millisecond. Raises NoToken."""
        with self._pool.connection() as connection:
            if row := connection.execute(READ, (hub_id,)).fetchone():
                return str(row[0])
            status = connection.execute(STATUS, (hub_id,)).fetchone()
            raise NoToken(hub_id, status[0] if status else None)

    def after_401(self, hub_id: int, refused: str) -> str:
        """Request a refresh and wait for another token than the refused one. Raises NoToken, StillRefused."""
        with self._pool.connection() as connection:
            # The result does not matter: false means that another token is there, or a refresh was requested before.
            connection.execute(REQUEST, (hub_id, refused))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (token := self.read(hub_id)) == refused:
            if time.monotonic() > deadline:
                raise StillRefused(f"account {hub_id}: HubSpot refuses the token, and no other one came")
            time.sleep(POLL_SECONDS)
        return token
