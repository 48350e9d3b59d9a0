"""What a setting must look like: from its text to a value, or ValueError."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from shared.net.addresses import is_metadata_address
from shared.token_cipher import TokenCipher

#: Seconds.
LONGEST = 86_400.0
#: HubSpot's path versions that we speak, the default first.
API_VERSIONS = ("2026-09", "2026-03", "v3")
#: Schemes of brokers whose path is the number of a database.
NUMBERED = ("redis", "rediss", "sentinel")


def word(text: str) -> str:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError
    return text


def listed(text: str) -> tuple[str, ...]:
    items = tuple(word(item.strip()) for item in text.split(",") if item.strip())
    if not items:
        raise ValueError
    return items


def spaced(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word(item) for item in text.split()))


def url(schemes: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(word(text))
        parts.port  # noqa: B018  raises ValueError on a malformed one
        if "%00" in text or parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/") or parts.query):
            raise ValueError
        return text

    return parse


def broker(schemes: Collection[str]) -> Callable[[str], str]:
    """Several, with a semicolon between them, are Sentinels."""

    def parse(text: str) -> str:
        every = [urlsplit(url(schemes)(one)) for one in text.split(";")]
        for parts in every:
            number = parts.path.strip("/")
            if parts.scheme in NUMBERED and number and not (number.isascii() and number.isdigit()):
                raise ValueError
            if len(every) > 1 and parts.scheme != "sentinel":
                raise ValueError
        return text

    return parse


def webhook(text: str) -> str:
    """Where it leads is the operator's to say; but no alert goes to what tells a cloud's machine its passwords."""
    host = urlsplit(web(text)).hostname or ""
    if is_metadata_address(host):
        raise ValueError
    return web(text)


def web(text: str) -> str:
    parts = urlsplit(word(text))
    parts.port  # noqa: B018  raises ValueError on a malformed one
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError
    return text.rstrip("/")


def callback(text: str) -> str:
    """HubSpot's rules: https, or http on localhost; no fragment. Its path is where we answer."""
    parts = urlsplit(web(text))
    local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.fragment or parts.query or not (parts.scheme == "https" or local):
        raise ValueError
    if not parts.path.endswith("/oauth/callback"):
        raise ValueError
    return text


def version(text: str) -> str:
    if text not in API_VERSIONS:
        raise ValueError
    return text


def keys(text: str) -> tuple[str, ...]:
    found = listed(text)
    TokenCipher(found)
    return found


def at_least(length: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        text.encode()  # raises ValueError on bytes that were no UTF-8
        if len(text) < length:
            raise ValueError
        return text

    return parse


def number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def positive(text: str) -> float:
    if (value := number(text)) <= 0:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """Above a day, no clock, socket or interval is the better for it."""
    if (value := positive(text)) > LONGEST:
        raise ValueError
    return value


def not_negative(text: str) -> float:
    if (value := number(text)) < 0:
        raise ValueError
    return value


def fraction(text: str) -> float:
    if not 0 < (value := number(text)) < 1:
        raise ValueError
    return value


def count(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= (value := int(text)) <= most):
            raise ValueError
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return parse
