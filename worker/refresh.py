"""One refresh: open, call, judge. Nothing is stored here, and no transaction waits for HubSpot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from shared import tracing
from shared.db.core.clock import DatabaseClock
from shared.db.refresh.claims import ClaimedConnection, Lease, RefreshResult
from shared.domain import connection as rules
from shared.domain.connection import Status
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, WrongHub
from shared.domain.grant import Grant, Introspection
from shared.domain.provider import CallOutcome
from shared.domain.refresh_counters import DECRYPTION_FAILED, classify_outcome
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one claimed row. Without a `result` it was not called, and its lease is handed back."""

    lease: Lease
    result: RefreshResult | None = None
    outcomes: tuple[CallOutcome, ...] = ()  #: the refresh's own is the first
    due_at: datetime | None = None  #: when it was due


class Refresher:
    """Asks HubSpot for one connection's next access token, and for a second opinion where it says that it is dead."""

    def __init__(
        self, hubspot: HubSpot, cipher: TokenCipher, clock: DatabaseClock, schedule: Schedule, call_seconds: float
    ) -> None:
        self._hubspot = hubspot
        self._vault = cipher
        self._clock = clock
        self._schedule = schedule
        self._call = timedelta(seconds=call_seconds)

    def attempt(self, claimed: ClaimedConnection) -> Attempt:
        """Never raises a ProviderError: whatever HubSpot does is a result."""
        with tracing.start_span("refresh", hub_id=claimed.connection.hub_id) as span:
            attempt = self._attempted(claimed)
            span.set_attributes(**_told(attempt))
        return attempt

    def _attempted(self, claimed: ClaimedConnection) -> Attempt:
        lease, hub_id = claimed.lease, claimed.connection.hub_id
        if not self._time_for_a_call(lease):
            return Attempt(lease)
        try:
            refresh_token = self._vault.decrypt_refresh_token(hub_id, claimed.encrypted_refresh_token)
        except DecryptionError as error:
            log.error(
                "cannot open a refresh token: is a key missing from TOKEN_KEYS?",
                hub_id=hub_id,
                why=str(error),
            )
            step = rules.after_decryption_failure(claimed.connection, self._clock.now())
            return Attempt(lease, RefreshResult(lease, step), due_at=claimed.connection.due_at)
        try:
            grant = self._granted(hub_id, refresh_token)
        except ProviderError as error:
            return self._refused(claimed, refresh_token, error)
        return self._succeeded(claimed, refresh_token, grant)

    def _granted(self, hub_id: int, refresh_token: str) -> Grant:
        grant = self._hubspot.refresh(refresh_token, self._clock.now)
        if grant.hub_id not in (None, hub_id):
            raise WrongHub("another_hub")
        return grant

    def _succeeded(self, claimed: ClaimedConnection, refresh_token: str, grant: Grant) -> Attempt:
        hub_id, new = claimed.connection.hub_id, grant.refresh_token
        sealed = None if new in (None, refresh_token) else self._vault.encrypt_refresh_token(hub_id, str(new))
        step = rules.after_refresh(claimed.connection, grant, self._schedule)
        result = RefreshResult(claimed.lease, step, sealed)
        return Attempt(claimed.lease, result, (_outcome(claimed, None),), claimed.connection.due_at)

    def _refused(self, claimed: ClaimedConnection, refresh_token: str, error: ProviderError) -> Attempt:
        # The history, and so the log, has the first of a streak, and nothing of what is no fault of the account's.
        say = log.info if isinstance(error, InvalidClient) else log.debug
        say("HubSpot refused a refresh", hub_id=claimed.connection.hub_id, **error.evidence())
        outcomes = [_outcome(claimed, error)]
        step = rules.after_failure(claimed.connection, error, self._clock.now())
        if isinstance(error, InvalidGrant) and step.connection.status is Status.SUSPECT:
            witness = self._second_witness(claimed.lease, refresh_token)
            if isinstance(witness, ProviderError):
                outcomes.append(CallOutcome(is_first_attempt=False, error=witness))
            if witness is not None:
                step = rules.after_introspection(step, error, witness)
        result = RefreshResult(claimed.lease, step)
        return Attempt(claimed.lease, result, tuple(outcomes), claimed.connection.due_at)

    def _second_witness(self, lease: Lease, refresh_token: str) -> Introspection | ProviderError | None:
        """None where the lease would not outlast the question: it stays suspect and is asked again."""
        if not self._time_for_a_call(lease):
            return None
        try:
            return self._hubspot.introspect(refresh_token, "refresh_token")
        except ProviderError as error:
            log.debug("the second witness did not answer", hub_id=lease.hub_id, **error.evidence())
            return error

    def _time_for_a_call(self, lease: Lease) -> bool:
        return lease.until - self._clock.now() > self._call


def _outcome(claimed: ClaimedConnection, error: ProviderError | None) -> CallOutcome:
    before = claimed.connection
    return CallOutcome(
        is_first_attempt=before.failures == 0,
        error=error,
        is_repeat=error is not None and before.last_error == str(error),
    )


def _told(attempt: Attempt) -> dict[str, str | int]:
    """What a span tells of it."""
    if attempt.result is None:
        return {"outcome": "not_called"}
    error = attempt.outcomes[0].error if attempt.outcomes else None
    evidence = error.evidence() if error else {}
    outcome = classify_outcome(error) if attempt.outcomes else DECRYPTION_FAILED
    return {**evidence, "outcome": outcome, "status": attempt.result.transition.connection.status.value}
