"""Parses the body, the fields and the headers of a reply.

A field of another type than HubSpot documents is read where its meaning is plain, and otherwise is None: one odd field
must not cost the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any

from shared.domain import hub_id as hub_ids

#: HubSpot advises room for 512 characters, and says elsewhere that there is no maximum.
MAX_TOKEN_CHARACTERS = 16 * 1024
#: Far beyond any token, so that none is lost; small enough for the message that carries an install.
MAX_REFRESH_TOKEN_CHARACTERS = 128 * 1024
#: A year. HubSpot's access tokens live for 1,800 seconds.
MAX_EXPIRES_IN_SECONDS = 31_536_000
#: 24 hours, the longest Retry-After that HubSpot documents. A longer one is shortened to it.
MAX_RETRY_AFTER_SECONDS = 86_400.0
#: Digits of an integer in JSON: more than any field has, and fewer than Python refuses to parse.
MAX_INTEGER_DIGITS = 400
BYTE_ORDER_MARK = "\ufeff"
#: In a body that is not JSON, such as one that was cut off: the field up to its closing quote.
_REFRESH_TOKEN_FIELD = re.compile(rb'"refresh_token"\s*:\s*("(?:[^"\\]|\\.)+")')


def _parse_integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else None


#: NaN and Infinity are not JSON; a field with one of them is null. The second decoder, which costs more, takes integers
#: that Python refuses as well. Made once: json.loads makes a decoder per call where it is given hooks.
_DECODERS = (
    json.JSONDecoder(parse_constant=lambda _name: None),
    json.JSONDecoder(parse_constant=lambda _name: None, parse_int=_parse_integer),
)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in the body; None where it is anything else. Bytes that are not UTF-8 spoil only their field."""
    text = body.decode(errors="replace").removeprefix(BYTE_ORDER_MARK)
    for decoder in _DECODERS:
        try:
            value = decoder.decode(text)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def find_refresh_token(body: bytes) -> str | None:
    """The refresh token in a body that is not a JSON object as a whole; None where there is none."""
    match = _REFRESH_TOKEN_FIELD.search(body)
    field = parse_object(b'{"refresh_token":' + match[1] + b"}") if match else None
    return parse_refresh_token((field or {}).get("refresh_token"))


def classify_body(body: bytes) -> str:
    """A code for a body without a JSON object."""
    start = body.lstrip()[:1]
    if not start:
        return "empty"
    return "html" if start == b"<" else "not_json"


def parse_token(value: Any) -> str | None:
    """Text that can be sent in a header."""
    if not isinstance(value, str) or len(value) > MAX_TOKEN_CHARACTERS:
        return None
    token = value.strip()
    return token if _is_visible_ascii(token) else None


def parse_refresh_token(value: Any) -> str | None:
    """Any text that can be sent back as it came: it is stored encrypted, and goes into forms only."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_REFRESH_TOKEN_CHARACTERS:
        return None
    is_damaged = "\ufffd" in value or value.encode(errors="ignore").decode() != value  # lone surrogates
    return None if is_damaged else value


def parse_expires_in(value: Any) -> int | None:
    """Whole seconds, of a number or of a text with a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = int(float(value))
    except (ValueError, OverflowError):
        return None
    return seconds if 1 <= seconds <= MAX_EXPIRES_IN_SECONDS else None


def parse_hub_id(value: Any) -> int | None:
    """Of a number or of a text with a number."""
    if isinstance(value, str):
        return hub_ids.parse_hub_id(value.strip())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if hub_ids.is_hub_id(value) else None


def parse_user_id(value: Any) -> int | None:
    """As a hub id: a number, or a text with a number."""
    return parse_hub_id(value)


def parse_scopes(value: Any) -> tuple[str, ...] | None:
    """Of a list or of a text with spaces or commas; what is no scope is left out. None where none is left."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        return None
    scopes: list[str] = []
    for text in texts:
        if isinstance(text, str):
            if _is_visible_ascii(text) and "," not in text:
                scopes.append(text)
            else:
                scopes += [word for word in text.replace(",", " ").split() if _is_visible_ascii(word)]
    return tuple(scopes) if scopes or value == [] else None


def _is_visible_ascii(text: str) -> bool:
    """Printable ASCII without spaces: safe in a header, in a form and in a text column.

    Of each token and scope of each refresh: a tenth of the time that a regular expression takes.
    """
    return text.isascii() and text.isprintable() and " " not in text and text != ""


def parse_line(value: Any, max_chars: int) -> str | None:
    """One line of text; None for anything else. PostgreSQL stores neither NUL nor a lone surrogate."""
    if isinstance(value, str) and 0 < len(value) <= max_chars and value.isprintable():
        return value
    return None


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from 0 to MAX_RETRY_AFTER_SECONDS. A date is compared with the reply's own Date, not with our clock."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_between(headers.get("date", ""), text)
    return None if isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_between(earlier: str, later: str) -> float:
    try:
        return (parsedate_to_datetime(later) - parsedate_to_datetime(earlier)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of them has a time zone
        return float("nan")
