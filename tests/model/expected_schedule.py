"""When a refresh is due by the contract, after a grant and after a failure. Pure."""

from __future__ import annotations

from tests.model.time_range import TimeRange

REFRESH_FROM, REFRESH_UNTIL = 0.6, 0.75
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 5.0, 900.0


def expect_due(granted: TimeRange, life: float) -> TimeRange:
    return granted.plus(life * REFRESH_FROM, life * REFRESH_UNTIL)


def expect_retry(at: TimeRange, failures: int, life: float | None, retry_after: float) -> TimeRange:
    """5 s, 10 s, 20 s … 15 min, up to a fifth more or less; shorter where the token's lifetime is short."""
    wait = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
    least, most = wait * 0.8, min(MAX_RETRY_SECONDS, wait * 1.2)
    if life is not None and life < 2 * MAX_RETRY_SECONDS:
        least, most = 0.0, min(most, life / 4 if failures == 1 else life / 2)
    return at.plus(max(least, retry_after), max(most, retry_after))
