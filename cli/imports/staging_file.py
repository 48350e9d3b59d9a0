"""Where the lines of an import are staged until all are read: on disk, with encrypted tokens, one line a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from shared.domain.identity import DEFAULT_APP, ConnectionIdentity

#: In place of a null, of which a primary key may have several.
NO_USER = 0


@dataclass(frozen=True, slots=True)
class StagedLine:
    hub_id: int
    number: int  #: of its line in the file
    encrypted_refresh_token: str = field(repr=False)
    app: str = DEFAULT_APP
    user_id: int | None = None
    customer: str | None = None

    @property
    def identity(self) -> ConnectionIdentity:
        return ConnectionIdentity(self.app, self.hub_id, self.user_id)


class StagingFile:
    """A temporary file, deleted when it is closed: memory stays constant however long the import.

    Of several lines for one connection the last counts: storing line by line would let an earlier one count for a
    while.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute(
            "CREATE TABLE staged (hub_id INTEGER, app TEXT, user_id INTEGER, number INTEGER, ciphertext TEXT, "
            "customer TEXT, PRIMARY KEY (hub_id, app, user_id)) WITHOUT ROWID"
        )
        self._file.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put_line(self, line: StagedLine) -> int | None:
        """The number of the earlier line of the same connection, which this one replaces."""
        key = (line.hub_id, line.app, line.user_id or NO_USER)
        is_same = "hub_id = ? AND app = ? AND user_id = ?"
        earlier = self._file.execute(f"SELECT number FROM staged WHERE {is_same}", key).fetchone()  # noqa: S608
        row = (*key, line.number, line.encrypted_refresh_token, line.customer)
        self._file.execute("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?)", row)
        return None if earlier is None else int(earlier[0])

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM staged").fetchone()[0])

    def read_batches(self, size: int) -> Iterator[list[StagedLine]]:
        """By hub, app and user: every process locks rows in that order."""
        rows = self._file.execute(
            "SELECT hub_id, number, ciphertext, app, user_id, customer FROM staged ORDER BY hub_id, app, user_id"
        )
        while batch := rows.fetchmany(size):
            yield [
                StagedLine(hub_id, number, ciphertext, app, user_id or None, customer)
                for hub_id, number, ciphertext, app, user_id, customer in batch
            ]
