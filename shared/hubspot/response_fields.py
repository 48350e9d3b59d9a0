"""Parses the body, the fields and the headers of a reply. What HubSpot does not document is MalformedField."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any, NoReturn

from shared.domain.hub_id import is_hub_id

#: HubSpot advises room for 512 characters, and says elsewhere that there is no maximum.
MAX_TOKEN_CHARS = 16 * 1024
#: A year. HubSpot's access tokens live for 1,800 seconds.
MAX_EXPIRES_IN_SECONDS = 31_536_000
#: 24 hours, the longest Retry-After that HubSpot documents. A longer one is shortened to it.
MAX_RETRY_AFTER_SECONDS = 86_400.0
#: Printable ASCII without spaces: safe in a header, in a form and in a text column.
_TOKEN = re.compile(r"[!-~]+")


class MalformedField(Exception):
    """A field is not of the type that HubSpot documents. The message is one word, and never the value."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are in Python's JSON and not in the standard's


#: One for all calls: json.loads makes a decoder per call where it is given `parse_constant`.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in the body; None where it is anything else."""
    try:
        value = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def classify_body(body: bytes) -> str:
    """A code for a body without a JSON object."""
    start = body.lstrip()[:1]
    if not start:
        return "empty"
    return "html" if start == b"<" else "not_json"


def parse_access_token(value: Any) -> str:
    if not value:
        raise MalformedField("no_grant")
    return _parse_token(value)


def parse_refresh_token(value: Any) -> str | None:
    return _parse_token(value) if value not in (None, "") else None


def parse_expires_in(value: Any) -> int:
    """Seconds. A number in quotes is refused: HubSpot documents an int64."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedField("wrong_types")
    if not 1 <= value <= MAX_EXPIRES_IN_SECONDS:
        raise MalformedField("bad_expires_in")
    return int(value)


def parse_hub_id(value: Any) -> int | None:
    if value is None:
        return None
    if not is_hub_id(value):
        raise MalformedField("wrong_types")
    return int(value)


def parse_scopes(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(scope, str) and _TOKEN.fullmatch(scope) for scope in value):
        raise MalformedField("wrong_types")
    return tuple(value)


def parse_line(value: Any, max_chars: int) -> str | None:
    """One line of text; None for anything else. PostgreSQL stores neither NUL nor a lone surrogate."""
    if isinstance(value, str) and 0 < len(value) <= max_chars and value.isprintable():
        return value
    return None


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from 0 to MAX_RETRY_AFTER_SECONDS. A date is compared with the reply's own Date, not with our clock."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_between(headers.get("Date", ""), text)
    return None if isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_between(earlier: str, later: str) -> float:
    try:
        return (parsedate_to_datetime(later) - parsedate_to_datetime(earlier)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of them has a time zone
        return float("nan")


def _parse_token(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(value):
        raise MalformedField("wrong_types")
    return value
