"""Reads the lines of an import: each is a connection and its refresh token, or refused with a reason.

No reason quotes the line: it contains a token. Memory is constant, however long the file or a line of it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from shared.domain.customer import InvalidText, parse_customer
from shared.domain.hub_id import MAX_HUB_ID, is_hub_id
from shared.domain.identity import APP_NAME
from shared.hubspot import response_fields

#: Four times the longest token.
MAX_LINE_BYTES = 64 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HUB_ID_FIELD, REFRESH_TOKEN_FIELD = "hub_id", "refresh_token"
#: Columns that a file may leave out; so may a line: an empty value is none.
APP_FIELD, USER_ID_FIELD, CUSTOMER_FIELD = "app", "user_id", "customer"
FIELDS = (HUB_ID_FIELD, REFRESH_TOKEN_FIELD, APP_FIELD, USER_ID_FIELD, CUSTOMER_FIELD)
#: As many digits as the largest hub id has.
DIGITS = re.compile(r"[0-9]{1,19}")

BAD_HUB_ID = f"hub_id is not a whole number from 1 to {MAX_HUB_ID}"
BAD_USER_ID = f"user_id is not a whole number from 1 to {MAX_HUB_ID}"
BAD_APP = "app is not the name of an app: small letters, digits and _"
BAD_REFRESH_TOKEN = (
    "refresh_token is missing, or is not 1 to "
    f"{response_fields.MAX_TOKEN_CHARACTERS} printable characters without spaces"
)


@dataclass(frozen=True, slots=True)
class ImportLine:
    number: int
    hub_id: int
    refresh_token: str = field(repr=False)
    app: str | None = None
    user_id: int | None = None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedLine:
    number: int
    reason: str


class UnreadableFile(Exception):
    """The file as a whole is not one that can be imported."""


class _BadLine(Exception):
    """What is wrong with one line."""


def read_lines(stream: BinaryIO) -> Iterator[ImportLine | RefusedLine]:
    """CSV with a header, or JSON lines: the first line that is not empty decides. Raises UnreadableFile."""
    lines = _read_numbered(stream)
    number, raw = next(lines, (0, b""))
    if not number:
        raise UnreadableFile("the file is empty")
    try:
        first = _decode(raw)
    except _BadLine as error:
        raise UnreadableFile(f"line {number}: {error}") from None
    if first.lstrip().startswith("{"):
        yield _parse_line(number, raw, _parse_json)
        parse: Callable[[str], Mapping[str, Any]] = _parse_json
    else:
        parse = partial(_parse_csv, header=_parse_header(first))
    for number, raw in lines:
        yield _parse_line(number, raw, parse)


def _read_numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not empty, numbered from 1; None for one that is too long."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE_BYTES)
            yield number, None
            continue
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if raw.strip():
            yield number, raw


def _decode(raw: bytes | None) -> str:
    if raw is None:
        raise _BadLine(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _BadLine("not UTF-8") from None


def _parse_line(number: int, raw: bytes | None, parse: Callable[[str], Mapping[str, Any]]) -> ImportLine | RefusedLine:
    try:
        values = parse(_decode(raw))
        return ImportLine(
            number,
            _parse_number(values.get(HUB_ID_FIELD), BAD_HUB_ID),
            _parse_refresh_token(values.get(REFRESH_TOKEN_FIELD)),
            app=_parse_app(values.get(APP_FIELD)),
            user_id=_parse_user_id(values.get(USER_ID_FIELD)),
            customer=_parse_customer(values.get(CUSTOMER_FIELD)),
        )
    except _BadLine as error:
        return RefusedLine(number, str(error))


def _parse_header(text: str) -> list[str]:
    try:
        names = [name.strip().lower() for name in _split_csv(text)]
    except _BadLine:
        names = []
    is_repeated = any(names.count(name) > 1 for name in FIELDS)
    if is_repeated or not {HUB_ID_FIELD, REFRESH_TOKEN_FIELD} <= set(names):
        raise UnreadableFile(
            "the file begins neither with the header hub_id,refresh_token nor with a JSON object on one line"
        )
    return names


def _parse_csv(text: str, header: list[str]) -> Mapping[str, Any]:
    values = _split_csv(text)
    if len(values) != len(header):
        raise _BadLine(f"has {len(values)} fields, the header {len(header)}")
    return {name: value.strip() for name, value in zip(header, values, strict=True) if name in FIELDS}


def _split_csv(text: str) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")], strict=True), [])
    except csv.Error:
        raise _BadLine("not CSV, for example a quote that does not end in its line") from None


def _parse_json(text: str) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise _BadLine("not a JSON object on one line") from None
    if not isinstance(values, dict):
        raise _BadLine("not a JSON object on one line")
    return values


def _parse_number(value: Any, reason: str) -> int:
    """A number, or one in quotes: some languages cannot represent a large one otherwise."""
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    if not is_hub_id(value):
        raise _BadLine(reason)
    return int(value)


def _parse_user_id(value: Any) -> int | None:
    return None if value in (None, "") else _parse_number(value, BAD_USER_ID)


def _parse_app(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if not (isinstance(value, str) and APP_NAME.fullmatch(value)):
        raise _BadLine(BAD_APP)
    return value


def _parse_customer(value: Any) -> str | None:
    if value in (None, ""):
        return None
    try:
        return parse_customer(value)
    except InvalidText as error:
        raise _BadLine(f"{CUSTOMER_FIELD} cannot be used: {error}") from None


def _parse_refresh_token(value: Any) -> str:
    token = response_fields.parse_token(value)
    if token is None:
        raise _BadLine(BAD_REFRESH_TOKEN)
    return token
