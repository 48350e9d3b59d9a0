"""Operations that several rules share: each runs on the real store and on the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

from shared.db.refresh.claims import ClaimBatch, ClaimedConnection, RefreshResult
from shared.domain.connection import EventName
from shared.domain.grant import Install
from shared.domain.provider import Condition
from shared.domain.schedule import Schedule
from shared.workflows.store_install import store_install
from tests.model.answers import Answer, ErrorAnswer, GrantAnswer, Rotation, ScriptedHubSpot
from tests.model.brake_model import BrakeModel
from tests.model.connection_model import ConnectionModel
from tests.model.connection_state import ModelLease
from tests.model.time_range import TimeRange
from tests.model.world import CALL_SECONDS, ClaimedRow, ModelDatabase, age_attempt
from worker.refresh import RefreshAttempt

T = TypeVar("T")

HUBS = (62515, 62516)
#: No rule takes so long. Time is advanced past what would end within it, so that the expected result is certain.
MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class ClaimInFlight:
    """A claim whose result is not saved yet."""

    row: ClaimedRow
    lease: ModelLease

    @property
    def hub_id(self) -> int:
        return self.lease.hub_id


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
        self.brake = BrakeModel()
        self.notifications: list[tuple[int, EventName]] = []
        self.models = {hub_id: ConnectionModel(hub_id, self.notifications, self.brake) for hub_id in HUBS}
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
        return value, TimeRange(before, self.world.now())

    def advance(self, seconds: float) -> None:
        """Advance time, and past anything that would end during the next operation."""
        self.world.advance(seconds)
        while (wait := self._seconds_past_critical_times()) is not None:
            self.world.advance(wait)

    # --- installs ---

    def make_install(
        self, hub_id: int, age_seconds: float, life: int, scopes: tuple[str, ...] = ("oauth", "contacts")
    ) -> Install:
        granted_at = self.world.now() - timedelta(seconds=age_seconds)
        self._critical_times += [TimeRange.at_instant(granted_at), TimeRange.at_instant(granted_at).plus(life)]
        return Install(
            str(uuid4()), hub_id, granted_at, self.next_name("refresh"), self.next_name("access"), life, scopes
        )

    def deliver(self, install: Install) -> None:
        world = self.world
        encrypted = world.cipher.encrypt_install(
            replace(install, granted_at=world.to_database_time(install.granted_at))
        )
        stored, at = self.time_call(
            lambda: store_install(encrypted, world.cipher, world.stores.installs, Schedule(), {})[1]
        )
        assert stored.outcome is self.models[install.hub_id].apply_install(install, at)

    # --- the refresh loop ---

    def claim(self, limit: int) -> list[ClaimInFlight]:
        claims, at = self.time_call(lambda: self.world.stores.claims.claim(limit))
        self._check_claims(claims, limit, at)
        return [self._record_claim(claimed, at) for claimed in claims.rows]

    def wait_for(self, hub_id: int) -> None:
        """Advance until it can be claimed, where it is due at all."""
        claimable_at = self.models[hub_id].claimable_at()
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
        """As the loop does: save the results, release what was not called, record HubSpot's state."""
        attempts = [self.age_attempt(each) for each in answered]
        outcomes = [outcome for attempt in attempts for outcome in attempt.outcomes]
        results = [attempt.result for attempt in attempts if attempt.result]
        outcome, at = self.time_call(lambda: self.world.stores.results.save(results))
        saved, rescued = self._apply_results([each for each in answered if each.attempt.result], at)
        assert outcome.saved == {self.world.id_of(hub_id) for hub_id in saved}
        assert outcome.rescued == {self.world.id_of(hub_id) for hub_id in rescued}
        for each in answered:
            if each.attempt.result is None:
                self.release(each.flight)
        self.watch_recovery(lambda: self.world.stores.provider.record_outcomes(outcomes))

    def age_attempt(self, answered: AnsweredClaim) -> RefreshAttempt:
        return age_attempt(answered.attempt, self.world.advanced - answered.advanced)

    def save_again(self, answered: AnsweredClaim) -> frozenset[int]:
        """The hubs that the second save changed."""
        result: RefreshResult | None = self.age_attempt(answered).result
        if result is None:
            return frozenset()
        outcome = self.world.stores.results.save([result])
        return outcome.saved | outcome.rescued

    def release(self, flight: ClaimInFlight) -> None:
        self.world.stores.claims.release([flight.row.claimed.lease])
        self.models[flight.hub_id].release(flight.lease)

    # --- HubSpot as a whole ---

    def watch_recovery(self, operation: Callable[[], object]) -> None:
        """Where HubSpot's state becomes ok, postponed refreshes become due."""
        before = self.world.stores.provider.read()
        _, at = self.time_call(operation)
        after = self.world.stores.provider.read()
        if before.condition is not Condition.OK and after.condition is Condition.OK:
            self.make_postponed_due(at)

    def sweep(self) -> None:
        begun = self.world.stores.provider.begin_sweep(2.0)
        if begun is not None and begun.has_postponed:
            _, at = self.time_call(self.world.stores.provider.make_postponed_due)
            self.make_postponed_due(at)

    def make_postponed_due(self, at: TimeRange) -> None:
        for model in self.models.values():
            model.make_postponed_due(at)

    # --- helpers ---

    def _seconds_past_critical_times(self) -> float | None:
        now = self.world.now()
        ends = [
            *self._critical_times,
            *self.brake.list_end_times(),
            *(end for model in self.models.values() for end in model.list_end_times()),
        ]
        soon = [end.latest for end in ends if now < end.latest <= now + timedelta(seconds=MARGIN_SECONDS)]
        return (max(soon) - now).total_seconds() + 0.001 if soon else None

    def _record_claim(self, claimed: ClaimedConnection, at: TimeRange) -> ClaimInFlight:
        lease = self.models[claimed.connection.identity.hub_id].take_lease(at)
        self._critical_times += [lease.until, lease.until.plus(-CALL_SECONDS)]
        return ClaimInFlight(ClaimedRow(claimed, self.world.advanced), lease)

    def _check_claims(self, claims: ClaimBatch, limit: int, at: TimeRange) -> None:
        """No row twice and no leased row; and no due row is left, unless a rate limits the claims."""
        hubs = [claimed.connection.identity.hub_id for claimed in claims.rows]
        assert len(hubs) == len(set(hubs)) <= limit
        free = [model for model in self.models.values() if model.due and not model.is_leased(at)]
        assert set(hubs) <= {model.hub_id for model in free if model.due and model.due.earliest <= at.latest}
        due = [model.due for model in free if model.due and model.due.latest <= at.earliest]
        if _is_unlimited(claims):
            assert len(hubs) >= min(limit, len(due))
            soonest = min((due_at.latest for due_at in due), default=at.latest)
            assert limit > 1 or all(
                model.due.earliest <= soonest for model in free if model.due and model.hub_id in hubs
            )

    def _apply_results(self, answered: Sequence[AnsweredClaim], at: TimeRange) -> tuple[set[int], set[int]]:
        """Apply one save to the models: the hubs whose result is saved, and those whose refresh token is rescued."""
        by_lease = sorted(answered, key=_lease_number)
        newest = {each.flight.hub_id: each for each in by_lease}
        older = [each for each in by_lease if each is not newest[each.flight.hub_id]]
        saved, rescued, late = set[int](), set[int](), list[AnsweredClaim]()
        # 1. An older result of the same connection is not saved; its new refresh token is.
        for each in older:
            if self._apply_rescued(each, at):
                rescued.add(each.flight.hub_id)
        # 2. The newest result is saved, unless the row changed after the claim.
        for each in sorted(newest.values(), key=_revocations_last):
            if self._apply_saved(each, at):
                saved.add(each.flight.hub_id)
            else:
                late.append(each)
        # 3. What came too late is handled as an older result.
        for each in late:
            if self._apply_rescued(each, at):
                rescued.add(each.flight.hub_id)
        return saved, rescued

    def _apply_saved(self, answered: AnsweredClaim, at: TimeRange) -> bool:
        model, answer = self.models[answered.flight.hub_id], answered.answer
        if isinstance(answer, ErrorAnswer):
            return model.apply_error(answered.flight.lease, answer, answered.asked, at)
        assert isinstance(answer, GrantAnswer)
        assert answered.hubspot.granted is not None
        return model.apply_refresh(answered.flight.lease, answered.hubspot.granted, answered.asked.earliest, at)

    def _apply_rescued(self, answered: AnsweredClaim, at: TimeRange) -> bool:
        answer, granted = answered.answer, answered.hubspot.granted
        if granted is None or not isinstance(answer, GrantAnswer) or answer.rotation is not Rotation.NEW:
            return False
        model, lease = self.models[answered.flight.hub_id], answered.flight.lease
        return model.apply_late_refresh(lease, granted, answered.asked.earliest, at)


def _is_unlimited(claims: ClaimBatch) -> bool:
    provider = claims.provider
    return provider.rate is None and (provider.paused_until is None or provider.paused_until <= claims.now)


def _lease_number(answered: AnsweredClaim) -> int:
    return answered.flight.lease.number


def _revocations_last(answered: AnsweredClaim) -> tuple[bool, int]:
    """The order in which a save processes results, and so the order in which the brake counts them."""
    return isinstance(answered.answer, ErrorAnswer) and answered.answer.is_revocation, answered.flight.hub_id
