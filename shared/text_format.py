"""How times, durations and text from outside are shown to people, on pages and by the command. Pure."""

from __future__ import annotations

from datetime import datetime

MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS = 60, 3600, 86_400
#: A unit, its seconds, and the unit in which the rest is given, with its seconds.
UNITS = (
    ("d", DAY_SECONDS, "h", HOUR_SECONDS),
    ("h", HOUR_SECONDS, "min", MINUTE_SECONDS),
    ("min", MINUTE_SECONDS, "s", 1),
)


def make_printable(text: str) -> str:
    """One line without characters that move a cursor or change the direction of writing: each becomes `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)


def format_ago(then: datetime, now: datetime) -> str:
    """`3 min ago`, `in 12 s`. Between whole seconds, so that times of the same second get the same text."""
    seconds = (now.replace(microsecond=0) - then.replace(microsecond=0)).total_seconds()
    return f"{format_duration(seconds)} ago" if seconds >= 0 else f"in {format_duration(-seconds)}"


def format_duration(seconds: float) -> str:
    """In the two largest units: `45 s`, `7 min 30 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = int(seconds)
    for unit, unit_seconds, smaller, smaller_seconds in UNITS:
        if whole >= unit_seconds:
            count, rest = divmod(whole, unit_seconds)
            has_rest = rest >= smaller_seconds
            return f"{count} {unit} {rest // smaller_seconds} {smaller}" if has_rest else f"{count} {unit}"
    return f"{whole} s"
