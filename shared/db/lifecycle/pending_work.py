"""What a sweep has to do besides refreshes. It is rare, so one statement asks for all of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from shared.db.core.statements import Database, PreparedStatement
from shared.db.lifecycle.disconnects import ANY_UNFINISHED
from shared.db.lifecycle.pruning import IS_PRUNING_DUE
from shared.db.refresh.future_dates import ANY_AHEAD
from shared.db.refresh.late_results import ANY_ROTATED
from shared.db.refresh.requests import ANY_REQUESTED

READ = PreparedStatement(
    f"""
SELECT {ANY_REQUESTED} AS any_requested, {ANY_ROTATED} AS any_rotated, {ANY_AHEAD} AS any_ahead,
       {ANY_UNFINISHED} AS any_disconnect_unfinished, {IS_PRUNING_DUE} AS is_pruning_due
""",
    is_retried=True,
)


@dataclass(frozen=True, slots=True)
class PendingWork:
    any_requested: bool  #: refreshes, by jobs or operators
    any_rotated: bool  #: refresh tokens that wait for a locked row
    any_ahead: bool  #: dates of a clock that was ahead
    any_disconnect_unfinished: bool
    is_pruning_due: bool


def read_pending_work(engine: Engine) -> PendingWork:
    """Raises StoreUnavailable where PostgreSQL does not answer."""
    return PendingWork(*Database(engine).execute(READ)[0])
