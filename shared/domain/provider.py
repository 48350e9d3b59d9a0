"""The state of HubSpot as a whole, and the rate of refreshes that it allows: the rules.

`shared/db/refresh/provider.py` stores the state, and shares the rate among all workers.

First attempts on different connections decide: a few connections that keep failing neither stop the others nor hide
an outage. Any success proves that HubSpot answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from shared.domain.values import immutable

#: First attempts in a row, each on another connection, that must fail before the state changes.
FAILURES_BEFORE_OUTAGE = 5
#: Refreshes per second, all workers together, while HubSpot does not answer or refuses our app, and after a pause until
#: one works: six a minute.
PROBES_PER_SECOND = 0.1
#: Refreshes per second at the start of the ramp that follows an outage, and where it ends. Each sweep doubles them.
RAMP_START_PER_SECOND, RAMP_END_PER_SECOND = 10.0, 1000.0
#: The pause of all refreshes after a 429 without a Retry-After, and the bounds of one with it. What is left of a longer
#: Retry-After, which can be a day, the connection that got it waits alone.
DEFAULT_PAUSE_SECONDS, MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 10.0, 1.0, 300.0


class Condition(StrEnum):
    OK = "ok"
    #: no answers, or none that make sense
    UNAVAILABLE = "unavailable"
    #: HubSpot answered 429: a pause, then probes until a refresh works
    THROTTLED = "throttled"
    #: HubSpot refuses our client id, our secret or the form of our requests
    APP_REJECTED = "app_rejected"


@dataclass(frozen=True, slots=True)
class Description:
    """A condition in words for operators, the same in alerts, on pages and in the command."""

    summary: str  #: without a full stop, so that a reason in brackets can follow
    next_steps: str  #: what happens by itself, or what the operator has to do

    def __str__(self) -> str:
        return f"{self.summary}. {self.next_steps}"


DESCRIPTIONS: Mapping[Condition, Description] = {
    Condition.OK: Description("HubSpot answers", "Refreshes run on schedule."),
    Condition.UNAVAILABLE: Description(
        "HubSpot does not answer",
        "Tokens are served until they expire. Six calls a minute test whether HubSpot answers; refreshes resume by "
        "themselves once it does.",
    ),
    Condition.THROTTLED: Description(
        "HubSpot is limiting our requests",
        "Tokens are served until they expire. Refreshes pause for as long as HubSpot asked, for five minutes at most; "
        "then six calls a minute test whether one works, and refreshes resume by themselves once it does. To end the "
        "pause now: tokenkeeper resume.",
    ),
    Condition.APP_REJECTED: Description(
        "HubSpot does not accept our app",
        "No connection is lost. Correct HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET (for BAD_SCOPES HUBSPOT_SCOPES, "
        "and the scopes in the app's settings at HubSpot), then restart web and worker.",
    ),
}


@immutable
class CallOutcome:
    """The result of one call for one connection."""

    is_first_attempt: bool  #: the connection's last attempt did not fail
    error: ProviderError | None = None  #: None for a success
    is_repeat: bool = False  #: the connection's last attempt failed with the same error


@dataclass(frozen=True, slots=True)
class Provider:
    condition: Condition = Condition.OK
    since: datetime | None = None  #: when `condition` began
    reason: str | None = None
    consecutive_no_answer: int = 0  #: first attempts in a row without an answer
    consecutive_unknown: int = 0  #: first attempts in a row with a refusal that is in no table
    paused_until: datetime | None = None
    rate: float | None = None  #: refreshes per second that all workers together may start; None: no limit

    @property
    def is_healthy(self) -> bool:
        """True where a batch of successes would change nothing, so that it need not be recorded.

        False not only while HubSpot is unavailable: also during a ramp, and after one failure that counts.
        """
        return self == Provider(since=self.since)

    def is_paused(self, now: datetime) -> bool:
        """HubSpot asked for a pause, by a 429, and it is not over.

        A later end than any pause can have comes from a database clock that ran ahead: it is no pause.
        """
        return self.paused_until is not None and now < self.paused_until <= now + timedelta(seconds=MAX_PAUSE_SECONDS)


def apply_outcomes(provider: Provider, outcomes: Iterable[CallOutcome], now: datetime) -> Provider:
    """The state after these outcomes, in the order in which they came."""
    for outcome in outcomes:
        if outcome.error is None:
            provider = _apply_success(provider, now)
        else:
            provider = _apply_failure(provider, outcome, outcome.error, now)
    return provider


def start_sweep(provider: Provider) -> Provider:
    """The state at the start of a sweep: a ramp doubles its rate."""
    if provider.condition is Condition.OK and provider.rate is not None:
        doubled = provider.rate * 2
        return replace(provider, rate=doubled if doubled <= RAMP_END_PER_SECOND else None)
    return provider


def resume(provider: Provider, now: datetime) -> Provider:
    """An operator ends the pause, or the probes that follow it. Another fault stays: its probes go on."""
    if provider.condition is Condition.THROTTLED:
        return _start_ramp(now)
    return replace(provider, paused_until=None) if provider.is_paused(now) else provider


def rate_limit(provider: Provider, cap: float) -> float | None:
    """Refreshes per second that may start now; None: no limit. `cap` is MAX_REFRESHES_PER_SECOND (0: none)."""
    rates = [rate for rate in (provider.rate, cap or None) if rate is not None]
    return min(rates) if rates else None


def _apply_success(provider: Provider, now: datetime) -> Provider:
    is_paused = provider.is_paused(now)
    if provider.condition is not Condition.OK and not is_paused:
        return _start_ramp(now)
    if provider.condition is Condition.APP_REJECTED:
        # HubSpot accepts our app again, but the pause that it asked for is not over. UNAVAILABLE is never paused: a 429
        # is an answer, and makes the condition THROTTLED.
        provider = _change(provider, Condition.THROTTLED, "throttled", now)
    # A success during a pause was in flight before it, and does not end it.
    return replace(provider, consecutive_no_answer=0, consecutive_unknown=0)


def _apply_failure(provider: Provider, outcome: CallOutcome, error: ProviderError, now: datetime) -> Provider:
    condition = provider.condition
    if isinstance(error, Throttled):
        return _pause(provider, error, now)
    if isinstance(error, InvalidClient):
        # Where other connections succeed, one connection's repeated refusal must not stop them again.
        is_one_connection = outcome.is_repeat and condition is Condition.OK
        return provider if is_one_connection else _change(provider, Condition.APP_REJECTED, str(error), now)
    if isinstance(error, InvalidGrant):
        # HubSpot answers. That does not prove that our app is right: with a foreign client id no token is valid.
        is_over = condition in (Condition.UNAVAILABLE, Condition.THROTTLED) and not provider.is_paused(now)
        return _start_ramp(now) if is_over else replace(provider, consecutive_no_answer=0)
    if outcome.is_first_attempt and not isinstance(error, AccountMigrating):
        return _count_failure(provider, error, now)
    return provider


def _pause(provider: Provider, error: Throttled, now: datetime) -> Provider:
    """Of several pauses the one that ends last counts."""
    seconds = DEFAULT_PAUSE_SECONDS if error.retry_after is None else error.retry_after
    until = now + timedelta(seconds=min(max(MIN_PAUSE_SECONDS, seconds), MAX_PAUSE_SECONDS))
    if provider.paused_until is not None and provider.is_paused(now):
        until = max(until, provider.paused_until)
    provider = replace(provider, paused_until=until)
    is_rejected = provider.condition is Condition.APP_REJECTED
    return provider if is_rejected else _change(provider, Condition.THROTTLED, str(error), now)


def _count_failure(provider: Provider, error: ProviderError, now: datetime) -> Provider:
    if isinstance(error, UnknownRefusal):
        provider = replace(provider, consecutive_unknown=provider.consecutive_unknown + 1)
    else:
        provider = replace(provider, consecutive_no_answer=provider.consecutive_no_answer + 1)
    if provider.condition is Condition.OK and provider.consecutive_unknown >= FAILURES_BEFORE_OUTAGE:
        return _change(provider, Condition.APP_REJECTED, str(error), now)
    if provider.condition is Condition.OK and provider.consecutive_no_answer >= FAILURES_BEFORE_OUTAGE:
        return _change(provider, Condition.UNAVAILABLE, str(error), now)
    return provider


def _change(provider: Provider, condition: Condition, reason: str, now: datetime) -> Provider:
    if provider.condition is condition:
        return replace(provider, reason=reason)
    return replace(provider, condition=condition, since=now, reason=reason, rate=PROBES_PER_SECOND)


def _start_ramp(now: datetime) -> Provider:
    return Provider(since=now, rate=RAMP_START_PER_SECOND)
