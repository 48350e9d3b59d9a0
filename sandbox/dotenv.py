"""Reads a .env file as docker compose does, except for interpolation: `$` has no meaning here."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE_QUOTED = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE_QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPE = re.compile(r'\\([\\"$])')


class DotenvError(Exception):
    """The file cannot be read; the message names the line, and never shows its content."""


def read_dotenv(path: Path) -> dict[str, str]:
    """The settings of the file; empty where there is no such file. Raises DotenvError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DotenvError(f"{path.name} cannot be read ({type(error).__name__}): it should be UTF-8 text") from None
    settings = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise DotenvError(f"{path.name}, line {number}: this should read NAME=value")
        settings[match["name"]] = _parse_value(match["value"], f"{path.name}, line {number} ({match['name']})")
    return settings


def _parse_value(text: str, position: str) -> str:
    if text[:1] not in {"'", '"'}:
        return re.sub(r"(^|\s)#.*", "", text).strip()
    match = (_SINGLE_QUOTED if text[0] == "'" else _DOUBLE_QUOTED).fullmatch(text)
    if match is None:
        raise DotenvError(f"{position}: a quote is opened and not closed at the end of the line")
    return match["text"] if text[0] == "'" else _ESCAPE.sub(r"\1", match["text"])
