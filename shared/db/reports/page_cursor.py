"""Where a page of the list of connections begins: opaque to its bearer, and trusted in nothing when it comes back."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared.domain.hub_id import MAX_HUB_ID

#: Characters of the longest cursor that we make: a domain of 255, in four bytes each.
LONGEST = 1500


class Sort(StrEnum):
    #: By account number.
    HUB = "hub"
    #: By domain, those without one last.
    DOMAIN = "domain"
    #: The soonest refresh first; only those that have one ahead.
    DUE = "due"
    #: The most failures first; only those that fail.
    FAILURES = "failures"


class BadCursor(ValueError):
    """It is none of ours, or of a list that is sorted in another way."""


def cursor(sort: Sort, key: Sequence[Any]) -> str:
    """`key`: what the list is sorted by, of one row; its hub is the last of it."""
    plain = [each.isoformat() if isinstance(each, datetime) else each for each in key]
    made = json.dumps([sort.value, *plain], ensure_ascii=False, separators=(",", ":"))
    return urlsafe_b64encode(made.encode()).decode().rstrip("=")


def position(sort: Sort, text: str) -> tuple[Any, ...]:
    """The key that `cursor` was given. Raises BadCursor."""
    try:
        named, *key = _decoded(text)
        if named != sort.value:
            raise BadCursor("a cursor of another order")
        return _checked(sort, key)
    except (ValueError, TypeError, RecursionError):
        raise BadCursor("no cursor of ours") from None


def _decoded(text: str) -> Any:
    if len(text) > LONGEST:
        raise BadCursor("too long")
    return json.loads(b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))


def _checked(sort: Sort, key: list[Any]) -> tuple[Any, ...]:
    if sort is Sort.HUB:
        (hub_id,) = key
        return (_number(hub_id),)
    first, hub_id = key
    if sort is Sort.DUE:
        return _instant(first), _number(hub_id)
    if sort is Sort.FAILURES:
        return _number(first), _number(hub_id)
    return _text(first), _number(hub_id)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_HUB_ID:
        raise BadCursor("no number")
    return value


def _instant(value: Any) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise BadCursor("no instant")
    return instant


def _text(value: Any) -> str:
    """PostgreSQL takes neither NUL nor a lone surrogate."""
    if not isinstance(value, str) or "\0" in value:
        raise BadCursor("no text")
    value.encode()  # raises UnicodeEncodeError, a ValueError
    return value
