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
from shared.domain.provider import Condition, Provider
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
    """An answer that a worker has had since `passed`, and has not saved."""

    flight: ClaimInFlight
    answer: Answer
    attempt: RefreshAttempt
    hubspot: ScriptedHubSpot
    asked: TimeRange
    passed: timedelta


class Operations:
    def __init__(self, connections: ModelDatabase) -> None:
        self.world = connections.make_world()
        self.brake = BrakeModel()
        self.notifications: list[tuple[int, EventName]] = []
        self.models = {hub_id: ConnectionModel(hub_id, self.notifications, self.brake) for hub_id in HUBS}
        self._edges: list[TimeRange] = []
        self._number = 0

    def next_name(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}-{self._number}"

    def time_call(self, call: Callable[[], T]) -> tuple[T, TimeRange]:
        """The result of the call, and when it ran."""
        before = self.world.now()
        value = call()
        return value, TimeRange(before, self.world.now())

    def advance(self, seconds: float) -> None:
        """Advance time, and past anything that would end during the next operation."""
        self.world.advance(seconds)
        while (wait := self._seconds_until_no_edge()) is not None:
            self.world.advance(wait)

    # --- installs ---

    def make_install(
        self, hub_id: int, ago: float, life: int, scopes: tuple[str, ...] = ("oauth", "contacts")
    ) -> Install:
        granted_at = self.world.now() - timedelta(seconds=ago)
        self._edges += [TimeRange.at_instant(granted_at), TimeRange.at_instant(granted_at).plus(life)]
        return Install(
            str(uuid4()), hub_id, granted_at, self.next_name("refresh"), self.next_name("access"), life, scopes
        )

    def deliver(self, grant: Install) -> None:
        world = self.world
        encrypted = world.cipher.encrypt_install(replace(grant, granted_at=world.to_database_time(grant.granted_at)))
        added, at = self.time_call(lambda: store_install(encrypted, world.cipher, world.stores.installs, Schedule()))
        assert added.outcome is self.models[grant.hub_id].apply_install(grant, at)

    # --- the refresh loop ---

    def claim(self, limit: int) -> list[ClaimInFlight]:
        claims, at = self.time_call(lambda: self.world.stores.claims.claim(limit))
        self._check_claims(claims, limit, at)
        return [self._record_claim(claimed, at) for claimed in claims.rows]

    def wait_for(self, hub_id: int) -> None:
        """Advance until it can be claimed, where it is due at all."""
        when = self.models[hub_id].claimable_at()
        if when is not None:
            self.advance(max(0.0, (when - self.world.now()).total_seconds() + 0.001))

    def answer(self, flight: ClaimInFlight, answer: Answer) -> AnsweredClaim:
        """The worker asks HubSpot now, unless its lease would end before the call."""
        time_for_a_call = flight.lease.until.plus(-CALL_SECONDS).earliest > self.world.now()
        (attempt, hubspot), asked = self.time_call(
            lambda: flight.row.attempt(self.world, answer, int(self.next_name("")))
        )
        assert (attempt.result is not None) is (hubspot.asked_at is not None) is time_for_a_call
        if hubspot.asked_at is not None:
            begun = self.world.to_model_time(hubspot.asked_at)
            assert begun <= asked.latest, "our clock is never ahead of the server's"
            asked = TimeRange(begun, asked.latest)
        if hubspot.granted is not None:
            self._edges.append(TimeRange.at_instant(asked.earliest).plus(hubspot.granted.expires_in))
        return AnsweredClaim(flight, answer, attempt, hubspot, asked, self.world.passed)

    def save(self, done: Sequence[AnsweredClaim]) -> None:
        """As the loop does: record HubSpot's state, save the results, release what was not called."""
        attempts = [self.age_attempt(each) for each in done]
        self.watch_recovery(
            lambda: self.world.stores.provider.record_outcomes(
                each for attempt in attempts for each in attempt.outcomes
            )
        )
        results = [attempt.result for attempt in attempts if attempt.result]
        outcome, at = self.time_call(lambda: self.world.stores.results.save(results))
        called = sorted((each for each in done if each.attempt.result), key=_lease_number)
        newest = {each.flight.hub_id: each for each in called}.values()
        rescued = {each.flight.hub_id for each in called if each not in newest and self._is_rescued(each, at)}
        late = [each for each in sorted(newest, key=_revocations_last) if not self._is_saved(each, at)]
        rescued |= {each.flight.hub_id for each in late if self._is_rescued(each, at)}
        assert outcome.saved == {each.flight.hub_id for each in newest if each not in late}
        assert outcome.rescued == rescued
        for each in done:
            if each.attempt.result is None:
                self.release(each.flight)

    def age_attempt(self, done: AnsweredClaim) -> RefreshAttempt:
        return age_attempt(done.attempt, self.world.passed - done.passed)

    def save_again(self, done: AnsweredClaim) -> set[int]:
        """The hubs that it changed."""
        result: RefreshResult | None = self.age_attempt(done).result
        if result is None:
            return set()
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
        self.watch_recovery(lambda: self.world.stores.provider.begin_sweep(2.0))

    def make_postponed_due(self, at: TimeRange) -> None:
        for model in self.models.values():
            model.make_postponed_due(at)

    # --- helpers ---

    def _seconds_until_no_edge(self) -> float | None:
        now = self.world.now()
        ends = [
            *self._edges,
            *self.brake.list_end_times(),
            *(end for model in self.models.values() for end in model.list_end_times()),
        ]
        near = [end.latest for end in ends if now < end.latest <= now + timedelta(seconds=MARGIN_SECONDS)]
        return (max(near) - now).total_seconds() + 0.001 if near else None

    def _record_claim(self, claimed: ClaimedConnection, at: TimeRange) -> ClaimInFlight:
        lease = self.models[claimed.connection.hub_id].take_lease(at)
        self._edges += [lease.until, lease.until.plus(-CALL_SECONDS)]
        return ClaimInFlight(ClaimedRow(claimed, self.world.passed), lease)

    def _check_claims(self, claims: ClaimBatch, limit: int, at: TimeRange) -> None:
        """No row twice and no leased row; and no due row is left, unless a rate limits the claims."""
        hubs = [claimed.connection.hub_id for claimed in claims.rows]
        assert len(hubs) == len(set(hubs)) <= limit
        free = [model for model in self.models.values() if model.due and not model.is_leased(at)]
        assert set(hubs) <= {model.hub_id for model in free if model.due and model.due.earliest <= at.latest}
        due = [model.due for model in free if model.due and model.due.latest <= at.earliest]
        if _is_unlimited(claims.provider, claims):
            assert len(hubs) >= min(limit, len(due))
            soonest = min((when.latest for when in due), default=at.latest)
            assert limit > 1 or all(
                model.due.earliest <= soonest for model in free if model.due and model.hub_id in hubs
            )

    def _is_saved(self, done: AnsweredClaim, at: TimeRange) -> bool:
        model, answer = self.models[done.flight.hub_id], done.answer
        if isinstance(answer, ErrorAnswer):
            return model.apply_error(done.flight.lease, answer, done.asked, at)
        assert isinstance(answer, GrantAnswer)
        assert done.hubspot.granted is not None
        return model.apply_refresh(done.flight.lease, done.hubspot.granted, done.asked.earliest, at)

    def _is_rescued(self, done: AnsweredClaim, at: TimeRange) -> bool:
        granted = done.hubspot.granted
        if granted is None or not isinstance(done.answer, GrantAnswer) or done.answer.rotation is not Rotation.NEW:
            return False
        return self.models[done.flight.hub_id].apply_late_refresh(done.flight.lease, granted, done.asked.earliest, at)


def _is_unlimited(provider: Provider, claims: ClaimBatch) -> bool:
    return provider.rate is None and (provider.paused_until is None or provider.paused_until <= claims.now)


def _lease_number(done: AnsweredClaim) -> int:
    return done.flight.lease.number


def _revocations_last(done: AnsweredClaim) -> tuple[bool, int]:
    """The order in which a save processes results, and so the order in which the brake counts them."""
    return isinstance(done.answer, ErrorAnswer) and done.answer.is_revocation, done.flight.hub_id
