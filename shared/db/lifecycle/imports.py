"""Imports refresh tokens, thousands in one statement. A connection that works is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, next_number, single_statement
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity


@dataclass(frozen=True, slots=True)
class ImportRow:
    """`may_replace`: the stored connection is replaceable (`find_existing`), and its refresh token is another one."""

    hub_id: int
    encrypted_refresh_token: str = field(repr=False)
    app: str = DEFAULT_APP
    user_id: int | None = None
    customer: str | None = None  #: of a connection that has none; another one stays
    may_replace: bool = False

    @property
    def identity(self) -> ConnectionIdentity:
        return ConnectionIdentity(self.app, self.hub_id, self.user_id)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """New connections, and those whose token was replaced. One in neither set was left as it was."""

    new: frozenset[ConnectionIdentity] = frozenset()
    replaced: frozenset[ConnectionIdentity] = frozenset()


@dataclass(frozen=True, slots=True)
class ExistingConnection:
    """What an import checks of a stored connection. Ciphertexts of one token differ: decrypt them to compare."""

    status: Status
    has_worked: bool  #: an install or a refresh brought a token for it
    customer: str | None
    encrypted_refresh_token: str | None = field(repr=False)

    @property
    def is_replaceable(self) -> bool:
        """Revoked, or imported with a token that never worked: the same condition as in IMPORT."""
        return self.status is Status.REVOKED or (self.status is not Status.DISCONNECTED and not self.has_worked)


_IS_SAME = "c.hub_id = given.hub_id AND c.app = given.app AND c.user_id IS NOT DISTINCT FROM given.user_id"
#: A connection that has worked never gets a token from a file, and one that the operator disconnected comes back by an
#: install only: so the same import can be run twice, and a wrong line can be corrected.
IMPORT = single_statement(f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:apps AS text[]), CAST(:hub_ids AS bigint[]), CAST(:user_ids AS bigint[]),
                         CAST(:customers AS text[]), CAST(:ciphertexts AS text[]), CAST(:may_replace AS boolean[]))
               AS g(app, hub_id, user_id, customer, ciphertext, may_replace)
), before AS MATERIALIZED (
    SELECT c.id, c.app, c.hub_id, c.user_id, c.status FROM tokenkeeper.connections AS c JOIN given ON {_IS_SAME}
), stored AS (
    INSERT INTO tokenkeeper.connections AS c (
        app, hub_id, user_id, customer, status, encrypted_refresh_token, account_info_due_at, due_at)
    SELECT app, hub_id, user_id, customer, 'active', ciphertext, now(), now() FROM given
     -- A conflicting row is locked, and waited for, even where it is not updated.
     WHERE may_replace OR NOT EXISTS (SELECT FROM before AS c WHERE {_IS_SAME})
     ORDER BY hub_id, app, user_id
    ON CONFLICT (hub_id, app, user_id) DO UPDATE
       SET status = 'active',
           status_since = CASE WHEN c.status = 'active' THEN c.status_since ELSE now() END,
           status_reason = NULL, retry_not_before = NULL, failures = 0, last_error = NULL, pending_revocation = NULL,
           refresh_requested = false,
           customer = coalesce(c.customer, excluded.customer),
           encrypted_refresh_token = excluded.encrypted_refresh_token,
           account_info_due_at = now(), due_at = now(), generation = {next_number("c.generation")}
     WHERE (c.status = 'revoked' OR (c.status <> 'disconnected' AND c.refreshed_at IS NULL AND c.installed_at IS NULL))
       AND EXISTS (SELECT FROM given WHERE given.may_replace AND {_IS_SAME})
    RETURNING c.id, c.app, c.hub_id, c.user_id, c.customer, c.created_at = now() AS new
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT stored.app, stored.hub_id, stored.user_id, stored.customer, 'imported',
           CASE WHEN new THEN '{{}}' ELSE jsonb_build_object('was', before.status) END,
           CASE WHEN before.status IS DISTINCT FROM 'active' THEN 'active' END
      FROM stored LEFT JOIN before ON before.id = stored.id
)
SELECT app, hub_id, user_id, new FROM stored
""")
FIND_EXISTING = single_statement(f"""
SELECT c.app, c.hub_id, c.user_id, c.status, c.refreshed_at IS NOT NULL OR c.installed_at IS NOT NULL AS has_worked,
       c.customer, c.encrypted_refresh_token
  FROM unnest(CAST(:apps AS text[]), CAST(:hub_ids AS bigint[]), CAST(:user_ids AS bigint[]))
       AS given(app, hub_id, user_id)
  JOIN tokenkeeper.connections AS c ON {_IS_SAME}
""")


class ImportStore:
    """Imported connections. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def import_rows(self, rows: Sequence[ImportRow]) -> ImportResult:
        """Import all rows or, where it raises, none. Of two rows for one connection the later one counts."""
        distinct = list({row.identity: row for row in rows}.values())
        if not distinct:
            return ImportResult()
        stored = self._database.execute(
            IMPORT,
            **_split_identities([row.identity for row in distinct]),
            customers=[row.customer for row in distinct],
            ciphertexts=[row.encrypted_refresh_token for row in distinct],
            may_replace=[row.may_replace for row in distinct],
        )
        new = frozenset(_row_to_identity(row) for row in stored if row.new)
        return ImportResult(new, frozenset(map(_row_to_identity, stored)) - new)

    def find_existing(self, identities: Sequence[ConnectionIdentity]) -> dict[ConnectionIdentity, ExistingConnection]:
        """The stored connections among these."""
        rows = self._database.execute(FIND_EXISTING, **_split_identities(identities))
        return {
            _row_to_identity(row): ExistingConnection(
                Status(row.status), row.has_worked, row.customer, row.encrypted_refresh_token
            )
            for row in rows
        }


def _split_identities(identities: Sequence[ConnectionIdentity]) -> dict[str, list[Any]]:
    return {
        "apps": [each.app for each in identities],
        "hub_ids": [each.hub_id for each in identities],
        "user_ids": [each.user_id for each in identities],
    }


def _row_to_identity(row: Row[Any]) -> ConnectionIdentity:
    return ConnectionIdentity(row.app, row.hub_id, row.user_id)
