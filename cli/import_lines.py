"""Reads the lines of an import, whoever wrote them: each is a hub and its refresh token, or refused with a reason.

No reason ever quotes the line: there is a token in it. However long the file or a line of it, memory stays as it is.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from shared.domain.hub_id import MAX_HUB_ID
from shared.hubspot import response_fields

#: Bytes. The longest token and then some.
LONGEST_LINE = 64 * 1024
BOM = b"\xef\xbb\xbf"
HEADER = ("hub_id", "refresh_token")
#: As many digits as the largest hub_id has.
DIGITS = re.compile(r"[0-9]{1,19}")

NO_HUB = f"hub_id is not a whole number from 1 to {MAX_HUB_ID}"
NO_TOKEN = (
    f"refresh_token is missing, or is not 1 to {response_fields.MAX_TOKEN_CHARS} printable characters without spaces"
)


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    hub_id: int
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    number: int
    why: str


class Unreadable(Exception):
    """The file as a whole is not what an import takes."""


class _Wrong(Exception):
    """What is wrong with one line."""


def read(stream: BinaryIO) -> Iterator[Line | Refused]:
    """CSV with a header, or JSON lines: the first line that is not empty tells. Raises Unreadable."""
    lines = _numbered(stream)
    for number, raw in lines:
        text = _first(number, raw)
        if text.lstrip().startswith("{"):
            yield _judged(number, raw, _from_json)
            yield from (_judged(number, raw, _from_json) for number, raw in lines)
        else:
            places = _places(text)
            yield from (_judged(number, raw, partial(_from_csv, places=places)) for number, raw in lines)
        return
    raise Unreadable("there is nothing in it")


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not empty, from 1; None for one that is too long."""
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LONGEST_LINE)
            yield number, None
            continue
        if number == 1:
            raw = raw.removeprefix(BOM)
        if raw.strip():
            yield number, raw


def _first(number: int, raw: bytes | None) -> str:
    try:
        return _text(raw)
    except _Wrong as error:
        raise Unreadable(f"line {number}: {error}") from None


def _text(raw: bytes | None) -> str:
    if raw is None:
        raise _Wrong(f"longer than {LONGEST_LINE} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _Wrong("not UTF-8") from None


def _places(header: str) -> tuple[int, int, int]:
    """Where hub_id and refresh_token stand in a line, and how many fields it has."""
    try:
        names = [name.strip().lower() for name in _fields(header)]
    except _Wrong:
        names = []
    if any(names.count(name) != 1 for name in HEADER):
        raise Unreadable("it begins neither with the header hub_id,refresh_token nor with a JSON object on one line")
    return names.index(HEADER[0]), names.index(HEADER[1]), len(names)


def _judged(number: int, raw: bytes | None, read: Callable[[str], tuple[Any, Any]]) -> Line | Refused:
    try:
        hub_id, refresh_token = read(_text(raw))
        return Line(number, _hub_id(hub_id), _refresh_token(refresh_token))
    except _Wrong as error:
        return Refused(number, str(error))


def _from_csv(text: str, places: tuple[int, int, int]) -> tuple[str, str]:
    hub_id, refresh_token, count = places
    values = _fields(text)
    if len(values) != count:
        raise _Wrong(f"has {len(values)} fields, the header {count}")
    return values[hub_id].strip(), values[refresh_token].strip()


def _fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")], strict=True), [])
    except csv.Error:
        raise _Wrong("not CSV: a quote that does not end in its line, say") from None


def _from_json(text: str) -> tuple[Any, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise _Wrong("not a JSON object on one line") from None
    if not isinstance(given, dict):
        raise _Wrong("not a JSON object on one line")
    return given.get(HEADER[0]), given.get(HEADER[1])


def _hub_id(value: Any) -> int:
    """A number, or one in quotes: some languages cannot hold a large one otherwise."""
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    try:
        hub_id = response_fields.parse_hub_id(value)
    except response_fields.MalformedField:
        hub_id = None
    if hub_id is None:
        raise _Wrong(NO_HUB)
    return hub_id


def _refresh_token(value: Any) -> str:
    try:
        token = response_fields.parse_refresh_token(value)
    except response_fields.MalformedField:
        token = None
    if token is None:
        raise _Wrong(NO_TOKEN)
    return token
