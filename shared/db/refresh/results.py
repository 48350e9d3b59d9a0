"""Saves what became of claimed rows: the second half of the hot path, dozens in one statement, fenced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from shared.db.core.errors import StatementRejected
from shared.db.core.statements import Database, single_statement
from shared.db.refresh.brake import apply_brake
from shared.db.refresh.claims import RefreshResult, release
from shared.db.refresh.late_results import rescue
from shared.domain.brake import is_revocation

SAVE = single_statement("""
WITH r AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:results AS json)) AS r(
        hub_id bigint, number bigint, generation bigint, was text, status text,
        access_token text, expires_at timestamptz,
        granted_at timestamptz, lifetime_seconds real, scopes text[], sealed text, due_at timestamptz,
        retry_not_before timestamptz, failures integer, last_error text, reason text,
        pending_revocation jsonb, told boolean)
), moved AS MATERIALIZED (  -- by an operator's word on revocations; locked, so that none comes now
    SELECT c.hub_id, c.status FROM tokenkeeper.connections AS c
     WHERE c.hub_id IN (SELECT hub_id FROM r WHERE was <> 'active') ORDER BY c.hub_id FOR NO KEY UPDATE OF c
), landed AS (
    UPDATE tokenkeeper.connections AS c
       SET status = r.status,
           status_since = CASE WHEN c.status = r.status THEN c.status_since ELSE clock_timestamp() END,
           status_reason = r.reason,
           access_token = CASE WHEN r.status = 'revoked' THEN NULL
                               ELSE coalesce(r.access_token, c.access_token) END,
           expires_at = CASE WHEN r.status = 'revoked' THEN NULL ELSE coalesce(r.expires_at, c.expires_at) END,
           refreshed_at = coalesce(r.granted_at, c.refreshed_at),
           lifetime_seconds = coalesce(r.lifetime_seconds, c.lifetime_seconds),
           scopes = coalesce(r.scopes, c.scopes),
           encrypted_refresh_token = coalesce(r.sealed, c.encrypted_refresh_token),
           due_at = r.due_at,
           retry_not_before = r.retry_not_before,
           failures = r.failures,
           last_error = r.last_error,
           pending_revocation = CASE WHEN r.status = 'suspect'
                                     THEN coalesce(r.pending_revocation, c.pending_revocation) END,
           refresh_requested = c.refresh_requested AND r.access_token IS NULL,
           lease_until = NULL
      FROM r LEFT JOIN moved ON moved.hub_id = r.hub_id
     WHERE c.hub_id = r.hub_id AND c.lease_number = r.number AND c.generation = r.generation
       AND c.lease_until IS NOT NULL  -- else a save whose answer was lost would be told twice
       -- Of what was called dead before that word, only a new token, or a second witness of what is revoked, is news.
       AND (r.access_token IS NOT NULL OR c.status = r.was
            OR (c.status = 'revoked' AND (r.told OR r.status = 'revoked')))
    RETURNING c.hub_id, coalesce(moved.status = 'active', false) AS back
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT e.hub_id, e.event, e.detail, e.status
      FROM json_to_recordset(CAST(:events AS json))
           AS e(place integer, hub_id bigint, event text, detail jsonb, status text)
      JOIN landed ON landed.hub_id = e.hub_id
     WHERE NOT (landed.back AND e.event = 'recovered')  -- that was told at the dismissal
     ORDER BY e.place
), noted AS (
    UPDATE tokenkeeper.provider SET last_success_at = now()
     WHERE singleton = (SELECT singleton FROM tokenkeeper.provider
                   WHERE EXISTS (SELECT FROM r WHERE access_token IS NOT NULL)
                     AND coalesce(last_success_at < now() - interval '5 seconds', true)
                     FOR NO KEY UPDATE SKIP LOCKED)
)
SELECT hub_id FROM landed
""")


@dataclass(frozen=True, slots=True)
class SaveOutcome:
    """What became of the results given to RefreshResults.save(), by hub."""

    saved: frozenset[int] = frozenset()
    #: Of those saved: as suspect, because the revocation brake holds their revocation.
    held_by_brake: frozenset[int] = frozenset()
    #: Not saved, but HubSpot had rotated their refresh token, and the new one is kept.
    rescued: frozenset[int] = frozenset()

    def __or__(self, other: SaveOutcome) -> SaveOutcome:
        return SaveOutcome(
            self.saved | other.saved, self.held_by_brake | other.held_by_brake, self.rescued | other.rescued
        )

    def select_saved(self, results: Sequence[RefreshResult]) -> list[RefreshResult]:
        """Those of `results` that were saved."""
        return [result for result in _newest(results) if result.lease.hub_id in self.saved]


class RefreshResults:
    """Saves the results of claimed rows. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine, *, lease_seconds: float) -> None:
        self._database = Database(engine)
        self._lease_seconds = lease_seconds

    def save(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        """The hubs whose result landed. Where it did not, its lease is over all the same, if still ours.

        Raises StatementRejected where PostgreSQL refuses some of them: the others are saved, those will never be, and
        their leases end by themselves.
        """
        if not results:
            return SaveOutcome()
        newest = _newest(results)
        # Before anything else: what the newer lease heard of the old refresh token must not count.
        rescued = rescue(self._database, _overtaken(results, newest))
        ordered = sorted(newest, key=lambda result: result.lease.hub_id)  # two savers never wait in a circle
        try:
            landed = _save_judged(self._database, ordered, self._lease_seconds)
        except StatementRejected:
            if len(ordered) == 1:
                raise
            return self._save_apart(ordered)
        late = [result for result in ordered if result.lease.hub_id not in landed.saved]
        rescued |= rescue(self._database, late)
        release(self._database, [result.lease for result in late])
        return replace(landed, rescued=rescued)

    def _save_apart(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        """PostgreSQL refuses one of them: the others' accounts must not suffer for it."""
        landed = SaveOutcome()
        broken: dict[int, str] = {}
        for result in results:
            try:
                landed |= self.save([result])
            except StatementRejected as error:
                broken[result.lease.hub_id] = str(error)
        if broken:
            raise StatementRejected(f"saved all but {broken}")
        return landed


def _newest(results: Sequence[RefreshResult]) -> list[RefreshResult]:
    """Of two for one hub the newer lease's: where a lease ran out, one process can hold both."""
    newest: dict[int, RefreshResult] = {}
    for result in sorted(results, key=lambda result: result.lease.number):
        newest[result.lease.hub_id] = result
    return list(newest.values())


def _overtaken(results: Sequence[RefreshResult], newest: Sequence[RefreshResult]) -> list[RefreshResult]:
    if len(results) == len(newest):
        return []
    numbers = {result.lease.hub_id: result.lease.number for result in newest}
    return [result for result in results if result.lease.number < numbers[result.lease.hub_id]]


def _save_judged(database: Database, results: Sequence[RefreshResult], lease_seconds: float) -> SaveOutcome:
    """Those that revoke apart from the others: the revocation brake has a word in them, and locks a row for it."""
    verdicts = [result for result in results if is_revocation(result.transition)]
    if not verdicts:
        return SaveOutcome(frozenset(row.hub_id for row in database.execute(SAVE, **_values(results))))
    others = [result for result in results if not is_revocation(result.transition)]
    landed = [row.hub_id for row in database.execute(SAVE, **_values(others))] if others else []
    with database.transaction() as connection:
        judged = apply_brake(connection, verdicts, lease_seconds=lease_seconds)
        landed += [row.hub_id for row in connection.execute(SAVE, _values(judged))] if judged else []
    held_by_brake = frozenset(result.lease.hub_id for result in judged if result.transition.pending_revocation)
    return SaveOutcome(frozenset(landed), held_by_brake & frozenset(landed))


def _values(results: Sequence[RefreshResult]) -> dict[str, str]:
    return {
        "results": json.dumps([_saved(result) for result in results]),
        "events": json.dumps(list(_events(results))),
    }


def _saved(result: RefreshResult) -> dict[str, Any]:
    lease, grant, after = result.lease, result.transition.grant, result.transition.connection
    saved: dict[str, Any] = {
        "hub_id": lease.hub_id,
        "number": lease.number,
        "generation": lease.generation,
        "was": lease.claimed_status.value,
        "status": after.status.value,
        "sealed": result.encrypted_refresh_token,
        "due_at": _text(after.due_at),
        "retry_not_before": _text(after.retry_not_before),
        "failures": after.failures,
        "last_error": after.last_error,
        "reason": after.status_reason,
        "pending_revocation": result.transition.pending_revocation,
        "told": any(event.status is after.status for event in result.transition.events),
    }
    if grant is not None:
        saved["access_token"] = grant.access_token
        saved["expires_at"] = _text(grant.expires_at)
        saved["granted_at"] = _text(grant.granted_at)
        saved["lifetime_seconds"] = grant.expires_in
        saved["scopes"] = grant.scopes
    return saved


def _events(results: Iterable[RefreshResult]) -> Iterable[dict[str, Any]]:
    told = ((result.lease.hub_id, event) for result in results for event in result.transition.events)
    for place, (hub_id, event) in enumerate(told):
        yield {
            "place": place,
            "hub_id": hub_id,
            "event": event.name.value,
            "detail": event.detail,
            "status": event.status and event.status.value,
        }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
