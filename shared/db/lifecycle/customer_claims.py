"""Which customer a connection belongs to once an install is stored that came by a connect link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.db.lifecycle.single_uses import spend_link
from shared.domain.connection import Event, EventName
from shared.domain.customer import ClaimOutcome, CustomerClaim, decide_claim

SET_CUSTOMER = text("UPDATE tokenkeeper.connections SET customer = :customer WHERE id = :connection_id")


@dataclass(frozen=True, slots=True)
class SettledClaim:
    customer: str | None  #: the connection's from now on
    events: tuple[Event, ...] = ()


def settle_claim(
    connection: Connection, claim: CustomerClaim | None, install_id: str | None, row: Row[Any], *, is_newest_grant: bool
) -> SettledClaim:
    """In the transaction that stores the install: spends the link, too.

    `row` has `id` and `customer` of the connection, which is locked; both None where there is none yet: then, and where
    the grant is the newest one, the caller writes the customer.
    """
    if claim is None or install_id is None:
        return SettledClaim(row.customer)
    is_link_spent = not spend_link(connection, claim.link_id, install_id, claim.link_expires_at)
    outcome = decide_claim(claim, row.customer, is_link_spent=is_link_spent, is_newest_grant=is_newest_grant)
    if outcome in {ClaimOutcome.CONFLICT, ClaimOutcome.LINK_SPENT}:
        detail = {"reason": outcome.value, "customer": claim.customer}
        return SettledClaim(row.customer, (Event(EventName.CLAIM_REFUSED, detail),))
    if not is_newest_grant and outcome is ClaimOutcome.CLAIMED:
        connection.execute(SET_CUSTOMER, {"customer": claim.customer, "connection_id": row.id})
    return SettledClaim(claim.customer, _make_events(outcome, row, claim))


def _make_events(outcome: ClaimOutcome, row: Row[Any], claim: CustomerClaim) -> tuple[Event, ...]:
    if outcome is ClaimOutcome.MOVED:
        return (Event(EventName.CUSTOMER_CHANGED, {"before": row.customer, "after": claim.customer}),)
    # That of a new connection is in the line of its installation.
    return (Event(EventName.CLAIMED),) if outcome is ClaimOutcome.CLAIMED and row.id is not None else ()
