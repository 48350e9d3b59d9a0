"""Puts newly sealed refresh tokens in the place of the same ones under an older key, while everything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.db.database import Database, alone


@dataclass(frozen=True, slots=True)
class Resealed:
    hub_id: int
    was: str = field(repr=False)  #: sealed, as it was read
    sealed: str = field(repr=False)


#: Only where it is still what was read: a refresh or an install in between brought a newer token. The generation
#: stays, because the token is the same: a refresh in flight still lands. Rows are locked in every saver's order.
RESEAL = alone("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:was AS text[]), CAST(:sealed AS text[]))
               AS g(hub_id, was, sealed)
), held AS MATERIALIZED (
    SELECT c.hub_id, given.sealed
      FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
     WHERE c.sealed_refresh_token = given.was
     ORDER BY c.hub_id FOR NO KEY UPDATE OF c
)
UPDATE tokenkeeper.connections AS c SET sealed_refresh_token = held.sealed
  FROM held WHERE c.hub_id = held.hub_id
RETURNING c.hub_id
""")


class Resealing:
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def store(self, rows: Sequence[Resealed]) -> int:
        """How many of them took its place. Raises StoreUnavailable; then none did."""
        if not rows:
            return 0
        stored = self._database.ask(
            RESEAL,
            hub_ids=[row.hub_id for row in rows],
            was=[row.was for row in rows],
            sealed=[row.sealed for row in rows],
        )
        return len(stored)
