"""Where the lines of an import wait until all are read: on disk, tokens sealed, one line a hub."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Waiting:
    hub_id: int
    number: int  #: of its line
    encrypted_refresh_token: str = field(repr=False)


class StagingFile:
    """A file without a name, gone when it is closed: memory stays as it is however much waits.

    Storing line by line would let an earlier line of a hub have its way until the last one comes.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("CREATE TABLE waiting (hub_id INTEGER PRIMARY KEY, number INTEGER, sealed TEXT)")
        self._file.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, waiting: Waiting) -> int | None:
        """The number of the line whose place it takes, where the hub came before."""
        before = self._file.execute("SELECT number FROM waiting WHERE hub_id = ?", (waiting.hub_id,)).fetchone()
        row = (waiting.hub_id, waiting.number, waiting.encrypted_refresh_token)
        self._file.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?)", row)
        return None if before is None else int(before[0])

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def batches(self, size: int) -> Iterator[list[Waiting]]:
        """By hub: rows are locked in the order in which everybody locks them."""
        rows = self._file.execute("SELECT hub_id, number, sealed FROM waiting ORDER BY hub_id")
        while batch := rows.fetchmany(size):
            yield [Waiting(*row) for row in batch]
