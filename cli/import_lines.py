"""Reads the lines of an import: each is a hub and its refresh token, or refused with a reason.

No reason quotes the line: it contains a token. Memory is constant, however long the file or a line of it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from shared.domain.hub_id import MAX_HUB_ID, is_hub_id
from shared.hubspot import response_fields

#: Four times the longest token.
MAX_LINE_BYTES = 64 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HUB_ID_FIELD, REFRESH_TOKEN_FIELD = "hub_id", "refresh_token"
#: As many digits as the largest hub id has.
DIGITS = re.compile(r"[0-9]{1,19}")

BAD_HUB_ID = f"hub_id is not a whole number from 1 to {MAX_HUB_ID}"
BAD_REFRESH_TOKEN = (
    f"refresh_token is missing, or is not 1 to {response_fields.MAX_TOKEN_CHARS} printable characters without spaces"
)


@dataclass(frozen=True, slots=True)
class ImportLine:
    number: int
    hub_id: int
    refresh_token: str = field(repr=False)


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
        parse: Callable[[str], tuple[Any, Any]] = _parse_json
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


def _parse_line(number: int, raw: bytes | None, parse: Callable[[str], tuple[Any, Any]]) -> ImportLine | RefusedLine:
    try:
        hub_id, refresh_token = parse(_decode(raw))
        return ImportLine(number, _parse_hub_id(hub_id), _parse_refresh_token(refresh_token))
    except _BadLine as error:
        return RefusedLine(number, str(error))


def _parse_header(text: str) -> list[str]:
    try:
        names = [name.strip().lower() for name in _split_csv(text)]
    except _BadLine:
        names = []
    if any(names.count(name) != 1 for name in (HUB_ID_FIELD, REFRESH_TOKEN_FIELD)):
        raise UnreadableFile(
            "the file begins neither with the header hub_id,refresh_token nor with a JSON object on one line"
        )
    return names


def _parse_csv(text: str, header: list[str]) -> tuple[str, str]:
    values = _split_csv(text)
    if len(values) != len(header):
        raise _BadLine(f"has {len(values)} fields, the header {len(header)}")
    return values[header.index(HUB_ID_FIELD)].strip(), values[header.index(REFRESH_TOKEN_FIELD)].strip()


def _split_csv(text: str) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")], strict=True), [])
    except csv.Error:
        raise _BadLine("not CSV, for example a quote that does not end in its line") from None


def _parse_json(text: str) -> tuple[Any, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise _BadLine("not a JSON object on one line") from None
    if not isinstance(values, dict):
        raise _BadLine("not a JSON object on one line")
    return values.get(HUB_ID_FIELD), values.get(REFRESH_TOKEN_FIELD)


def _parse_hub_id(value: Any) -> int:
    """A number, or one in quotes: some languages cannot represent a large one otherwise."""
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    if not is_hub_id(value):
        raise _BadLine(BAD_HUB_ID)
    return int(value)


def _parse_refresh_token(value: Any) -> str:
    token = response_fields.parse_token(value)
    if token is None:
        raise _BadLine(BAD_REFRESH_TOKEN)
    return token
