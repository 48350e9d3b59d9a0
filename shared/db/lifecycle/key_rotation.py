"""Replaces refresh tokens under an older key by the same ones under the newest, while everything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.db.core.statements import Database, next_number, single_statement


@dataclass(frozen=True, slots=True)
class ReencryptedToken:
    hub_id: int
    old_ciphertext: str = field(repr=False)  #: as it was read
    new_ciphertext: str = field(repr=False)


#: Only where the row is as it was read: a refresh or an install since then brought a newer token. The generation stays,
#: because the token is the same, so a refresh in flight is still saved. A row that is locked is left to the next round.
REPLACE = single_statement("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:old_ciphertexts AS text[]), CAST(:new_ciphertexts AS text[]))
               AS g(hub_id, old_ciphertext, new_ciphertext)
), locked AS MATERIALIZED (
    SELECT c.hub_id, given.new_ciphertext
      FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
     WHERE c.encrypted_refresh_token = given.old_ciphertext
     ORDER BY c.hub_id FOR NO KEY UPDATE OF c SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET encrypted_refresh_token = locked.new_ciphertext
  FROM locked WHERE c.hub_id = locked.hub_id
RETURNING c.hub_id
""")


#: Only where the row is as it was read. As a disconnect by the operator, but HubSpot cannot be asked to end the token.
DISCONNECT = single_statement(f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:ciphertexts AS text[])) AS g(hub_id, ciphertext)
), locked AS MATERIALIZED (
    SELECT c.hub_id, c.status
      FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
     WHERE c.encrypted_refresh_token = given.ciphertext
     ORDER BY c.hub_id FOR NO KEY UPDATE OF c
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the key to its refresh token is lost: have it installed again',
           status_since = CASE WHEN locked.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           encrypted_refresh_token = NULL, access_token = NULL, expires_at = NULL,
           generation = {next_number("c.generation")},
           due_at = NULL, retry_not_before = NULL, pending_revocation = NULL, account_info_due_at = NULL,
           refresh_requested = false
      FROM locked WHERE c.hub_id = locked.hub_id
    RETURNING c.app, c.hub_id, c.user_id, c.customer, locked.status AS old_status
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT app, hub_id, user_id, customer, 'disconnected',
           jsonb_build_object('was', old_status, 'key_lost', true), 'disconnected'
      FROM marked WHERE old_status <> 'disconnected'
)
SELECT hub_id FROM marked
""")


class KeyRotationStore:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def replace_tokens(self, rows: Sequence[ReencryptedToken]) -> int:
        """How many rows were replaced. Raises StoreUnavailable; then none was."""
        if not rows:
            return 0
        stored = self._database.execute(
            REPLACE,
            hub_ids=[row.hub_id for row in rows],
            old_ciphertexts=[row.old_ciphertext for row in rows],
            new_ciphertexts=[row.new_ciphertext for row in rows],
        )
        return len(stored)

    def disconnect_undecryptable(self, rows: Sequence[tuple[int, str]]) -> int:
        """Disconnect hubs whose encrypted refresh tokens (given with the hubs) no key decrypts. How many were."""
        if not rows:
            return 0
        hub_ids, ciphertexts = [hub_id for hub_id, _ in rows], [each for _, each in rows]
        return len(self._database.execute(DISCONNECT, hub_ids=hub_ids, ciphertexts=ciphertexts))
