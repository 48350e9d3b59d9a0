"""Saves the results of claimed rows: the second half of the hot path, dozens of them in one statement, each fenced."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.errors import ServerFailure, StatementRejected, StoreLocked
from shared.db.core.statements import Database, PreparedStatement, single_statement
from shared.db.refresh.brake import limit_revocations
from shared.db.refresh.claims import release
from shared.db.refresh.late_results import keep_rotated_tokens
from shared.db.refresh.leases import RefreshResult, SaveOutcome, select_newest
from shared.db.refresh.recent_grants import RecentGrants
from shared.db.refresh.uncertain_installs import take_other_grants
from shared.domain.brake import is_revocation
from shared.domain.identity import DEFAULT_APP

SaveGroup = Callable[[Sequence[RefreshResult]], SaveOutcome]

_SAVE = """
WITH results AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:results AS json)) AS results(
        connection_id bigint, lease_number bigint, generation bigint, claimed_status text, status text,
        access_token text, expires_at timestamptz, granted_at timestamptz, lifetime_seconds real, scopes text[],
        encrypted_refresh_token text, due_at timestamptz, retry_not_before timestamptz, failures integer,
        last_error text, status_reason text, pending_revocation jsonb, is_status_change boolean)
), locked AS MATERIALIZED (
    -- A row that another transaction has locked costs its own result only: that one is saved again later. No operator's
    -- decision on revocations, which changes a status without a lease, can fall between this and the update.
    SELECT results.*, c.status AS stored_status
      FROM results JOIN tokenkeeper.connections AS c ON c.id = results.connection_id
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), saved AS (
    UPDATE tokenkeeper.connections AS c
       SET status = locked.status,
           status_since = CASE WHEN c.status = locked.status THEN c.status_since ELSE clock_timestamp() END,
           status_reason = locked.status_reason,
           access_token = CASE WHEN locked.status = 'revoked' THEN NULL
                               ELSE coalesce(locked.access_token, c.access_token) END,
           expires_at = CASE WHEN locked.status = 'revoked' THEN NULL
                             ELSE coalesce(locked.expires_at, c.expires_at) END,
           refreshed_at = coalesce(locked.granted_at, c.refreshed_at),
           lifetime_seconds = coalesce(locked.lifetime_seconds, c.lifetime_seconds),
           scopes = coalesce(locked.scopes, c.scopes),
           encrypted_refresh_token = coalesce(locked.encrypted_refresh_token, c.encrypted_refresh_token),
           due_at = locked.due_at,
           retry_not_before = locked.retry_not_before,
           failures = locked.failures,
           last_error = locked.last_error,
           pending_revocation = CASE WHEN locked.status = 'suspect'
                                     THEN coalesce(locked.pending_revocation, c.pending_revocation) END,
           refresh_requested = c.refresh_requested AND locked.access_token IS NULL,
           requested_refresh_at = CASE WHEN c.refresh_requested AND locked.access_token IS NOT NULL
                                       THEN locked.granted_at ELSE c.requested_refresh_at END,
           lease_until = NULL
      FROM locked
     WHERE c.id = locked.connection_id
       AND c.lease_number = locked.lease_number AND c.generation = locked.generation
       -- A save whose answer was lost is repeated: it has ended the lease, and must not write the history twice.
       AND c.lease_until IS NOT NULL
       -- Where an operator has changed the status since the claim, an old failure must not change it back. What still
       -- counts: a new token, and for a row that is revoked now, the answer to its introspection.
       AND (locked.access_token IS NOT NULL OR c.status = locked.claimed_status
            OR (c.status = 'revoked' AND (locked.is_status_change OR locked.status = 'revoked')))
    RETURNING c.id, c.app, c.hub_id, c.user_id, c.customer,
              locked.claimed_status <> 'active' AND locked.stored_status = 'active' AS was_dismissed
)"""
_WRITE_HISTORY = """, history_lines AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT saved.app, saved.hub_id, saved.user_id, saved.customer, line.event, line.detail, line.status
      FROM json_to_recordset(CAST(:history_lines AS json))
           AS line(number integer, connection_id bigint, event text, detail jsonb, status text)
      JOIN saved ON saved.id = line.connection_id
     WHERE NOT (saved.was_dismissed AND line.event = 'recovered')  -- the dismissal has written that line
     ORDER BY line.number
)"""
_RETURN_OUTCOME = """, last_success AS (
    UPDATE tokenkeeper.provider SET last_success_at = now()
     WHERE app = (SELECT app FROM tokenkeeper.provider
                   WHERE app = :app AND EXISTS (SELECT FROM results WHERE access_token IS NOT NULL)
                     AND coalesce(last_success_at NOT BETWEEN now() - interval '5 seconds' AND now(), true)
                     FOR NO KEY UPDATE SKIP LOCKED)
)
SELECT results.connection_id AS id, saved.id IS NOT NULL AS is_saved,
       locked.connection_id IS NULL
       AND EXISTS (SELECT FROM tokenkeeper.connections AS c WHERE c.id = results.connection_id) AS is_locked
  FROM results
  LEFT JOIN locked ON locked.connection_id = results.connection_id
  LEFT JOIN saved ON saved.id = results.connection_id
