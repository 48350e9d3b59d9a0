"""Requests of operators to refresh connections now, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement


class RefreshRequestOutcome(StrEnum):
    """What became of an operator's request to refresh a connection now."""

    ASKED = "asked"
    IN_FLIGHT = "in_flight"
    ALREADY_DUE = "already_due"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"

    @property
    def description(self) -> str:
        """For the operator: the command prints it after the hub id, a page as a sentence."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    RefreshRequestOutcome.ASKED: "due now; the next sweep refreshes it",
    RefreshRequestOutcome.IN_FLIGHT: "a refresh is in flight already",
    RefreshRequestOutcome.ALREADY_DUE: "due already; the next sweep refreshes it as soon as HubSpot allows",
    RefreshRequestOutcome.DISCONNECTED: "disconnected: the account has to install the app again",
    RefreshRequestOutcome.UNKNOWN: "no such connection",
}

#: As hubspot.request_refresh(), but an operator may ask again after a failure, and for a revoked connection.
REQUEST = single_statement("""
WITH locked AS MATERIALIZED (
    SELECT hub_id, status, lease_until, due_at, greatest(now(), retry_not_before) AS earliest
      FROM tokenkeeper.connections WHERE hub_id = ANY (CAST(:hub_ids AS bigint[]))
     ORDER BY hub_id FOR NO KEY UPDATE
), decided AS MATERIALIZED (
    SELECT hub_id, earliest,
           CASE WHEN status = 'disconnected' THEN 'disconnected'
                WHEN lease_until > now() THEN 'in_flight'
                WHEN due_at <= earliest THEN 'already_due'
                ELSE 'asked' END AS outcome
      FROM locked
), requested AS (
    UPDATE tokenkeeper.connections AS c
       SET due_at = least(c.due_at, decided.earliest), refresh_requested = true
      FROM decided WHERE c.hub_id = decided.hub_id AND decided.outcome IN ('asked', 'in_flight')
)
SELECT hub_id, outcome FROM decided
""")


class RefreshRequests:
    """Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def request(self, hub_ids: Sequence[int]) -> dict[int, RefreshRequestOutcome]:
        """Make these connections due now, revoked ones too. The outcome for each of `hub_ids`."""
        rows = self._database.execute(REQUEST, hub_ids=list(hub_ids))
        outcomes = {row.hub_id: RefreshRequestOutcome(row.outcome) for row in rows}
        return {hub_id: outcomes.get(hub_id, RefreshRequestOutcome.UNKNOWN) for hub_id in hub_ids}
