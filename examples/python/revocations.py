"""Prints each revocation, for ever, and loses none: python revocations.py [SINCE].

SINCE is the time at the beginning of the last line that you have dealt with. After a restart some lines come again:
what you do on a revocation should do no harm when it is done twice.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta

import psycopg

NEWS = """
SELECT at, hub_id, detail #>> '{refresh,code}' AS code
  FROM hubspot.history WHERE event = 'revoked' AND at > %s ORDER BY at
"""
#: Who is first by its time may be last to be seen: no transaction of tokenkeeper's is longer than ten seconds.
OVERLAP = timedelta(minutes=1)
#: Seconds. A notification is a bell, no more: whoever misses one looks anyway.
LOOK_ANYWAY = 60.0
RECONNECT = 1.0  #: seconds

Revocation = tuple[datetime, int, str | None]


class Revocations:
    """Remembers which ones were told."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._told: set[Revocation] = set()

    def new(self, connection: psycopg.Connection) -> list[Revocation]:
        found: list[Revocation] = connection.execute(NEWS, (self._since - OVERLAP,)).fetchall()
        new = [revocation for revocation in found if revocation not in self._told]
        self._told = set(found)
        self._since = max([self._since, *(at for at, _, _ in found)])
        return new


def follow(connection: psycopg.Connection, revocations: Revocations) -> None:
    """Raises OperationalError once the connection is lost."""
    connection.execute("LISTEN hubspot_connections")  # before the first look: what comes between rings the bell
    while True:
        for at, hub_id, code in revocations.new(connection):
            print(at.isoformat(), hub_id, code, flush=True)
        for bell in connection.notifies(timeout=LOOK_ANYWAY):
            if json.loads(bell.payload)["event"] == "revoked":
                break


def now(connection: psycopg.Connection) -> datetime:
    """PostgreSQL's: it is what the history is dated by."""
    row: tuple[datetime] = connection.execute("SELECT now()").fetchall()[0]
    return row[0]


def main() -> None:
    revocations = Revocations(datetime.fromisoformat(sys.argv[1])) if len(sys.argv) > 1 else None
    while True:
        try:
            with psycopg.connect(autocommit=True, connect_timeout=10) as connection:
                revocations = revocations or Revocations(now(connection))
                follow(connection, revocations)
        except psycopg.OperationalError as error:
            print(f"PostgreSQL is away ({type(error).__name__}), trying again", file=sys.stderr, flush=True)
            time.sleep(RECONNECT)


if __name__ == "__main__":
    main()
