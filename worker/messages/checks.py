"""Checks of single values in a message, for the tables of worker/messages/validation.py. No check raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

Check = Callable[[Any], bool]


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_bool(value: object) -> bool:
    return isinstance(value, bool)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False


def is_empty(value: object) -> bool:
    return not value


def is_delivery_info(value: object) -> bool:
    return isinstance(value, dict) and is_text(value.get("exchange")) and is_text(value.get("routing_key"))


def is_one_of(*allowed: object) -> Check:
    return lambda value: value in allowed


def is_none_or(check: Check) -> Check:
    return lambda value: value is None or check(value)
