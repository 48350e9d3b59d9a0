"""When a refresh is due by the contract's words, once HubSpot has granted something, and once it has not. Pure."""

from __future__ import annotations

from tests.model.spans import Span

REFRESH_FROM, REFRESH_UNTIL = 0.6, 0.75
FIRST_WAIT, LONGEST_WAIT = 5.0, 900.0


def scheduled(granted: Span, life: float) -> Span:
    return granted.plus(life * REFRESH_FROM, life * REFRESH_UNTIL)


def retried(at: Span, failures: int, life: float | None, retry_after: float) -> Span:
    """5 s, 10 s, 20 s … 15 min, a fifth up or down; faster where the token lives shortly."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (failures - 1))
    least, most = wait * 0.8, min(LONGEST_WAIT, wait * 1.2)
    if life is not None and life < 2 * LONGEST_WAIT:
        least, most = 0.0, min(most, life / 4 if failures == 1 else life / 2)
    return at.plus(max(least, retry_after), max(most, retry_after))
