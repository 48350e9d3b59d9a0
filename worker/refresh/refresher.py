"""One refresh: decrypt, call HubSpot, classify the answer. Nothing is stored here, and no transaction is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from datetime import datetime, timedelta

import structlog

from shared import tracing
from shared.db.core.clock import DatabaseClock
from shared.db.refresh.leases import ClaimedConnection, Lease, RefreshResult
from shared.domain import connection as rules
from shared.domain.connection import Status
from shared.domain.errors import InvalidClient, InvalidGrant, NoAccessToken, ProviderError, WrongHub
from shared.domain.grant import Grant
from shared.domain.identity import ConnectionIdentity
from shared.domain.provider import CallOutcome
from shared.domain.refresh_counters import DECRYPTION_FAILED, classify_outcome
from shared.domain.schedule import Schedule
from shared.domain.values import immutable
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Steps
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)


@immutable
class RefreshAttempt:
    """What came of one claimed row. Without a `result` there is nothing to save, and the lease is to be released.

    That is so where HubSpot was not called because the lease was too short or the process stops, and after a bug.
    """

    lease: Lease
    result: RefreshResult | None = None
    outcomes: tuple[CallOutcome, ...] = ()  #: one per call to HubSpot, answered or not; the refresh comes first
    due_at: datetime | None = None  #: when the row was due


@immutable
class DecryptedConnection:
    """A claimed row with its refresh token in clear: only from the claim until its call has ended."""

    claimed: ClaimedConnection
    refresh_token: str = field(repr=False)
    failure: Exception | None = None  #: why it could not be decrypted: then there is no refresh token


class Refresher:
    """Refreshes claimed connections; no grant is revoked unless HubSpot's introspection rejects it too."""

    def __init__(
        self, hubspot: HubSpot, cipher: TokenCipher, clock: DatabaseClock, schedule: Schedule, timeout_seconds: float
    ) -> None:
        """`timeout_seconds`: the longest that one call to HubSpot can take."""
        self._hubspot = hubspot
        self._cipher = cipher
        self._clock = clock
        self._schedule = schedule
        self._timeout = timedelta(seconds=timeout_seconds)

    def decrypt(self, claimed: ClaimedConnection) -> DecryptedConnection:
        """Call it for all rows of a claim before the first of their calls: between replies it takes twice the CPU.

        Raises nothing: the refresh of this row handles a failure.
        """
        hub_id = claimed.connection.identity.hub_id
        try:
            refresh_token = self._cipher.decrypt_refresh_token(hub_id, claimed.encrypted_refresh_token)
        except Exception as error:  # noqa: BLE001  it must not cost the other rows of the claim
            return DecryptedConnection(claimed, "", error)
        return DecryptedConnection(claimed, refresh_token)

    def start(
        self,
        decrypted: DecryptedConnection,
        on_attempt: Callable[[RefreshAttempt], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Begin a refresh and return. `on_attempt` is called in the thread of calls, `on_error` after a bug."""
        self._hubspot.start(self.refresh_steps(decrypted), on_attempt, on_error)

    @tracing.trace_steps("refresh")
    def refresh_steps(self, decrypted: DecryptedConnection) -> Steps[RefreshAttempt]:
        """Never raises a ProviderError: whatever HubSpot answers becomes a result."""
        attempt = yield from self._refresh(decrypted)
        if tracing.is_recording():
            tracing.set_attributes(**decrypted.claimed.connection.identity.log_fields(), **_span_attributes(attempt))
        return attempt

    def _refresh(self, decrypted: DecryptedConnection) -> Steps[RefreshAttempt]:
        connection, lease = decrypted.claimed.connection, decrypted.claimed.lease
        identity, is_first = connection.identity, connection.failures == 0
        hub_id = identity.hub_id

        # 1. Does the lease outlast a call? Otherwise another worker could claim the row while HubSpot answers.
        started_at = self._clock.now()
        if not self._has_time_for_call(lease, started_at):
            return RefreshAttempt(lease)

        # 2. Without its refresh token HubSpot is not called.
        if decrypted.failure is not None:
            return _apply_decryption_failure(decrypted.claimed, decrypted.failure, started_at)
        refresh_token = decrypted.refresh_token

        # 3. Call HubSpot. What it issued for another account is not stored; of a refresh token only a new one is.
        #    NoAccessToken is a failure that may bring a new refresh token.
        error: ProviderError
        issued: Grant | NoAccessToken | None = None
        try:
            issued = yield from self._hubspot.refresh_steps(refresh_token, started_at)
        except NoAccessToken as reply:
            issued = error = reply
        except ProviderError as refusal:
            error = refusal
        if issued is not None and (owner := _find_other_owner(identity, issued)):
            issued, error = None, WrongHub(owner)
        encrypted = self._encrypt_rotated_token(hub_id, refresh_token, issued)
        if isinstance(issued, Grant):
            result = RefreshResult(lease, rules.apply_refresh(connection, issued, self._schedule), encrypted)
            return RefreshAttempt(lease, result, (CallOutcome(is_first),), connection.due_at)

        # 4. Classify the failure. The history has the first one of a streak; each one is only logged for debugging,
        #    except that HubSpot refuses our app, which the history of an account does not have.
        log_refusal = log.info if isinstance(error, InvalidClient) else log.debug
        log_refusal("HubSpot refused a refresh", **identity.log_fields(), **error.evidence())
        outcomes = [CallOutcome(is_first, error, is_repeat=connection.last_error == str(error))]
        now = self._clock.now()
        transition = rules.apply_failure(connection, error, now)

        # 5. HubSpot rejected the grant: introspection must confirm it, now or, where the lease is too short, next time.
        #    Not for WrongHub: the grant is valid, but another account's, and no answer would change the connection.
        is_suspect = transition.connection.status is Status.SUSPECT and not isinstance(error, WrongHub)
        if isinstance(error, InvalidGrant) and is_suspect and self._has_time_for_call(lease, now):
            try:
                answer = yield from self._hubspot.introspect_steps(refresh_token, "refresh_token")
            except ProviderError as refusal:
                log.debug("introspection did not answer", **identity.log_fields(), **refusal.evidence())
                outcomes.append(CallOutcome(is_first_attempt=False, error=refusal))
            else:
                transition = rules.apply_introspection(transition, error, answer)

        # 6. The result, for RefreshResults to save.
        result = RefreshResult(lease, transition, encrypted, started_at if encrypted else None)
        return RefreshAttempt(lease, result, tuple(outcomes), connection.due_at)

    def _encrypt_rotated_token(self, hub_id: int, old: str, issued: Grant | NoAccessToken | None) -> str | None:
        """None where HubSpot sent none, or the old one again."""
        new = None if issued is None else issued.refresh_token
        return None if new is None or new == old else self._cipher.encrypt_refresh_token(hub_id, new)

    def _has_time_for_call(self, lease: Lease, now: datetime) -> bool:
        return lease.until - now > self._timeout


def _apply_decryption_failure(claimed: ClaimedConnection, failure: Exception, now: datetime) -> RefreshAttempt:
    """Raises `failure` where it is a bug."""
    if not isinstance(failure, DecryptionError):
        raise failure
    connection, lease = claimed.connection, claimed.lease
    fields = connection.identity.log_fields()
    log.error("cannot decrypt a refresh token: is a key missing from TOKEN_KEYS?", **fields, why=str(failure))
    transition = rules.apply_decryption_failure(connection, now)
    return RefreshAttempt(lease, RefreshResult(lease, transition), due_at=connection.due_at)


def _find_other_owner(identity: ConnectionIdentity, issued: Grant | NoAccessToken) -> str | None:
    """None where the reply names no other account, and for a user-level app no other user, than the connection's."""
    if issued.hub_id not in (None, identity.hub_id):
        return "another_hub"
    user_id = issued.user_id if isinstance(issued, Grant) else None
    return "another_user" if identity.user_id is not None and user_id not in (None, identity.user_id) else None


def _span_attributes(attempt: RefreshAttempt) -> dict[str, str | int]:
    if attempt.result is None:
        return {"outcome": "not_called"}
    error = attempt.outcomes[0].error if attempt.outcomes else None
    evidence = error.evidence() if error else {}
    outcome = classify_outcome(error) if attempt.outcomes else DECRYPTION_FAILED
    return {**evidence, "outcome": outcome, "status": attempt.result.transition.connection.status.value}
