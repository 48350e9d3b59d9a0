"""Keeps a rotated refresh token whose result came too late to land: the old one is dead, and nobody else has the new.

It happens where PostgreSQL hung, or one worker could not reach it, for longer than a lease. Somebody else has claimed
the row meanwhile, asks with the old refresh token, and hears that it is dead: that verdict must not count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from shared.db.core.statements import Database, single_statement
from shared.db.refresh.claims import RefreshResult
from shared.domain.grant import Grant

#: A re-install or a disconnect in between wins here, too, and so does a newer grant. Whoever asks with the old token
#: is fenced out by the lease's new number, while the lease itself stands: no hub ever has two refreshes in flight.
#: The status stays: the refresh that is due at once finds out how it stands, and tells.
RESCUE = single_statement("""
WITH r AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:late AS json)) AS r(
        hub_id bigint, number bigint, generation bigint, sealed text, access_token text, expires_at timestamptz,
        granted_at timestamptz, lifetime_seconds real)
)
UPDATE tokenkeeper.connections AS c
   SET encrypted_refresh_token = r.sealed,
       access_token = CASE WHEN c.status = 'revoked' THEN NULL ELSE r.access_token END,
       expires_at = CASE WHEN c.status = 'revoked' THEN NULL ELSE r.expires_at END,
       refreshed_at = r.granted_at,
       lifetime_seconds = r.lifetime_seconds,
       due_at = greatest(now(), c.retry_not_before),
       pending_revocation = NULL,
       lease_number = c.lease_number + 1
  FROM r
 WHERE c.hub_id = r.hub_id AND c.generation = r.generation AND c.lease_number > r.number
   AND c.encrypted_refresh_token IS NOT NULL AND r.granted_at > coalesce(c.refreshed_at, '-infinity')
RETURNING c.hub_id
""")


def rescue(database: Database, late: Sequence[RefreshResult]) -> frozenset[int]:
    """Of results that did not land, the hubs whose new refresh token is kept all the same."""
    rotated = [
        _rotated(result, result.transition.grant)
        for result in late
        if result.encrypted_refresh_token and result.transition.grant
    ]
    if not rotated:
        return frozenset()
    return frozenset(row.hub_id for row in database.execute(RESCUE, late=json.dumps(rotated)))


def _rotated(result: RefreshResult, grant: Grant) -> dict[str, object]:
    return {
        "hub_id": result.lease.hub_id,
        "number": result.lease.number,
        "generation": result.lease.generation,
        "sealed": result.encrypted_refresh_token,
        "access_token": grant.access_token,
        "expires_at": grant.expires_at.isoformat(),
        "granted_at": grant.granted_at.isoformat(),
        "lifetime_seconds": grant.expires_in,
    }
