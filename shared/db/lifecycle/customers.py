"""Gives connections to customers, at an operator's word: by the command `claim`, or by a line of an import."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.domain.identity import ConnectionIdentity


class CustomerChange(StrEnum):
    """What became of it. The first two are also the names of the events in the history."""

    CLAIMED = "claimed"  #: it had no customer
    CHANGED = "customer_changed"  #: it was another one's
    UNCHANGED = "unchanged"
    OTHER_CUSTOMER = "other_customer"  #: it is another one's, and stays so
    UNKNOWN = "unknown"  #: there is no such connection


SET_CUSTOMER = single_statement("""
WITH old AS MATERIALIZED (
    SELECT id, customer,
           CASE WHEN customer IS NULL THEN 'claimed'
                WHEN customer = :customer THEN 'unchanged'
                WHEN :may_move THEN 'customer_changed'
                ELSE 'other_customer' END AS change
      FROM tokenkeeper.connections
     WHERE hub_id = :hub_id AND app = :app AND user_id IS NOT DISTINCT FROM CAST(:user_id AS bigint) FOR NO KEY UPDATE
), changed AS (
    UPDATE tokenkeeper.connections AS c SET customer = :customer
      FROM old WHERE c.id = old.id AND old.change IN ('claimed', 'customer_changed')
    RETURNING c.app, c.hub_id, c.user_id, c.customer, old.change, old.customer AS old_customer
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail)
    SELECT app, hub_id, user_id, customer, change,
           CASE WHEN old_customer IS NULL THEN '{}' ELSE jsonb_build_object('was', old_customer) END
      FROM changed
)
SELECT change FROM old
""")


class CustomerStore:
    """Raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def set_customer(self, identity: ConnectionIdentity, customer: str, *, may_move: bool) -> CustomerChange:
        """`customer` as parse_customer() returns it. `may_move`: also from another customer."""
        rows = self._database.execute(
            SET_CUSTOMER,
            app=identity.app,
            hub_id=identity.hub_id,
            user_id=identity.user_id,
            customer=customer,
            may_move=may_move,
        )
        return CustomerChange(rows[0].change) if rows else CustomerChange.UNKNOWN