"""
#: For results without a line for the history: they need no lock on that table. It is the one that grows, so an
#: administrator may rebuild it (REINDEX, VACUUM FULL, CREATE INDEX), which takes minutes.
SAVE = PreparedStatement(_SAVE + _RETURN_OUTCOME, is_retried=True, results="json", app="text")
#: Those with a line wait for the table so long, and are saved later.
_LIMIT_LOCK_WAIT = "SET LOCAL lock_timeout = '500ms'; "
SAVE_WITH_HISTORY = single_statement(_LIMIT_LOCK_WAIT + _SAVE + _WRITE_HISTORY + _RETURN_OUTCOME)


class RefreshResults:
    """Saves the results of claimed rows of one app. Every method raises StoreUnavailable."""

    def __init__(
        self,
        engine: Engine,
        app: str = DEFAULT_APP,
        *,
        lease_seconds: float,
        recent_grants: RecentGrants | None = None,
    ) -> None:
        """`recent_grants`: where several apps of a process share them."""
        self._database = Database(engine)
        self._app = app
        self._recent_grants = recent_grants or RecentGrants(engine)
        self._lease_seconds = lease_seconds

    def save(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        """Save each result whose row is still as it was claimed, and end the leases of those that need no other save.

        Where PostgreSQL rejects or fails at some of them the others are saved; the leases of those rejected end by
        themselves.
        """
        newest = select_newest(results)
        ordered = sorted(newest.values(), key=lambda result: result.lease.connection_id)
        superseded = [result for result in results if result.lease.number < newest[_id(result)].lease.number]
        with_events = [result for result in ordered if result.transition.events]
        groups = (
            # Of two results for one connection only that of the newer lease can be saved. The new refresh token of the
            # older one is kept first: it fences out what the newer lease was told about the token before.
            (_save_none, superseded),
            # Nothing holds these up but their own rows.
            (self._save_without_events, [result for result in ordered if not result.transition.events]),
            (self._save_with_events, [result for result in with_events if not is_revocation(result.transition)]),
            # The revocation brake locks a row that all workers share.
            (self._save_revocations, [result for result in with_events if is_revocation(result.transition)]),
        )
        outcome = SaveOutcome()
        for save, group in groups:
            if group:
                outcome |= self._save_group(save, group)
        return outcome

    def _save_group(self, save: SaveGroup, group: Sequence[RefreshResult]) -> SaveOutcome:
        """Together; one by one where PostgreSQL rejects or fails at some of them."""
        try:
            return self._save_together(save, group)
        except StatementRejected as error:
            if len(group) == 1:
                return SaveOutcome(rejected={_id(group[0]): str(error)})
        except ServerFailure as error:
            if len(group) == 1:
                rescued = keep_rotated_tokens(self._database, group)
                return SaveOutcome(rescued=rescued, failed={_id(group[0]): str(error)})
        outcome = SaveOutcome()
        for result in sorted(group, key=lambda result: result.lease.number):
            outcome |= self._save_group(save, [result])
        return outcome

    def _save_together(self, save: SaveGroup, group: Sequence[RefreshResult]) -> SaveOutcome:
        # 1. Save. A failover may lose what was just saved, so refresh tokens that HubSpot rotated are remembered.
        outcome = save(group)
        self._remember(group, outcome.saved)
        # 2. What was not saved is late, or its row is locked: keep new refresh tokens.
        unsaved = [result for result in group if _id(result) not in outcome.saved]
        rescued = keep_rotated_tokens(self._database, unsaved)
        self._remember(unsaved, rescued)
        # 3. End the leases of what is late, if they are still the newest.
        release(self._database, [result.lease for result in unsaved if _id(result) not in outcome.locked])
        return replace(outcome, rescued=rescued)

    def _remember(self, results: Sequence[RefreshResult], stored: Collection[int]) -> None:
        self._recent_grants.remember(result for result in results if _id(result) in stored)

    def _save_without_events(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        return _read_outcome(self._database.execute(SAVE, app=self._app, **_statement_values(results)))

    def _save_with_events(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        try:
            return _read_outcome(self._database.execute(SAVE_WITH_HISTORY, app=self._app, **_statement_values(results)))
        except StoreLocked:
            return _all_locked(results)

    def _save_revocations(self, results: Sequence[RefreshResult]) -> SaveOutcome:
        replaced = take_other_grants(self._database, results)
        revocations = [result for result in results if _id(result) not in replaced]
        if not revocations:
            return SaveOutcome()
        try:
            with self._database.transaction() as connection:
                connection.exec_driver_sql(_LIMIT_LOCK_WAIT)
                limited = limit_revocations(connection, self._app, revocations, lease_seconds=self._lease_seconds)
                values = {"app": self._app, **_statement_values(limited.to_save)}
                rows = connection.execute(SAVE_WITH_HISTORY, values).all() if limited.to_save else ()
        except StoreLocked:
            return _all_locked(revocations)
        saved = _read_outcome(rows)
        held = {_id(result) for result in limited.to_save if result.transition.pending_revocation}
        return replace(saved, held_by_brake=saved.saved & held, locked=saved.locked | limited.locked)


def _save_none(_: Sequence[RefreshResult]) -> SaveOutcome:
    return SaveOutcome()


def _all_locked(results: Sequence[RefreshResult]) -> SaveOutcome:
    return SaveOutcome(locked=frozenset(map(_id, results)))


def _id(result: RefreshResult) -> int:
    return result.lease.connection_id


def _read_outcome(rows: Sequence[Row[Any]]) -> SaveOutcome:
    saved = frozenset(row.id for row in rows if row.is_saved)
    return SaveOutcome(saved, locked=frozenset(row.id for row in rows if row.is_locked))


def _statement_values(results: Sequence[RefreshResult]) -> dict[str, str]:
    return {
        "results": json.dumps([_result_row(result) for result in results]),
        "history_lines": json.dumps(list(_history_lines(results))),
    }


def _result_row(result: RefreshResult) -> dict[str, Any]:
    """What is left out is null in SQL: a success has only what every refresh brings."""
    lease, grant, after = result.lease, result.transition.grant, result.transition.connection
    row: dict[str, Any] = {
        "connection_id": lease.connection_id,
        "lease_number": lease.number,
        "generation": lease.generation,
        "claimed_status": lease.claimed_status.value,
        "status": after.status.value,
        "due_at": _timestamp(after.due_at),
        "failures": after.failures,
        "granted_at": _timestamp(result.granted_at),
    }
    if grant is not None:
        row["access_token"] = grant.access_token
        row["expires_at"] = _timestamp(grant.expires_at)
        row["lifetime_seconds"] = grant.expires_in
        row["scopes"] = grant.scopes
    if result.encrypted_refresh_token is not None:
        row["encrypted_refresh_token"] = result.encrypted_refresh_token
    if after.last_error is not None or after.status_reason is not None or after.retry_not_before is not None:
        row["last_error"] = after.last_error
        row["status_reason"] = after.status_reason
        row["retry_not_before"] = _timestamp(after.retry_not_before)
    if result.transition.events or result.transition.pending_revocation is not None:
        row["is_status_change"] = any(event.status is after.status for event in result.transition.events)
        row["pending_revocation"] = result.transition.pending_revocation
    return row


def _history_lines(results: Iterable[RefreshResult]) -> Iterable[dict[str, Any]]:
    """`number` keeps their order: SQL promises none."""
    events = ((result.lease.connection_id, event) for result in results for event in result.transition.events)
    for number, (connection_id, event) in enumerate(events):
        yield {
            "number": number,
            "connection_id": connection_id,
            "event": event.name.value,
            "detail": event.detail,
            "status": event.status and event.status.value,
        }


def _timestamp(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
