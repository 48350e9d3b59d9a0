"""Reads the body, the fields and the headers of a reply: what HubSpot documents, or Malformed; nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any, NoReturn

from shared.domain.hub_id import is_hub_id

#: Characters. HubSpot advises room for 512, and says elsewhere that there is no maximum.
LONGEST_TOKEN = 16 * 1024
#: Seconds: a year. HubSpot's access tokens live 1,800.
LONGEST_LIFE = 31_536_000
#: Seconds. Retry-After is clamped to it: 24 hours is the longest that HubSpot documents.
LONGEST_WAIT = 86_400.0
#: What may be sent as a bearer token, stored as text and put into a form: printable ASCII without spaces.
_TOKEN = re.compile(r"[!-~]+")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


#: Made once: json.loads would make one per call for the sake of the argument.
_JSON = json.JSONDecoder(parse_constant=_no_constant)


class Malformed(Exception):
    """A field is not of the type that HubSpot documents. `str()` says which in one word, and never its value."""


def object_in(body: bytes) -> dict[str, Any] | None:
    try:
        answer = _JSON.decode(body.decode())
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def not_an_object(body: bytes) -> str:
    start = body.lstrip()[:1]
    if not start:
        return "empty"
    return "html" if start == b"<" else "not_json"


def access_token(value: Any) -> str:
    if not value:
        raise Malformed("no_grant")
    return _token(value)


def refresh_token(value: Any) -> str | None:
    return _token(value) if value not in (None, "") else None


def expires_in(value: Any) -> int:
    """Seconds. A number in quotes is refused: HubSpot's is an int64, and who sends another is not HubSpot."""
    if not _is_int(value):
        raise Malformed("wrong_types")
    if not 1 <= value <= LONGEST_LIFE:
        raise Malformed("bad_expires_in")
    return int(value)


def hub_id(value: Any) -> int | None:
    if value is None:
        return None
    if not is_hub_id(value):
        raise Malformed("wrong_types")
    return int(value)


def scopes(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(scope, str) and _TOKEN.fullmatch(scope) for scope in value):
        raise Malformed("wrong_types")
    return tuple(value)


def line(value: Any, longest: int) -> str | None:
    """A text for people, or None where it is none: PostgreSQL takes neither NUL nor a lone surrogate."""
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
        return value
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now, 0 to LONGEST_WAIT; a date is held against the reply's own Date, never against our clock."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, headers.get("Date", ""))
    return None if isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def _until(date: str, now: str) -> float:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: one of them has no time zone
        return float("nan")


def _token(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TOKEN or not _TOKEN.fullmatch(value):
        raise Malformed("wrong_types")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
