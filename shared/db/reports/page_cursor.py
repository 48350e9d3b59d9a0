"""Cursors of the list of connections: opaque text in a URL, validated when it comes back."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared.domain.hub_id import MAX_HUB_ID

#: A cursor with the longest domain, 255 characters of four bytes, is shorter.
MAX_CURSOR_CHARACTERS = 1500


class Sort(StrEnum):
    #: By hub id.
    HUB = "hub"
    #: By domain, those without one last.
    DOMAIN = "domain"
    #: The soonest refresh first; only connections with a due refresh.
    DUE = "due"
    #: The most failures first; only connections that fail.
    FAILURES = "failures"


class BadCursor(ValueError):
    """It is not a cursor, or a cursor of a list with another sort order."""


def encode_cursor(sort: Sort, key: Sequence[Any]) -> str:
    """`key`: the values of one row by which the list is sorted. The last one is its id."""
    values = [each.isoformat() if isinstance(each, datetime) else each for each in key]
    text = json.dumps([sort.value, *values], ensure_ascii=False, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(sort: Sort, text: str) -> tuple[Any, ...]:
    """The key that `encode_cursor` got. Raises BadCursor."""
    try:
        name, *key = _decode(text)
        if name != sort.value:
            raise BadCursor("a cursor of another sort order")
        return _check_key(sort, key)
    except (ValueError, TypeError, RecursionError):
        raise BadCursor("not a cursor") from None


def _decode(text: str) -> Any:
    if len(text) > MAX_CURSOR_CHARACTERS:
        raise BadCursor("too long")
    return json.loads(b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))


def _check_key(sort: Sort, key: list[Any]) -> tuple[Any, ...]:
    first, connection_id = key
    if sort is Sort.DUE:
        return _check_datetime(first), _check_int(connection_id)
    if sort in (Sort.HUB, Sort.FAILURES):
        return _check_int(first), _check_int(connection_id)
    return _check_text(first), _check_int(connection_id)


def _check_int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_HUB_ID:
        raise BadCursor("not an integer")
    return value


def _check_datetime(value: Any) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise BadCursor("no time zone")
    return instant


def _check_text(value: Any) -> str:
    """PostgreSQL refuses NUL and lone surrogates."""
    if not isinstance(value, str) or "\0" in value:
        raise BadCursor("not a text")
    value.encode()  # raises UnicodeEncodeError, a ValueError
    return value
