"""Prints each revocation until it is stopped, and misses none: python revocations.py [SINCE].

SINCE is the id at the beginning of the last line that was handled. Without it: those from now on.
"""

from __future__ import annotations

import json
import sys
import time

import psycopg

#: The id is a cursor: no line of the history appears before one that was there already.
REVOCATIONS_SINCE = """
SELECT id, hub_id, detail #>> '{refresh,code}' AS code
  FROM hubspot.history WHERE event = 'revoked' AND id > %s ORDER BY id
"""
#: The history is read at least this often: a notification sent while the connection was down is lost.
POLL_SECONDS = 60.0
RECONNECT_SECONDS = 1.0


class Revocations:
    """Remembers the last one that was printed."""

    def __init__(self, since: int) -> None:
        self._since = since

    def read_new(self, connection: psycopg.Connection) -> list[tuple[int, int, str | None]]:
        new = connection.execute(REVOCATIONS_SINCE, (self._since,)).fetchall()
        self._since = new[-1][0] if new else self._since
        return new


def follow(connection: psycopg.Connection, revocations: Revocations) -> None:
    """Raises OperationalError once the connection is lost."""
    connection.execute(
        "LISTEN hubspot_connections"
    )  # before the history is read, so that no revocation falls in between
    while True:
        for line_id, hub_id, code in revocations.read_new(connection):
            print(line_id, hub_id, code, flush=True)
        for notification in connection.notifies(timeout=POLL_SECONDS):
            if json.loads(notification.payload)["event"] == "revoked":
                break


def read_newest_id(connection: psycopg.Connection) -> int:
    row: tuple[int] = connection.execute("SELECT coalesce(max(id), 0) FROM hubspot.history").fetchall()[0]
    return row[0]


def main() -> None:
    try:
        revocations = Revocations(int(sys.argv[1])) if len(sys.argv) > 1 else None
    except ValueError:
        print("usage: python revocations.py [SINCE], for example 41812", file=sys.stderr)
        sys.exit(2)
    while True:
        try:
            with psycopg.connect(autocommit=True, connect_timeout=10) as connection:
                revocations = revocations or Revocations(read_newest_id(connection))
                follow(connection, revocations)
        except psycopg.OperationalError as error:
            print(f"PostgreSQL is away ({type(error).__name__}), trying again", file=sys.stderr, flush=True)
            time.sleep(RECONNECT_SECONDS)


if __name__ == "__main__":
    main()
