"""Prints each revocation until it is stopped, and misses none: python revocations.py [SINCE].

SINCE is the time at the beginning of the last line that was handled. After a restart some lines are printed again, so
handling a revocation must be idempotent.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta

import psycopg

REVOCATIONS_SINCE = """
SELECT at, hub_id, detail #>> '{refresh,code}' AS code
  FROM hubspot.history WHERE event = 'revoked' AND at > %s ORDER BY at
"""
#: A revocation with an earlier time may become visible later: tokenkeeper's transactions take up to ten seconds.
OVERLAP = timedelta(minutes=1)
#: The history is read at least this often: a notification sent while the connection was down is lost.
POLL_SECONDS = 60.0
RECONNECT_SECONDS = 1.0

Revocation = tuple[datetime, int, str | None]


class Revocations:
    """Remembers which revocations were printed."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._printed: set[Revocation] = set()

    def read_new(self, connection: psycopg.Connection) -> list[Revocation]:
        found: list[Revocation] = connection.execute(REVOCATIONS_SINCE, (self._since - OVERLAP,)).fetchall()
        new = [revocation for revocation in found if revocation not in self._printed]
        self._printed = set(found)
        self._since = max([self._since, *(at for at, _, _ in found)])
        return new


def follow(connection: psycopg.Connection, revocations: Revocations) -> None:
    """Raises OperationalError once the connection is lost."""
    connection.execute(
        "LISTEN hubspot_connections"
    )  # before the history is read, so that no revocation falls in between
    while True:
        for at, hub_id, code in revocations.read_new(connection):
            print(at.isoformat(), hub_id, code, flush=True)
        for notification in connection.notifies(timeout=POLL_SECONDS):
            if json.loads(notification.payload)["event"] == "revoked":
                break


def now(connection: psycopg.Connection) -> datetime:
    """PostgreSQL's time, as in the history."""
    row: tuple[datetime] = connection.execute("SELECT now()").fetchall()[0]
    return row[0]


def main() -> None:
    try:
        revocations = Revocations(datetime.fromisoformat(sys.argv[1])) if len(sys.argv) > 1 else None
    except ValueError:
        print("usage: python revocations.py [SINCE], for example 2026-11-24T05:03:02+00:00", file=sys.stderr)
        sys.exit(2)
    while True:
        try:
            with psycopg.connect(autocommit=True, connect_timeout=10) as connection:
                revocations = revocations or Revocations(now(connection))
                follow(connection, revocations)
        except psycopg.OperationalError as error:
            print(f"PostgreSQL is away ({type(error).__name__}), trying again", file=sys.stderr, flush=True)
            time.sleep(RECONNECT_SECONDS)


if __name__ == "__main__":
    main()
