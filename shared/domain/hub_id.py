"""The range of a hub id, the number of a HubSpot account."""

from __future__ import annotations

import re

#: The largest number that a bigint column holds.
MAX_HUB_ID = 2**63 - 1
_DECIMAL = re.compile(r"[1-9][0-9]{0,18}")


def is_hub_id(value: object) -> bool:
    """Whether a value from outside, such as a field of JSON, is an integer in the range. True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_HUB_ID


def parse_hub_id(text: str) -> int | None:
    """The hub id that `text` writes in decimal digits, without a sign or leading zeros; None where it is none."""
    return int(text) if _DECIMAL.fullmatch(text) and int(text) <= MAX_HUB_ID else None
