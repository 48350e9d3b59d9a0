"""Operations that several rules share: each runs on the real store and on the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

from shared.db.refresh.claims import ClaimBatch
from shared.db.refresh.leases import ClaimedConnection, RefreshResult
from shared.domain.connection import EventName
from shared.domain.grant import Install
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.provider import Condition
from shared.domain.schedule import Schedule
from shared.workflows.store_install import store_install
from tests.model.answers import Answer, ErrorAnswer, GrantAnswer, Rotation, ScriptedHubSpot
from tests.model.brake_model import BrakeModel
from tests.model.connection_model import ConnectionModel
from tests.model.connection_state import ModelLease
from tests.model.time_range import TimeRange
from tests.model.world import APPS, CALL_SECONDS, ClaimedRow, ModelDatabase, age_attempt
from worker.refresh.refresher import RefreshAttempt

T = TypeVar("T")

#: One hub in two apps, and two of its users in the second.
CONNECTIONS = (
    ConnectionIdentity(DEFAULT_APP, 62515),
    ConnectionIdentity("seats", 62515, 7),
    ConnectionIdentity("seats", 62515, 8),
)
#: No rule takes so long. Time is advanced past what would end within it, so that the expected result is certain.
MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class ClaimInFlight:
    """A claim whose result is not saved yet."""

    row: ClaimedRow
    lease: ModelLease

    @property
    def identity(self) -> int:
        return self.lease.identity


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredClaim:
    """An answer that a worker got when model time had `advanced` so far, and has not saved."""

    flight: ClaimInFlight
    answer: Answer
    attempt: RefreshAttempt
    hubspot: ScriptedHubSpot
    asked: TimeRange
    advanced: timedelta


class Operations:
    def __init__(self, database: ModelDatabase) -> None:
        self.world = database.make_world()
        self.brakes = {app: BrakeModel() for app in APPS}
        self.notifications: list[tuple[ConnectionIdentity, EventName]] = []
        self.models = {
            identity: ConnectionModel(identity, self.notifications, self.brakes[identity.app])
            for identity in CONNECTIONS
        }
        self._critical_times: list[TimeRange] = []
        self._number = 0

    def next_name(self, prefix: str) -> str:
        return f"{prefix}-{self.next_number()}"

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def time_call(self, call: Callable[[], T]) -> tuple[T, TimeRange]:
        """The result of the call, and when it ran."""
        before = self.world.now()
        value = call()
        return value, TimeRange(before, self.world.read_clock())

    def advance(self, seconds: float) -> None:
        """Advance time, and past anything that would end during the next operation."""
        self.world.read_clock()
        self.world.advance(seconds)
        while (wait := self._seconds_past_critical_times()) is not None:
            self.world.advance(wait)

    # --- installs ---

    def make_install(
        self,
        identity: ConnectionIdentity,
        age_seconds: float,
        life: int,
        scopes: tuple[str, ...] = ("oauth", "contacts"),
    ) -> Install:
        granted_at = self.world.now() - timedelta(seconds=age_seconds)
        self._critical_times += [TimeRange.at_instant(granted_at), TimeRange.at_instant(granted_at).plus(life)]
        return Install(
            str(uuid4()),
            identity.hub_id,
            granted_at,
            self.next_name("refresh"),
            self.next_name("access"),
            life,
            scopes,
            app=identity.app,
            user_id=identity.user_id,
        )

    def deliver(self, install: Install) -> None:
        world = self.world
        encrypted = world.cipher.encrypt_install(
            replace(install, granted_at=world.to_database_time(install.granted_at))
        )
        stored, at = self.time_call(
            lambda: store_install(encrypted, world.cipher, world.stores.installs, Schedule(), {})[1]
        )
        assert stored.outcome is self.models[install.identity].apply_install(install, at)

    # --- the refresh loop ---

    def claim(self, limit: int) -> list[ClaimInFlight]:
        """Up to `limit` of each app."""
        flights = []
        for app in APPS:
            claims, at = self.time_call(lambda app=app: self.world.stores_by_app[app].claims.claim(limit))  # type: ignore[misc]
            self._check_claims(app, claims, limit, at)
            flights += [self._record_claim(claimed, at) for claimed in claims.rows]
        return flights

    def wait_for(self, identity: ConnectionIdentity) -> None:
        """Advance until it can be claimed, where it is due at all."""
        claimable_at = self.models[identity].claimable_at()
        if claimable_at is not None:
            self.advance(max(0.0, (claimable_at - self.world.now()).total_seconds() + 0.001))

    def answer(self, flight: ClaimInFlight, answer: Answer) -> AnsweredClaim:
        """The worker asks HubSpot now, unless its lease would end before the call."""
        has_time_for_call = flight.lease.until.plus(-CALL_SECONDS).earliest > self.world.now()
        (attempt, hubspot), asked = self.time_call(lambda: flight.row.attempt(self.world, answer, self.next_number()))
        assert (attempt.result is not None) is (hubspot.asked_at is not None) is has_time_for_call
        if hubspot.asked_at is not None:
            asked_at = self.world.to_model_time(hubspot.asked_at)
            assert asked_at <= asked.latest, "the worker's clock is not ahead of PostgreSQL's"
            asked = TimeRange(asked_at, asked.latest)
        if hubspot.granted is not None:
            self._critical_times.append(TimeRange.at_instant(asked.earliest).plus(hubspot.granted.expires_in))
        return AnsweredClaim(flight, answer, attempt, hubspot, asked, self.world.advanced)

    def save(self, answered: Sequence[AnsweredClaim]) -> None:
        """As each app's loop does: save the results, release what was not called, record HubSpot's state."""
        for app in APPS:
            self._save(app, [each for each in answered if each.flight.identity.app == app])

    def _save(self, app: str, answered: Sequence[AnsweredClaim]) -> None:
        stores = self.world.stores_by_app[app]
        attempts = [self.age_attempt(each) for each in answered]
        outcomes = [outcome for attempt in attempts for outcome in attempt.outcomes]
        results = [attempt.result for attempt in attempts if attempt.result]
        outcome, at = self.time_call(lambda: stores.results.save(results))
        saved, rescued = self._apply_results([each for each in answered if each.attempt.result], at)
        assert outcome.saved == {self.world.id_of(identity) for identity in saved}
        assert outcome.rescued == {self.world.id_of(identity) for identity in rescued}
        for each in answered:
            if each.attempt.result is None:
                self.release(each.flight)
        self.watch_recovery(app, lambda: stores.provider.record_outcomes(outcomes))

    def age_attempt(self, answered: AnsweredClaim) -> RefreshAttempt:
        return age_attempt(answered.attempt, self.world.advanced - answered.advanced)

    def save_again(self, answered: AnsweredClaim) -> frozenset[int]:
        """The connections that the second save changed."""
        result: RefreshResult | None = self.age_attempt(answered).result
        if result is None:
            return frozenset()
        outcome = self.world.stores_by_app[answered.flight.identity.app].results.save([result])
        return outcome.saved | outcome.rescued

    def release(self, flight: ClaimInFlight) -> None:
        self.world.stores.claims.release([flight.row.claimed.lease])
        self.models[flight.identity].release(flight.lease)

    # --- HubSpot as a whole ---

    def watch_recovery(self, app: str, operation: Callable[[], object]) -> None:
        """Where HubSpot's state becomes ok, postponed refreshes of the app become due."""
        provider = self.world.stores_by_app[app].provider
        before = provider.read()
        _, at = self.time_call(operation)
        after = provider.read()
        if before.condition is not Condition.OK and after.condition is Condition.OK:
            self.make_postponed_due(app, at)

    def sweep(self) -> None:
        for app in APPS:
            provider = self.world.stores_by_app[app].provider
            begun = provider.begin_sweep(2.0)
            if begun is not None and begun.has_postponed:
                _, at = self.time_call(provider.make_postponed_due)
                self.make_postponed_due(app, at)

    def make_postponed_due(self, app: str, at: TimeRange) -> None:
        for model in self.models_of(app):
            model.make_postponed_due(at)

    def models_of(self, app: str) -> list[ConnectionModel]:
        """In the order of their keys, in which statements change them."""
        models = [model for identity, model in self.models.items() if identity.app == app]
        return sorted(models, key=lambda model: self.world.id_of(model.identity))

    # --- helpers ---

    def _seconds_past_critical_times(self) -> float | None:
        now = self.world.now()
        ends = [
            *self._critical_times,
            *(end for brake in self.brakes.values() for end in brake.list_end_times()),
            *(end for model in self.models.values() for end in model.list_end_times()),
        ]
        soon = [end.latest for end in ends if now < end.latest <= now + timedelta(seconds=MARGIN_SECONDS)]
        return (max(soon) - now).total_seconds() + 0.001 if soon else None

    def _record_claim(self, claimed: ClaimedConnection, at: TimeRange) -> ClaimInFlight:
        lease = self.models[claimed.connection.identity].take_lease(at)
        self._critical_times += [lease.until, lease.until.plus(-CALL_SECONDS)]
        return ClaimInFlight(ClaimedRow(claimed, self.world.advanced), lease)

    def _check_claims(self, app: str, claims: ClaimBatch, limit: int, at: TimeRange) -> None:
        """No row twice and no leased row; and no due row is left, unless a rate limits the claims."""
        claimed_now = [claimed.connection.identity for claimed in claims.rows]
        assert len(claimed_now) == len(set(claimed_now)) <= limit
        free = [model for model in self.models_of(app) if model.due and not model.is_leased(at)]
        assert set(claimed_now) <= {model.identity for model in free if model.due and model.due.earliest <= at.latest}
        due = [model.due for model in free if model.due and model.due.latest <= at.earliest]
        if _is_unlimited(claims):
            assert len(claimed_now) >= min(limit, len(due))
            soonest = min((due_at.latest for due_at in due), default=at.latest)
            assert limit > 1 or all(
                model.due.earliest <= soonest for model in free if model.due and model.identity in claimed_now
            )

    def _apply_results(
        self, answered: Sequence[AnsweredClaim], at: TimeRange
    ) -> tuple[set[ConnectionIdentity], set[ConnectionIdentity]]:
        """Apply one save to the models: whose result is saved, and whose refresh token is rescued."""
        by_lease = sorted(answered, key=_lease_number)
        newest = {each.flight.identity: each for each in by_lease}
        older = [each for each in by_lease if each is not newest[each.flight.identity]]
        saved, rescued, late = set[ConnectionIdentity](), set[ConnectionIdentity](), list[AnsweredClaim]()
        # 1. An older result of the same connection is not saved; its new refresh token is.
        for each in older:
            if self._apply_rescued(each, at):
                rescued.add(each.flight.identity)
        # 2. The newest result is saved, unless the row changed after the claim.
        for each in sorted(newest.values(), key=_revocations_last):
            if self._apply_saved(each, at):
                saved.add(each.flight.identity)
            else:
                late.append(each)
        # 3. What came too late is handled as an older result.
        for each in late:
            if self._apply_rescued(each, at):
                rescued.add(each.flight.identity)
        return saved, rescued

    def _apply_saved(self, answered: AnsweredClaim, at: TimeRange) -> bool:
        model, answer = self.models[answered.flight.identity], answered.answer
        if isinstance(answer, ErrorAnswer):
            return model.apply_error(answered.flight.lease, answer, answered.asked, at)
        assert isinstance(answer, GrantAnswer)
        assert answered.hubspot.granted is not None
        return model.apply_refresh(answered.flight.lease, answered.hubspot.granted, answered.asked.earliest, at)

    def _apply_rescued(self, answered: AnsweredClaim, at: TimeRange) -> bool:
        answer, granted = answered.answer, answered.hubspot.granted
        if granted is None or not isinstance(answer, GrantAnswer) or answer.rotation is not Rotation.NEW:
            return False
        model, lease = self.models[answered.flight.identity], answered.flight.lease
        return model.apply_late_refresh(lease, granted, answered.asked.earliest, at)


def _is_unlimited(claims: ClaimBatch) -> bool:
    provider = claims.provider
    return provider.rate is None and (provider.paused_until is None or provider.paused_until <= claims.now)


def _lease_number(answered: AnsweredClaim) -> int:
    return answered.flight.lease.number


def _revocations_last(answered: AnsweredClaim) -> tuple[bool, int]:
    """The order in which a save processes results, and so the order in which the brake counts them."""
    return isinstance(
        answered.answer, ErrorAnswer
    ) and answered.answer.is_revocation, answered.attempt.lease.connection_id
