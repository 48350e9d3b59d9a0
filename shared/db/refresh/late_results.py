"""Keeps a rotated refresh token whose result came too late to be saved.

It is the only copy, and the old token is invalid.

It happens where PostgreSQL hung, or one worker could not reach it, for longer than a lease. Another worker has claimed
the row meanwhile, refreshes with the old token, and HubSpot rejects that one: its result must not be saved. And after a
failover that lost the claim the row has an older lease number than the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from shared.db.core.statements import Database, single_statement
from shared.db.refresh.claims import RefreshResult

#: A re-install or a disconnect since the claim wins here as well, and so does a newer grant. The new lease number
#: fences out the worker that refreshes with the old token, while its lease goes on: no hub ever has two refreshes in
#: flight. The status stays: the refresh that is due at once finds out what it is, and writes the history.
KEEP_ROTATED_TOKENS = single_statement("""
WITH late AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:late AS json)) AS late(
        hub_id bigint, lease_number bigint, generation bigint, encrypted_refresh_token text,
        access_token text, expires_at timestamptz, granted_at timestamptz, lifetime_seconds real)
)
UPDATE tokenkeeper.connections AS c
   SET encrypted_refresh_token = late.encrypted_refresh_token,
       access_token = CASE WHEN c.status = 'revoked' THEN NULL ELSE late.access_token END,
       expires_at = CASE WHEN c.status = 'revoked' THEN NULL ELSE late.expires_at END,
       refreshed_at = late.granted_at,
       lifetime_seconds = late.lifetime_seconds,
       due_at = greatest(now(), c.retry_not_before),
       pending_revocation = NULL,
       lease_number = c.lease_number + 1
  FROM late
 WHERE c.hub_id = late.hub_id AND c.generation = late.generation AND c.lease_number <> late.lease_number
   AND c.encrypted_refresh_token IS NOT NULL AND late.granted_at > coalesce(c.refreshed_at, '-infinity')
RETURNING c.hub_id
""")


def keep_rotated_tokens(database: Database, late: Sequence[RefreshResult]) -> frozenset[int]:
    """Of results that were not saved, the hubs whose new refresh token is kept all the same."""
    rows = [
        {
            "hub_id": result.lease.hub_id,
            "lease_number": result.lease.number,
            "generation": result.lease.generation,
            "encrypted_refresh_token": result.encrypted_refresh_token,
            "access_token": grant.access_token,
            "expires_at": grant.expires_at.isoformat(),
            "granted_at": grant.granted_at.isoformat(),
            "lifetime_seconds": grant.expires_in,
        }
        for result in late
        if result.encrypted_refresh_token and (grant := result.transition.grant)
    ]
    if not rows:
        return frozenset()
    return frozenset(row.hub_id for row in database.execute(KEEP_ROTATED_TOKENS, late=json.dumps(rows)))
