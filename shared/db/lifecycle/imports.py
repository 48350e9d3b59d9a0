"""Imports refresh tokens, thousands in one statement. A connection that works is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.db.core.statements import Database, next_number, single_statement
from shared.domain.connection import Status


@dataclass(frozen=True, slots=True)
class ImportRow:
    """`may_replace`: the stored connection is replaceable (`find_existing`), and its refresh token is another one."""

    hub_id: int
    encrypted_refresh_token: str = field(repr=False)
    may_replace: bool = False


@dataclass(frozen=True, slots=True)
class ImportResult:
    """New hubs, and hubs whose token was replaced. A hub in neither set was left as it was."""

    new: frozenset[int]
    replaced: frozenset[int]


@dataclass(frozen=True, slots=True)
class ExistingConnection:
    """What an import checks of a stored connection. Ciphertexts of one token differ: decrypt them to compare."""

    status: Status
    has_worked: bool  #: an install or a refresh brought a token for it
    encrypted_refresh_token: str | None = field(repr=False)

    @property
    def is_replaceable(self) -> bool:
        """Revoked, or imported with a token that never worked: the same condition as in IMPORT."""
        return self.status is Status.REVOKED or (self.status is not Status.DISCONNECTED and not self.has_worked)


#: A connection that has worked never gets a token from a file, and one that the operator disconnected comes back by an
#: install only: so the same import can be run twice, and a wrong line can be corrected.
IMPORT = single_statement(f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:ciphertexts AS text[]), CAST(:may_replace AS boolean[]))
               AS g(hub_id, ciphertext, may_replace)
), before AS MATERIALIZED (
    SELECT c.hub_id, c.status FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
), stored AS (
    INSERT INTO tokenkeeper.connections AS c (hub_id, status, encrypted_refresh_token, account_info_due_at, due_at)
    SELECT hub_id, 'active', ciphertext, now(), now() FROM given
     -- A conflicting row is locked, and waited for, even where it is not updated.
     WHERE may_replace OR hub_id NOT IN (SELECT hub_id FROM before)
     ORDER BY hub_id
    ON CONFLICT (hub_id, app, user_id) DO UPDATE
       SET status = 'active',
           status_since = CASE WHEN c.status = 'active' THEN c.status_since ELSE now() END,
           status_reason = NULL, retry_not_before = NULL, failures = 0, last_error = NULL, pending_revocation = NULL,
           refresh_requested = false,
           encrypted_refresh_token = excluded.encrypted_refresh_token,
           account_info_due_at = now(), due_at = now(), generation = {next_number("c.generation")}
     WHERE (c.status = 'revoked' OR (c.status <> 'disconnected' AND c.refreshed_at IS NULL AND c.installed_at IS NULL))
       AND c.hub_id = ANY (SELECT given.hub_id FROM given WHERE given.may_replace)
    RETURNING c.app, c.hub_id, c.user_id, c.customer, c.created_at = now() AS new
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT stored.app, stored.hub_id, stored.user_id, stored.customer, 'imported',
           CASE WHEN new THEN '{{}}' ELSE jsonb_build_object('was', before.status) END,
           CASE WHEN before.status IS DISTINCT FROM 'active' THEN 'active' END
      FROM stored LEFT JOIN before ON before.hub_id = stored.hub_id
)
SELECT hub_id, new FROM stored
""")
FIND_EXISTING = single_statement("""
SELECT hub_id, status, refreshed_at IS NOT NULL OR installed_at IS NOT NULL AS has_worked, encrypted_refresh_token
  FROM tokenkeeper.connections
 WHERE hub_id = ANY (CAST(:hub_ids AS bigint[]))
""")


class ImportStore:
    """Imported connections. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def import_rows(self, rows: Sequence[ImportRow]) -> ImportResult:
        """Import all rows or, where it raises, none. Of two rows for one hub the later one counts."""
        distinct = list({row.hub_id: row for row in rows}.values())
        if not distinct:
            return ImportResult(frozenset(), frozenset())
        stored = self._database.execute(
            IMPORT,
            hub_ids=[row.hub_id for row in distinct],
            ciphertexts=[row.encrypted_refresh_token for row in distinct],
            may_replace=[row.may_replace for row in distinct],
        )
        new = frozenset(row.hub_id for row in stored if row.new)
        return ImportResult(new, frozenset(row.hub_id for row in stored) - new)

    def find_existing(self, hub_ids: Sequence[int]) -> dict[int, ExistingConnection]:
        """The stored connections among these hubs."""
        rows = self._database.execute(FIND_EXISTING, hub_ids=list(hub_ids))
        return {
            row.hub_id: ExistingConnection(Status(row.status), row.has_worked, row.encrypted_refresh_token)
            for row in rows
        }
