"""Where the lines of an import are staged until all are read: on disk, with encrypted tokens, one line a hub."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class StagedLine:
    hub_id: int
    number: int  #: of its line in the file
    encrypted_refresh_token: str = field(repr=False)


class StagingFile:
    """A temporary file, deleted when it is closed: memory stays constant however long the import.

    Of several lines for one hub the last counts: storing line by line would let an earlier one count for a while.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("CREATE TABLE staged (hub_id INTEGER PRIMARY KEY, number INTEGER, ciphertext TEXT)")
        self._file.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put_line(self, line: StagedLine) -> int | None:
        """The number of the earlier line of the same hub, which this one replaces."""
        earlier = self._file.execute("SELECT number FROM staged WHERE hub_id = ?", (line.hub_id,)).fetchone()
        row = (line.hub_id, line.number, line.encrypted_refresh_token)
        self._file.execute("INSERT OR REPLACE INTO staged VALUES (?, ?, ?)", row)
        return None if earlier is None else int(earlier[0])

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM staged").fetchone()[0])

    def read_batches(self, size: int) -> Iterator[list[StagedLine]]:
        """By hub id: every process locks rows in that order."""
        rows = self._file.execute("SELECT hub_id, number, ciphertext FROM staged ORDER BY hub_id")
        while batch := rows.fetchmany(size):
            yield [StagedLine(*row) for row in batch]
