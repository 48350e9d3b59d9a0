"""What an operator asks of one connection: to end it, or to refresh it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from shared.db.database import Database, alone

#: Seconds that a disconnect may take before somebody else finishes it.
AGAIN = 60


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a disconnect needs to tell HubSpot."""

    sealed_refresh_token: str = field(repr=False)
    access_token: str | None = field(repr=False)  #: None where it is past its life


class Requested(StrEnum):
    """What became of an operator's request to refresh now."""

    ASKED = "asked"
    IN_FLIGHT = "in_flight"
    #: It is due already; the next sweep gets to it.
    ALREADY_DUE = "already_due"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"


#: Not served from this statement on: the view asks for the status. The tokens stay until HubSpot is told.
_MARKED = """
WITH old AS MATERIALIZED (
    SELECT hub_id, status FROM tokenkeeper.connections
     WHERE hub_id = :hub_id AND {unwiped} FOR NO KEY UPDATE
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the operator disconnected it',
           status_since = CASE WHEN old.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           generation = c.generation + CASE WHEN old.status = 'disconnected' THEN 0 ELSE 1 END,
           due_at = NULL, not_before = NULL, condemned = NULL, identify_due_at = NULL, refresh_requested = false
      FROM old WHERE c.hub_id = old.hub_id
    RETURNING c.hub_id, old.status AS was, {returned}
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT hub_id, 'disconnected', jsonb_build_object('was', was), 'disconnected'
      FROM marked WHERE was <> 'disconnected'
)
SELECT * FROM marked
"""
DISCONNECTING = alone(
    _MARKED.format(
        unwiped="sealed_refresh_token IS NOT NULL",
        returned="""
           c.sealed_refresh_token, CASE WHEN c.expires_at > clock_timestamp() THEN c.access_token END AS access_token
        """,
    )
)
#: For web, which may read neither (shared/db/privileges.py).
BEGIN_DISCONNECT = alone(_MARKED.format(unwiped="tokenkeeper.holds_refresh_token(hub_id)", returned="c.generation"))
BEGUN = alone("""
SELECT sealed_refresh_token, CASE WHEN expires_at > clock_timestamp() THEN access_token END AS access_token
  FROM tokenkeeper.connections
 WHERE hub_id = :hub_id AND status = 'disconnected' AND sealed_refresh_token IS NOT NULL
""")
WIPED = alone("""
UPDATE tokenkeeper.connections
   SET access_token = NULL, expires_at = NULL, sealed_refresh_token = NULL
 WHERE hub_id = :hub_id AND status = 'disconnected'
""")
#: The lease keeps the next sweep from handing out the same one.
LEFTOVERS = alone(f"""
WITH left_over AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE status = 'disconnected' AND sealed_refresh_token IS NOT NULL
       AND status_since < now() - interval '{AGAIN} seconds'
       AND (lease_until IS NULL OR lease_until <= now())
     ORDER BY hub_id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c
   SET lease_until = now() + interval '{AGAIN} seconds', lease_no = c.lease_no + 1
  FROM left_over WHERE c.hub_id = left_over.hub_id
RETURNING c.hub_id
""")
#: As hubspot.request_refresh, but an operator may ask again after a failure, and for a revoked one.
REQUEST = alone("""
WITH held AS MATERIALIZED (
    SELECT hub_id, status, lease_until, due_at, greatest(now(), not_before) AS at_once
      FROM tokenkeeper.connections WHERE hub_id = ANY (CAST(:hub_ids AS bigint[]))
     ORDER BY hub_id FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT hub_id, at_once,
           CASE WHEN status = 'disconnected' THEN 'disconnected'
                WHEN lease_until > now() THEN 'in_flight'
                WHEN due_at <= at_once THEN 'already_due'
                ELSE 'asked' END AS verdict
      FROM held
), asked AS (
    UPDATE tokenkeeper.connections AS c
       SET due_at = least(c.due_at, judged.at_once), refresh_requested = true
      FROM judged WHERE c.hub_id = judged.hub_id AND judged.verdict IN ('asked', 'in_flight')
)
SELECT hub_id, verdict FROM judged
""")


def begin_disconnect(database: Database, hub_id: int) -> bool:
    """The first step, for who does not take the next. False where there is no such connection, or it is wiped."""
    return bool(database.ask(BEGIN_DISCONNECT, hub_id=hub_id))


def disconnecting(database: Database, hub_id: int) -> Secrets | None:
    """The first step. None where there is no such connection, or it is wiped. May be repeated until it is."""
    rows = database.ask(DISCONNECTING, hub_id=hub_id)
    return Secrets(rows[0].sealed_refresh_token, rows[0].access_token) if rows else None


def begun(database: Database, hub_id: int) -> Secrets | None:
    """None where nobody began to disconnect it, or it is wiped."""
    rows = database.ask(BEGUN, hub_id=hub_id)
    return Secrets(rows[0].sealed_refresh_token, rows[0].access_token) if rows else None


def wiped(database: Database, hub_id: int) -> None:
    """The last step; one that was installed again meanwhile keeps what it has."""
    database.ask(WIPED, hub_id=hub_id)


def leftovers(database: Database, most: int) -> list[int]:
    """Disconnects that were begun a minute ago and never finished; each is named once a minute."""
    return [row.hub_id for row in database.ask(LEFTOVERS, limit=most)]


def request(database: Database, hub_ids: Sequence[int]) -> dict[int, Requested]:
    """What became of each of `hub_ids`."""
    found = {row.hub_id: Requested(row.verdict) for row in database.ask(REQUEST, hub_ids=list(hub_ids))}
    return {hub_id: found.get(hub_id, Requested.UNKNOWN) for hub_id in hub_ids}
