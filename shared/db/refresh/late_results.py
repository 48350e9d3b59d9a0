"""Keeps a rotated refresh token whose result could not be saved.

It is the only copy, and the old token is invalid.

It came too late where PostgreSQL hung, or one worker could not reach it, for longer than a lease. Another worker has
claimed the row meanwhile, refreshes with the old token, and HubSpot rejects that one: its result must not be saved. And
after a failover that lost the claim the row has an older lease number than the result.
Or another transaction has locked the row or the history for as long as it likes, or PostgreSQL fails at the row: then a
row of its own keeps the refresh token, so that the worker may stop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine

from shared.db.core.statements import Database, next_number, single_statement
from shared.db.refresh.leases import RefreshResult

#: Of rotated_tokens, applied in one statement.
BATCH_ROWS = 1000
#: After so long a refresh token does not wait for its worker any more, whatever the date of the lease is.
MAX_LEASE_MINUTES = 5

#: A re-install or a disconnect since the claim wins here as well, and so does a newer grant. The new lease number
#: fences out the worker that refreshes with the old token, while its lease goes on: no hub ever has two refreshes in
#: flight. The status stays: the refresh that is due at once finds out what it is, and writes the history.
#: Where another transaction has locked the row, the refresh token waits in rotated_tokens; and where the result may
#: still be saved, as is.
KEEP_ROTATED_TOKENS = single_statement(f"""
WITH late AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:late AS json)) AS late(
        connection_id bigint, lease_number bigint, generation bigint, encrypted_refresh_token text,
        access_token text, expires_at timestamptz, granted_at timestamptz, lifetime_seconds real)
), locked AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c
     WHERE c.id IN (SELECT connection_id FROM late)
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), kept AS (
    UPDATE tokenkeeper.connections AS c
       SET encrypted_refresh_token = late.encrypted_refresh_token,
           access_token = CASE WHEN c.status <> 'revoked' THEN coalesce(late.access_token, c.access_token) END,
           expires_at = CASE WHEN c.status <> 'revoked' THEN coalesce(late.expires_at, c.expires_at) END,
           refreshed_at = late.granted_at,
           lifetime_seconds = coalesce(late.lifetime_seconds, c.lifetime_seconds),
           due_at = greatest(now(), c.retry_not_before),
           pending_revocation = NULL,
           lease_number = {next_number("c.lease_number")}
      FROM late JOIN locked ON locked.id = late.connection_id
     WHERE c.id = late.connection_id AND c.generation = late.generation
       -- Without an access token the result is a failure, which an operator's decision since the claim may fence out.
       AND (c.lease_number <> late.lease_number OR late.access_token IS NULL)
       AND c.encrypted_refresh_token IS NOT NULL AND late.granted_at > coalesce(c.refreshed_at, '-infinity')
    RETURNING c.id
), stored AS (
    INSERT INTO tokenkeeper.rotated_tokens
           (connection_id, lease_number, generation, encrypted_refresh_token, granted_at)
    SELECT c.id, late.lease_number, late.generation, late.encrypted_refresh_token, late.granted_at
      FROM late JOIN tokenkeeper.connections AS c ON c.id = late.connection_id
     WHERE c.id NOT IN (SELECT id FROM locked)
        OR (c.lease_number = late.lease_number AND c.generation = late.generation AND c.lease_until IS NOT NULL
            AND late.access_token IS NOT NULL)
    ON CONFLICT DO NOTHING
    RETURNING connection_id
)
SELECT id FROM kept UNION SELECT connection_id FROM stored
""")
#: An SQL expression.
ANY_ROTATED = "EXISTS (SELECT FROM tokenkeeper.rotated_tokens)"
#: The access token of the same refresh is not stored (docs/adr/0004), so another refresh is due. While the lease of
#: that claim goes on, its worker may save the whole result: then the refresh token here is not newer any more.
APPLY_ROTATED_TOKENS = single_statement(f"""
WITH stored AS MATERIALIZED (
    SELECT * FROM tokenkeeper.rotated_tokens ORDER BY granted_at LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT c.id, c.lease_number, c.lease_until FROM tokenkeeper.connections AS c
     WHERE c.id IN (SELECT connection_id FROM stored)
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), finished AS MATERIALIZED (
    SELECT stored.* FROM stored JOIN locked ON locked.id = stored.connection_id
     WHERE stored.lease_number <> locked.lease_number OR coalesce(locked.lease_until <= now(), true)
        OR stored.granted_at < now() - interval '{MAX_LEASE_MINUTES} minutes'
), newest AS (
    SELECT DISTINCT ON (connection_id) * FROM finished ORDER BY connection_id, granted_at DESC
), applied AS (
    UPDATE tokenkeeper.connections AS c
       SET encrypted_refresh_token = newest.encrypted_refresh_token,
           due_at = greatest(now(), c.retry_not_before),
           pending_revocation = NULL,
           lease_number = {next_number("c.lease_number")}
      FROM newest
     WHERE c.id = newest.connection_id AND c.generation = newest.generation
       AND c.encrypted_refresh_token IS NOT NULL AND newest.granted_at > coalesce(c.refreshed_at, '-infinity')
    RETURNING c.id
), deleted AS (
    DELETE FROM tokenkeeper.rotated_tokens AS r USING stored
     WHERE r.connection_id = stored.connection_id AND r.lease_number = stored.lease_number
       AND ((r.connection_id, r.lease_number) IN (SELECT connection_id, lease_number FROM finished)
            OR NOT EXISTS (SELECT FROM tokenkeeper.connections AS c WHERE c.id = r.connection_id))
)
SELECT id FROM applied
""")


def keep_rotated_tokens(database: Database, late: Sequence[RefreshResult]) -> frozenset[int]:
    """Of results that were not saved, the connections whose new refresh token is kept all the same."""
    rows = [make_rotated_row(result) for result in late if result.encrypted_refresh_token]
    if not rows:
        return frozenset()
    return frozenset(row.id for row in database.execute(KEEP_ROTATED_TOKENS, late=json.dumps(rows)))


def make_rotated_row(result: RefreshResult) -> dict[str, Any]:
    """What JSON carries of a result with a new refresh token. It may have come without an access token."""
    grant, granted_at = result.transition.grant, result.granted_at
    return {
        "connection_id": result.lease.connection_id,
        "lease_number": result.lease.number,
        "generation": result.lease.generation,
        "encrypted_refresh_token": result.encrypted_refresh_token,
        "granted_at": granted_at and granted_at.isoformat(),
        "access_token": grant and grant.access_token,
        "expires_at": grant and grant.expires_at.isoformat(),
        "lifetime_seconds": grant and grant.expires_in,
    }


def apply_rotated_tokens(engine: Engine) -> frozenset[int]:
    """Give each connection the refresh token that waits for it, and make it due. Which; locked ones keep waiting."""
    return frozenset(row.id for row in Database(engine).execute(APPLY_ROTATED_TOKENS))
