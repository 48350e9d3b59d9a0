"""Customers of our own product: what their names may be, and who gets a connection that a connect link claims."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

MAX_CUSTOMER_CHARACTERS = 200
MAX_LINK_ID_CHARACTERS = 128
#: Control characters, and halves of UTF-16 pairs, which no encoding can store.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs"})


class InvalidText(ValueError):
    """What is wrong with a text from outside, in words that contain no part of it."""


@dataclass(frozen=True, slots=True)
class CustomerClaim:
    """What a connect link says about the connection that comes by it."""

    customer: str
    link_id: str  #: the link's `jti`: one link brings one installation
    link_expires_at: datetime
    may_move: bool = False  #: also from another customer
    hub_id: int | None = None  #: the only account that may be chosen; None: any

    def to_fields(self) -> dict[str, Any]:
        """For JSON, in few bytes: a part of it has to fit into a cookie."""
        fields = {"c": self.customer, "l": self.link_id, "e": self.link_expires_at.timestamp()}
        return fields | {name: value for name, value in (("m", self.may_move), ("h", self.hub_id)) if value}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CustomerClaim:
        """Of what to_fields() returned."""
        expires_at = datetime.fromtimestamp(fields["e"], UTC)
        return cls(fields["c"], fields["l"], expires_at, fields.get("m", False), fields.get("h"))


class ClaimOutcome(StrEnum):
    """What a claim does to the connection that it came with."""

    CLAIMED = "claimed"  #: it had no customer
    UNCHANGED = "unchanged"  #: it is that customer's already
    MOVED = "moved"  #: from another customer
    CONFLICT = "conflict"  #: another customer keeps it
    LINK_SPENT = "link_spent"  #: another installation came by the same link


def parse_customer(value: object) -> str:
    """1 to 200 characters without control characters. Raises InvalidText."""
    return parse_text(value, MAX_CUSTOMER_CHARACTERS)


def parse_text(value: object, max_characters: int) -> str:
    """Raises InvalidText."""
    if not isinstance(value, str):
        raise InvalidText("it must be text")
    if not 1 <= len(value) <= max_characters:
        raise InvalidText(f"it must have 1 to {max_characters} characters")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in value):
        raise InvalidText("it must have no control characters")
    return value


def decide_claim(
    claim: CustomerClaim, customer: str | None, *, is_link_spent: bool, is_newest_grant: bool
) -> ClaimOutcome:
    """`customer` is the connection's; None: it has none.

    A grant that is stored after a newer one still claims a connection without a customer, but moves none: the newer
    grant's link decided already.
    """
    if is_link_spent:
        return ClaimOutcome.LINK_SPENT
    if customer is None:
        return ClaimOutcome.CLAIMED
    if customer == claim.customer:
        return ClaimOutcome.UNCHANGED
    return ClaimOutcome.MOVED if claim.may_move and is_newest_grant else ClaimOutcome.CONFLICT
