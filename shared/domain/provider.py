"""How HubSpot as a whole is doing, judged from what it answered, and how fast we may go on asking.

It is judged by first attempts on different connections: a few accounts that keep failing neither stop the
others nor hide among them. Any success proves that HubSpot answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    Throttled,
    UnknownRefusal,
)

#: First attempts in a row, each on another connection, that must fail before HubSpot counts as unwell.
FAILURES_BEFORE_OUTAGE = 5
#: Refreshes a second, all workers together, while HubSpot does not answer or refuses our app: six a minute.
PROBE_RATE = 0.1
#: The ramp after a fault, doubled at each sweep: its first step, and where it ends (refreshes a second).
RAMP_START_RATE, RAMP_END_RATE = 10.0, 1000.0
#: Seconds that everybody waits after a 429 that does not say for how long.
DEFAULT_PAUSE_SECONDS = 10.0


class Condition(StrEnum):
    OK = "ok"
    #: no answers, or none that make sense
    UNAVAILABLE = "unavailable"
    #: HubSpot asked everybody to wait
    THROTTLED = "throttled"
    #: HubSpot refuses our client id, our secret or our way of asking
    APP_REJECTED = "app_rejected"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """One answered call."""

    is_first_attempt: bool  #: the connection had not failed before it
    error: ProviderError | None = None  #: None for a success
    is_repeat: bool = False  #: the connection's last attempt had ended the same way


@dataclass(frozen=True, slots=True)
class Provider:
    condition: Condition = Condition.OK
    since: datetime | None = None  #: when `condition` began
    reason: str | None = None
    consecutive_no_answer: int = 0  #: first attempts in a row that HubSpot did not answer
    consecutive_unknown: int = (
        0  #: first attempts in a row that HubSpot consecutive_unknown in words that we do not know
    )
    paused_until: datetime | None = None
    rate: float | None = None  #: refreshes a second that all workers together may begin; None: as fast as they can

    @property
    def is_healthy(self) -> bool:
        """Nothing to watch: a batch of successes changes nothing."""
        return self == Provider(since=self.since)


def apply_outcomes(provider: Provider, outcomes: Iterable[CallOutcome], now: datetime) -> Provider:
    """The provider's state after some more answers, in the order in which they came."""
    for outcome in outcomes:
        provider = _after(provider, outcome, now)
    return provider


def start_sweep(provider: Provider, now: datetime) -> Provider:
    """The state at the start of a sweep: a pause that is over becomes a ramp, a ramp climbs."""
    if provider.condition is Condition.THROTTLED and provider.paused_until and provider.paused_until <= now:
        return _back(now)
    if provider.condition is Condition.OK and provider.rate is not None:
        faster = provider.rate * 2
        return replace(provider, rate=faster if faster <= RAMP_END_RATE else None)
    return provider


def rate_limit(provider: Provider, cap: float) -> float | None:
    """Refreshes a second that may begin now; `cap` is the setting (0: none). None: no limit."""
    rates = [rate for rate in (provider.rate, cap or None) if rate is not None]
    return min(rates) if rates else None


def _after(provider: Provider, outcome: CallOutcome, now: datetime) -> Provider:
    error = outcome.error
    if error is None:
        return _succeeded(provider, now)
    if isinstance(error, Throttled):
        return _paused(provider, error, now)
    if isinstance(error, InvalidClient):
        # Asked again with others succeeding meanwhile: one account's odd answer must not stop them twice.
        old_news = outcome.is_repeat and provider.condition is Condition.OK
        return provider if old_news else _turned(provider, Condition.APP_REJECTED, str(error), now)
    if isinstance(error, InvalidGrant):
        return _answered(provider, now)
    if not outcome.is_first_attempt or isinstance(error, AccountMigrating):
        return provider
    return _missed(provider, error, now)


def _answered(provider: Provider, now: datetime) -> Provider:
    """HubSpot looked at a token and called it dead: so it is up.

    That is no proof that our app is right: under a foreign client id every token is called bad.
    """
    return _back(now) if provider.condition is Condition.UNAVAILABLE else replace(provider, consecutive_no_answer=0)


def _succeeded(provider: Provider, now: datetime) -> Provider:
    if provider.condition is Condition.THROTTLED:
        return replace(
            provider, consecutive_no_answer=0, consecutive_unknown=0
        )  # in flight since before the pause: the pause stands
    if provider.condition is not Condition.OK:
        return _back_or_paused(provider, now)
    return (
        replace(provider, consecutive_no_answer=0, consecutive_unknown=0)
        if provider.consecutive_no_answer or provider.consecutive_unknown
        else provider
    )


def _back_or_paused(provider: Provider, now: datetime) -> Provider:
    """HubSpot answers again. A pause that it asked for meanwhile is still to be kept."""
    if provider.paused_until is None or provider.paused_until <= now:
        return _back(now)
    return replace(
        _turned(provider, Condition.THROTTLED, "throttled", now), consecutive_no_answer=0, consecutive_unknown=0
    )


def _paused(provider: Provider, error: Throttled, now: datetime) -> Provider:
    pause = error.retry_after if error.retry_after is not None else DEFAULT_PAUSE_SECONDS
    until = max(filter(None, (provider.paused_until, now + timedelta(seconds=pause))))
    if provider.condition is Condition.APP_REJECTED:
        return replace(provider, paused_until=until)
    return replace(_turned(provider, Condition.THROTTLED, str(error), now), paused_until=until)


def _missed(provider: Provider, error: ProviderError, now: datetime) -> Provider:
    unknown = isinstance(error, UnknownRefusal)
    missed = replace(
        provider,
        consecutive_no_answer=provider.consecutive_no_answer + (not unknown),
        consecutive_unknown=provider.consecutive_unknown + unknown,
    )
    if provider.condition is not Condition.OK:
        return missed
    if missed.consecutive_unknown >= FAILURES_BEFORE_OUTAGE:
        return _turned(missed, Condition.APP_REJECTED, str(error), now)
    return (
        _turned(missed, Condition.UNAVAILABLE, str(error), now)
        if missed.consecutive_no_answer >= FAILURES_BEFORE_OUTAGE
        else missed
    )


def _turned(provider: Provider, condition: Condition, reason: str, now: datetime) -> Provider:
    if provider.condition is condition:
        return replace(provider, reason=reason)
    return replace(provider, condition=condition, since=now, reason=reason, rate=PROBE_RATE)


def _back(now: datetime) -> Provider:
    return Provider(since=now, rate=RAMP_START_RATE)
