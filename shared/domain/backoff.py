"""How long to wait after failures."""

from __future__ import annotations

#: Of a second, they make 34 years. A float overflows after a thousand.
_MAX_DOUBLINGS = 30


def backoff_seconds(attempts: int, first_seconds: float, max_seconds: float) -> float:
    """The wait after `attempts` (at least 1) that failed in a row: each is double the one before."""
    return min(max_seconds, first_seconds * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))
