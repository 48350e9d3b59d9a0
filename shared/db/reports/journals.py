"""Reads how far HubSpot's journal of each app is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.domain.journal import JournalState

READ = single_statement("""
SELECT app, state, reason, since, read_at, clock_timestamp() AS now FROM tokenkeeper.journals ORDER BY app
""")


@dataclass(frozen=True, slots=True)
class JournalReport:
    app: str
    state: JournalState
    reason: str | None  #: why it cannot be read
    since: datetime  #: of the state
    read_at: datetime | None  #: when its end was last reached; None: never
    now: datetime  #: PostgreSQL's clock

    @property
    def lag_seconds(self) -> float:
        """Uninstalls of this time may not be known yet."""
        return max(0.0, (self.now - self.read_at).total_seconds()) if self.read_at else math.inf


def read_journals(engine: Engine) -> list[JournalReport]:
    """One for each app that a worker has tried to read the journal of. Raises StoreUnavailable."""
    return [
        JournalReport(row.app, JournalState(row.state), row.reason, row.since, row.read_at, row.now)
        for row in Database(engine).execute(READ)
    ]
