"""Reads what each sweep measures: the oldest snapshot in PostgreSQL, and its queue of notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

READ = single_statement("""
SELECT coalesce(extract(epoch FROM now() - since), 0)::double precision AS age_seconds, holder, queue_usage
  FROM tokenkeeper.oldest_snapshot
""")


@dataclass(frozen=True, slots=True)
class OldestSnapshot:
    age_seconds: float  #: since a sweep first saw it; 0: there is none
    holder: Mapping[str, Any]  #: kind, name, user, application; empty: there is none
    queue_usage: float  #: of the queue of notifications, from 0 to 1


def read_oldest_snapshot(engine: Engine) -> OldestSnapshot:
    """Raises StoreUnavailable."""
    row = Database(engine).execute(READ)[0]
    return OldestSnapshot(row.age_seconds, row.holder, row.queue_usage)
