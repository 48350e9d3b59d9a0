"""What works once: a connect link brings one installation, and so does a state that was given to the Marketplace."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine, text

from shared.db.core.statements import Database, single_statement

LINK, STATE = "link", "state"
_SPEND = """
INSERT INTO tokenkeeper.single_uses AS s (kind, id, used_by, expires_at)
VALUES (:kind, :id, CAST(:used_by AS uuid), :expires_at)
ON CONFLICT (kind, id) DO UPDATE SET id = excluded.id  -- waits for the other's transaction, and changes nothing
RETURNING used_by
"""
SPEND, SPEND_ALONE = text(_SPEND), single_statement(_SPEND)
FIND = single_statement("SELECT used_by FROM tokenkeeper.single_uses WHERE kind = :kind AND id = :id")


class SingleUses:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def find_link_use(self, link_id: str) -> str | None:
        """The id of the install that came by the link; None where there is none."""
        rows = self._database.execute(FIND, kind=LINK, id=link_id)
        return str(rows[0].used_by) if rows else None

    def spend_state(self, state_id: str, install_id: str, expires_at: datetime) -> str:
        """The id of the install that spent the state first, which may be this one."""
        (row,) = self._database.execute(SPEND_ALONE, kind=STATE, id=state_id, used_by=install_id, expires_at=expires_at)
        return str(row.used_by)


def spend_link(connection: Connection, link_id: str, install_id: str, expires_at: datetime) -> bool:
    """In the caller's transaction. False: another install came by this link before."""
    values = {"kind": LINK, "id": link_id, "used_by": install_id, "expires_at": expires_at}
    return str(connection.execute(SPEND, values).scalar_one()) == install_id
