"""When a refresh is due, and when a failed one is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from shared.domain.backoff import backoff_seconds

#: The first retry of a token with a long lifetime, and the longest wait between two tries. Retries never stop.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 5.0, 900.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A refresh falls due between two fractions of the token's lifetime, at another point for each connection."""

    refresh_from: float = 0.6
    refresh_until: float = 0.75

    def due_at(self, connection_id: int, granted_at: datetime, expires_in: float) -> datetime:
        """The same for the same connection and grant; spread over the range for different ones."""
        fraction = self.refresh_from + (self.refresh_until - self.refresh_from) * spread_fraction(
            connection_id, granted_at
        )
        return granted_at + timedelta(seconds=expires_in * fraction)


def retry_at(
    connection_id: int, failures: int, now: datetime, *, lifetime_seconds: float | None, retry_after: float | None
) -> datetime:
    """When to try again after `failures` (at least 1) attempts in a row, never before `retry_after` seconds.

    5 s, 10 s, 20 s, 40 s … 15 min, each up to a fifth more or less. For a token with a short `lifetime_seconds` the
    waits are shorter, so that several tries fit into what is left of it.
    """
    first, longest = FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS
    if lifetime_seconds is not None:
        first, longest = min(first, lifetime_seconds / 40), min(longest, lifetime_seconds / 2)
    wait = min(longest, backoff_seconds(failures, first, longest) * (0.8 + 0.4 * spread_fraction(connection_id, now)))
    return now + timedelta(seconds=max(wait, retry_after or 0.0))


def spread_fraction(connection_id: int, instant: datetime) -> float:
    """A number in [0, 1), uniform over connections and instants. A hash, not a random number: so it is testable."""
    digest = blake2b(f"{connection_id}@{instant.timestamp():.6f}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
