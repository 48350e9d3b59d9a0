"""Reads a .env file as docker compose does, but for interpolation: `$` is a dollar sign here."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPED = re.compile(r'\\([\\"$])')


class BadDotenv(Exception):
    """A line that is no setting; the message names the line, and never shows it."""


def read(path: Path) -> dict[str, str]:
    """Empty where there is no such file. Raises BadDotenv."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadDotenv(f"{path.name} cannot be read ({type(error).__name__}): it should be UTF-8 text") from None
    settings = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if (meant := line.strip()) and not meant.startswith("#"):
            name, value = _setting(meant, f"{path.name}, line {number}")
            settings[name] = value
    return settings


def _setting(line: str, where: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadDotenv(f"{where}: this should read NAME=value")
    return found["name"], _value(found["value"], f"{where} ({found['name']})")


def _value(text: str, where: str) -> str:
    if text[:1] not in {"'", '"'}:
        return re.sub(r"(^|\s)#.*", "", text).strip()
    quoted = (_SINGLE if text[0] == "'" else _DOUBLE).fullmatch(text)
    if quoted is None:
        raise BadDotenv(f"{where}: a quote is opened and not closed at the end of the line")
    return quoted["text"] if text[0] == "'" else _ESCAPED.sub(r"\1", quoted["text"])
