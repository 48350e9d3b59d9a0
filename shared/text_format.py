"""How times, and what others wrote, are told to people: on the pages and by the command. Pure."""

from __future__ import annotations

from datetime import datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400
UNITS = (("d", DAY, "h", HOUR), ("h", HOUR, "min", MINUTE), ("min", MINUTE, "s", 1))


def make_printable(text: str) -> str:
    """What others wrote, on one line, without the characters that move a cursor or turn the direction of writing."""
    return "".join(character if character.isprintable() else "?" for character in text)


def format_ago(then: datetime, now: datetime) -> str:
    """`3 min ago`, `in 12 s`."""
    seconds = (now - then).total_seconds()
    return f"{format_duration(seconds)} ago" if seconds >= 0 else f"in {format_duration(-seconds)}"


def format_duration(seconds: float) -> str:
    """Seconds in the two units that matter: `45 s`, `7 min 30 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = int(seconds)
    for unit, size, smaller, smaller_size in UNITS:
        if whole >= size:
            many, rest = divmod(whole, size)
            return f"{many} {unit} {rest // smaller_size} {smaller}" if rest >= smaller_size else f"{many} {unit}"
    return f"{whole} s"
