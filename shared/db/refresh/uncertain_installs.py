"""Installs of which it is uncertain whether they are the newest: HubSpot decides, and neither is lost before.

Installs are dated by PostgreSQL's clock, but where it has not answered yet, by that of a web host. Such a date and one
of minutes before or after do not tell the order: the install that arrives later is stored, and the refresh token of the
other one is kept. It is tried before the connection is revoked. Pruning deletes it once the stored one has worked.

A refresh token is kept in the same way where HubSpot rotated it after the grant of an install that is stored late:
HubSpot may have issued the same refresh token to both. The order of the installs is known then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import structlog
from sqlalchemy import text

from shared.db.core.statements import Database, single_statement
from shared.db.refresh.leases import RefreshResult
from shared.domain.identity import ConnectionIdentity

log = structlog.get_logger(__name__)

#: Of a web host's clock. Dates that are further apart tell the order of two installs all the same.
MAX_CLOCK_ERROR_SECONDS = 600.0
#: Executed before the install is written over another one, or after it where it is the first of its connection.
KEEP_UNCERTAIN_INSTALL = text(
    "SELECT tokenkeeper.keep_uncertain_install(:connection_id, :has_other, :is_order_uncertain)"
)
#: The fences of a save. The status stays: the refresh that is due at once decides about it.
TAKE_OTHER = single_statement("""
WITH lease AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS bigint[]), CAST(:generations AS bigint[]))
               AS lease(id, number, generation)
), locked AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c JOIN lease ON lease.id = c.id
     WHERE c.lease_number = lease.number AND c.generation = lease.generation AND c.lease_until IS NOT NULL
       AND c.id IN (SELECT u.connection_id FROM tokenkeeper.uncertain_installs AS u
                         WHERE u.other_encrypted_refresh_token IS NOT NULL)
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), other AS (
    DELETE FROM tokenkeeper.uncertain_installs AS u USING locked WHERE u.connection_id = locked.id
    RETURNING u.connection_id, u.other_encrypted_refresh_token
)
UPDATE tokenkeeper.connections AS c
   SET encrypted_refresh_token = other.other_encrypted_refresh_token, due_at = now(), lease_until = NULL
  FROM other WHERE c.id = other.connection_id
RETURNING c.id, c.app, c.hub_id, c.user_id
""")


def is_order_uncertain(granted_at: datetime, installed_at: datetime | None) -> bool:
    """Whether these dates, of which a host's clock gave at least one, do not tell which install is the newer one."""
    return installed_at is not None and abs((granted_at - installed_at).total_seconds()) <= MAX_CLOCK_ERROR_SECONDS


def take_other_grants(database: Database, revocations: Sequence[RefreshResult]) -> Collection[int]:
    """Of connections to revoke, those that have another grant: it replaces the rejected one, and is due."""
    leases = [result.lease for result in revocations]
    rows = database.execute(
        TAKE_OTHER,
        ids=[lease.connection_id for lease in leases],
        numbers=[lease.number for lease in leases],
        generations=[lease.generation for lease in leases],
    )
    for row in rows:
        identity = ConnectionIdentity(row.app, row.hub_id, row.user_id)
        log.warning("HubSpot rejects the newest install; the one before it is tried", **identity.log_fields())
    return {row.id for row in rows}
