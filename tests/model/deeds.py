"""Deeds that more than one rule is made of: each done to the real store and written down in the books."""

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
from tests.model.answers import Answer, Granted, PlayedHubSpot, Refused, Rotation
from tests.model.book import HubBook
from tests.model.brakes import BrakeBook
from tests.model.rig import CALL_SECONDS, Out, Town, aged
from tests.model.spans import Span
from tests.model.standing import Holding
from worker.refresh import RefreshAttempt

T = TypeVar("T")

HUBS = (62515, 62516)
#: No rule takes so many seconds: what would end in the midst of one ends before it, so that it is sure what is right.
MARGIN = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """A claim that is out."""

    out: Out
    holding: Holding

    @property
    def hub_id(self) -> int:
        return self.holding.hub_id


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a worker has in its hands since `passed`."""

    flight: Flight
    answer: Answer
    attempt: RefreshAttempt
    played: PlayedHubSpot
    asked: Span
    passed: timedelta


class Deeds:
    def __init__(self, connections: Town) -> None:
        self.world = connections.started()
        self.brake = BrakeBook()
        self.told: list[tuple[int, EventName]] = []
        self.books = {hub_id: HubBook(hub_id, self.told, self.brake) for hub_id in HUBS}
        self._edges: list[Span] = []
        self._number = 0

    def next(self, what: str) -> str:
        self._number += 1
        return f"{what}-{self._number}"

    def timed(self, call: Callable[[], T]) -> tuple[T, Span]:
        """What the call returns, and when it was."""
        before = self.world.now()
        value = call()
        return value, Span(before, self.world.now())

    def passes(self, seconds: float) -> None:
        """And a little more, where something would end in the midst of what comes next."""
        self.world.passes(seconds)
        while (wait := self._until_nothing_ends()) is not None:
            self.world.passes(wait)

    # --- installs ---

    def granted(self, hub_id: int, ago: float, life: int, scopes: tuple[str, ...] = ("oauth", "contacts")) -> Install:
        granted_at = self.world.now() - timedelta(seconds=ago)
        self._edges += [Span.exactly(granted_at), Span.exactly(granted_at).plus(life)]
        return Install(str(uuid4()), hub_id, granted_at, self.next("refresh"), self.next("access"), life, scopes)

    def deliver(self, grant: Install) -> None:
        world = self.world
        sealed = world.cipher.encrypt_install(replace(grant, granted_at=world.stored(grant.granted_at)))
        added, at = self.timed(lambda: store_install(sealed, world.cipher, world.stores.installs, Schedule()))
        assert added.outcome is self.books[grant.hub_id].installed(grant, at)

    # --- the refresh loop ---

    def claim(self, limit: int) -> list[Flight]:
        claims, at = self.timed(lambda: self.world.stores.claims.claim(limit))
        self._check_claims(claims, limit, at)
        return [self._flight(claimed, at) for claimed in claims.rows]

    def wait_for(self, hub_id: int) -> None:
        """Until it may be claimed, where it is due at all."""
        when = self.books[hub_id].ready()
        if when is not None:
            self.passes(max(0.0, (when - self.world.now()).total_seconds() + 0.001))

    def answer(self, flight: Flight, answer: Answer) -> Answered:
        """The worker asks HubSpot now. Where the lease would not outlast the call it does not."""
        time_for_a_call = flight.holding.until.plus(-CALL_SECONDS).earliest > self.world.now()
        (attempt, played), asked = self.timed(lambda: flight.out.attempt(self.world, answer, int(self.next(""))))
        assert (attempt.result is not None) is (played.asked_at is not None) is time_for_a_call
        if played.asked_at is not None:
            begun = self.world.told(played.asked_at)
            assert begun <= asked.latest, "our clock is never ahead of the server's"
            asked = Span(begun, asked.latest)
        if played.granted is not None:
            self._edges.append(Span.exactly(asked.earliest).plus(played.granted.expires_in))
        return Answered(flight, answer, attempt, played, asked, self.world.passed)

    def save(self, done: Sequence[Answered]) -> None:
        """As the loop does: HubSpot is judged, what it answered is stored, what was not called is handed back."""
        attempts = [self.aged(each) for each in done]
        self.watching(
            lambda: self.world.stores.provider.record_outcomes(
                each for attempt in attempts for each in attempt.outcomes
            )
        )
        results = [attempt.result for attempt in attempts if attempt.result]
        landed, at = self.timed(lambda: self.world.stores.results.save(results))
        called = sorted((each for each in done if each.attempt.result), key=_number)
        newest = {each.flight.hub_id: each for each in called}.values()
        rescued = {each.flight.hub_id for each in called if each not in newest and self._rescued(each, at)}
        late = [each for each in sorted(newest, key=_verdicts_last) if not self._lands(each, at)]
        rescued |= {each.flight.hub_id for each in late if self._rescued(each, at)}
        assert landed.saved == {each.flight.hub_id for each in newest if each not in late}
        assert landed.rescued == rescued
        for each in done:
            if each.attempt.result is None:
                self.hand_back(each.flight)

    def aged(self, done: Answered) -> RefreshAttempt:
        return aged(done.attempt, self.world.passed - done.passed)

    def save_again(self, done: Answered) -> set[int]:
        """The hubs of which it changed anything."""
        result: RefreshResult | None = self.aged(done).result
        if result is None:
            return set()
        landed = self.world.stores.results.save([result])
        return landed.saved | landed.rescued

    def hand_back(self, flight: Flight) -> None:
        self.world.stores.claims.release([flight.out.claimed.lease])
        self.books[flight.hub_id].handed_back(flight.holding)

    # --- HubSpot as a whole ---

    def watching(self, deed: Callable[[], object]) -> None:
        """When HubSpot is well again, what was put off is due."""
        before = self.world.stores.provider.read()
        _, at = self.timed(deed)
        after = self.world.stores.provider.read()
        if before.condition is not Condition.OK and after.condition is Condition.OK:
            self.woken(at)

    def sweep(self) -> None:
        self.watching(lambda: self.world.stores.provider.begin_sweep(2.0))

    def woken(self, at: Span) -> None:
        for book in self.books.values():
            book.woken(at)

    # --- within ---

    def _until_nothing_ends(self) -> float | None:
        now = self.world.now()
        ends = [*self._edges, *self.brake.ends(), *(end for book in self.books.values() for end in book.ends())]
        near = [end.latest for end in ends if now < end.latest <= now + timedelta(seconds=MARGIN)]
        return (max(near) - now).total_seconds() + 0.001 if near else None

    def _flight(self, claimed: ClaimedConnection, at: Span) -> Flight:
        holding = self.books[claimed.connection.hub_id].claimed(at)
        self._edges += [holding.until, holding.until.plus(-CALL_SECONDS)]
        return Flight(Out(claimed, self.world.passed), holding)

    def _check_claims(self, claims: ClaimBatch, limit: int, at: Span) -> None:
        """None twice, none that somebody holds; and nothing that is due is left, but for a rate."""
        hubs = [claimed.connection.hub_id for claimed in claims.rows]
        assert len(hubs) == len(set(hubs)) <= limit
        free = [book for book in self.books.values() if book.due and not book.is_held_by_somebody(at)]
        assert set(hubs) <= {book.hub_id for book in free if book.due and book.due.earliest <= at.latest}
        due = [book.due for book in free if book.due and book.due.latest <= at.earliest]
        if _at_ease(claims.provider, claims):
            assert len(hubs) >= min(limit, len(due))
            soonest = min((when.latest for when in due), default=at.latest)
            assert limit > 1 or all(book.due.earliest <= soonest for book in free if book.due and book.hub_id in hubs)

    def _lands(self, done: Answered, at: Span) -> bool:
        book, answer = self.books[done.flight.hub_id], done.answer
        if isinstance(answer, Refused):
            return book.refused(done.flight.holding, answer, done.asked, at)
        assert isinstance(answer, Granted)
        assert done.played.granted is not None
        return book.refreshed(done.flight.holding, done.played.granted, done.asked.earliest, at)

    def _rescued(self, done: Answered, at: Span) -> bool:
        granted = done.played.granted
        if granted is None or not isinstance(done.answer, Granted) or done.answer.rotation is not Rotation.NEW:
            return False
        return self.books[done.flight.hub_id].rescued(done.flight.holding, granted, done.asked.earliest, at)


def _at_ease(provider: Provider, claims: ClaimBatch) -> bool:
    return provider.rate is None and (provider.paused_until is None or provider.paused_until <= claims.now)


def _number(done: Answered) -> int:
    return done.flight.holding.number


def _verdicts_last(done: Answered) -> tuple[bool, int]:
    """The order in which a save judges them, which is the order in which they count for the brake."""
    return isinstance(done.answer, Refused) and done.answer.verdict, done.flight.hub_id
