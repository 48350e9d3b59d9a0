"""Everything that can happen to two connections, in any order, on the real store; the books say what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from shared.db.lifecycle.imports import ImportRow
from shared.domain.grant import Install
from shared.workflows.key_rotation import rotate_keys
from tests.model import sight
from tests.model.answers import ANSWERS, CALLED_DEAD, LIVES, SCOPES, Answer
from tests.model.brakes import WINDOW
from tests.model.deeds import HUBS, Answered, Deeds, Flight
from tests.model.rig import Town

ANY_HUB = st.sampled_from(HUBS)
#: A retry, a lease, the brake's window, a token's life.
LATER = st.sampled_from([7.0, 61.0, 660.0, 1861.0])
#: Seconds since HubSpot granted what is installed: just now, a while, long ago, and by a clock that is ahead.
AGO = st.sampled_from([0.0, 30.0, 700.0, 2400.0, -3600.0])
#: As if so many other connections had just become revoked.
OTHERS = "INSERT INTO tokenkeeper.history (hub_id, event) SELECT 1, 'revoked' FROM generate_series(1, %s)"

WORDS = ["confirm", "dismiss"]
OVERTAKERS = ["an install", "a disconnect", "an import", "another worker", *WORDS]


class ConnectionMachine(RuleBasedStateMachine):
    """`connections` is set by the test, on a class of its own."""

    connections: Town

    grants = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.deeds = Deeds(self.connections)
        self.world, self.books, self.brake = self.deeds.world, self.deeds.books, self.deeds.brake
        self.heard: list[tuple[int, str]] = []
        # No bundles: when what is due depends on the instant, and hypothesis must be able to draw the same again.
        self.flights: list[Flight] = []
        self.answered: list[Answered] = []
        self.saved: list[Answered] = []

    # --- installs and imports ---

    @initialize(target=grants, hubs=st.sampled_from([2, 1]))
    def begins_with_installs(self, hubs: int) -> MultipleResults[Install]:
        grants = [self.deeds.granted(hub_id, 0.0, 1800) for hub_id in HUBS[:hubs]]
        for grant in grants:
            self.deeds.deliver(grant)
        return multiple(*grants)

    @rule(target=grants, hub_id=ANY_HUB, ago=AGO, life=LIVES, scopes=SCOPES, in_a_cookie=st.booleans())
    def is_granted(self, hub_id: int, ago: float, life: int, scopes: tuple[str, ...], in_a_cookie: bool) -> Install:
        granted = self.deeds.granted(hub_id, ago, life, scopes)
        return granted.without_access_token() if in_a_cookie else granted

    @rule(grant=grants)
    def is_delivered(self, grant: Install) -> None:
        self.deeds.deliver(grant)

    @rule(target=grants, hub_id=ANY_HUB, ago=AGO, life=LIVES)
    def is_installed(self, hub_id: int, ago: float, life: int) -> Install:
        granted = self.deeds.granted(hub_id, ago, life)
        self.deeds.deliver(granted)
        return granted

    @rule(hub_id=ANY_HUB, same=st.booleans())
    def is_imported(self, hub_id: int, same: bool) -> None:
        book, cipher, stores = self.books[hub_id], self.world.cipher, self.world.stores
        token = book.refresh_token if same and book.refresh_token else self.deeds.next("refresh")
        here = stores.imports.find_existing([hub_id]).get(hub_id)
        assert here is None or here.is_replaceable is book.replaceable()
        # What the caller saw may be over: the statement looks for itself whether the row is no good.
        row = ImportRow(hub_id, cipher.encrypt_refresh_token(hub_id, token), may_replace=token != book.refresh_token)
        imported, at = self.deeds.timed(lambda: stores.imports.import_rows([row]))
        assert bool(imported.new | imported.replaced) is book.imported(token, at)

    # --- the refresh loop ---

    @rule(hub_id=ANY_HUB, limit=st.integers(1, 2), wait=st.booleans())
    def are_claimed(self, hub_id: int, limit: int, wait: bool) -> None:
        if wait:
            self.deeds.wait_for(hub_id)
        self.flights += self.deeds.claim(limit)

    @rule(hub_id=ANY_HUB, answer=ANSWERS)
    def is_answered(self, hub_id: int, answer: Answer) -> None:
        """To the call that has been out for longest. It is not saved yet."""
        if not (out := [flight for flight in self.flights if flight.hub_id == hub_id]):
            self._until_due(hub_id)
            self.flights += (out := self.deeds.claim(2))
        if out:
            self.flights.remove(out[0])
            self.answered.append(self.deeds.answer(out[0], answer))

    @rule(most=st.integers(1, 2), reply_is_lost=st.booleans())
    def are_saved(self, most: int, reply_is_lost: bool) -> None:
        late, self.answered = self.answered[:most], self.answered[most:]
        self.deeds.save(late)
        self.saved += late
        if reply_is_lost:
            assert not any(self.deeds.save_again(each) for each in late)

    @rule(which=st.integers(0, 3))
    def is_saved_once_more(self, which: int) -> None:
        assert not any(self.deeds.save_again(each) for each in self.saved[-1 - which :][:1])

    @rule(hub_id=ANY_HUB, answers=st.tuples(ANSWERS, ANSWERS))
    def are_refreshed(self, hub_id: int, answers: tuple[Answer, Answer]) -> None:
        """The loop's ordinary turn."""
        self._turn(hub_id, dict(zip(HUBS, answers, strict=True)))

    @rule(hub_id=ANY_HUB, answer=st.sampled_from(CALLED_DEAD), others=st.sampled_from([0, 9, 10]))
    def is_called_dead(self, hub_id: int, answer: Answer, others: int) -> None:
        """`others`: as if so many more had just become revoked, which is what the brake looks at."""
        if others:
            _, at = self.deeds.timed(lambda: self.world.sql.rows(OTHERS, others))
            self.brake.counted += [at] * others
        self._turn(hub_id, dict.fromkeys(HUBS, answer))

    @rule(hub_id=ANY_HUB, answer=ANSWERS, first=st.sampled_from(OVERTAKERS), saved=st.booleans())
    def is_overtaken(self, hub_id: int, answer: Answer, first: str, saved: bool) -> None:
        """Something else happens to it between HubSpot's answer and the save, if that ever comes."""
        if first in WORDS:
            self.is_called_dead(hub_id, CALLED_DEAD[0], 10)
        self.is_answered(hub_id, answer)
        if first == "an install":
            self.deeds.deliver(self.deeds.granted(hub_id, 0.0, 1800))
        elif first == "a disconnect":
            self.is_being_disconnected(hub_id)
        elif first == "an import":
            self.is_imported(hub_id, same=False)
        elif first == "another worker":
            self.deeds.passes(61.0)
            self.flights += self.deeds.claim(2)
        else:
            self.an_operator_says_of_revocations(first)
        if saved:
            self.are_saved(2, reply_is_lost=False)

    @rule(hub_id=ANY_HUB)
    def is_handed_back(self, hub_id: int) -> None:
        for flight in [flight for flight in self.flights if flight.hub_id == hub_id]:
            self.deeds.hand_back(flight)
            self.flights.remove(flight)

    def _until_due(self, hub_id: int) -> None:
        """What has ended is installed again first: else most of what is tried would be tried on what has ended."""
        if self.books[hub_id].due is None:
            self.deeds.deliver(self.deeds.granted(hub_id, 0.0, 1800))
        self.deeds.wait_for(hub_id)

    def _turn(self, hub_id: int, answers: Mapping[int, Answer]) -> None:
        self._until_due(hub_id)
        self.deeds.sweep()
        done = [self.deeds.answer(flight, answers[flight.hub_id]) for flight in self.deeds.claim(2)]
        self.deeds.save(done)
        self.saved += done

    # --- disconnects and requests ---

    @rule(hub_id=ANY_HUB)
    def is_being_disconnected(self, hub_id: int) -> None:
        book = self.books[hub_id]
        secrets, at = self.deeds.timed(lambda: self.world.stores.disconnects.mark_and_read_tokens(hub_id))
        assert (secrets is not None) is book.disconnected(at)
        if secrets is not None:
            opened = self.world.cipher.decrypt_refresh_token(hub_id, secrets.encrypted_refresh_token)
            served = book.access.token if book.access and book.access.lives(at) else None
            assert (opened, secrets.access_token) == (book.refresh_token, served)

    @rule(hub_id=ANY_HUB)
    def is_wiped(self, hub_id: int) -> None:
        self.world.stores.disconnects.wipe_tokens(hub_id)
        self.books[hub_id].wiped()

    @rule()
    def leftovers_are_looked_for(self) -> None:
        found, at = self.deeds.timed(self.world.stores.disconnects.claim_unfinished)
        assert set(found) == {hub_id for hub_id, book in self.books.items() if book.left_over(at)}

    @rule(hub_id=ANY_HUB, token=st.sampled_from(["none", "served", "another"]))
    def a_job_asks(self, hub_id: int, token: str) -> None:
        book = self.books[hub_id]
        given = {"none": None, "served": book.access.token if book.access else None, "another": "of yesterday"}[token]
        statement = "SELECT hubspot.request_refresh(%s, %s)"
        answer, at = self.deeds.timed(lambda: self.world.reader.value(statement, hub_id, given))
        assert answer is book.job_asks(given, at)

    @rule(hub_ids=st.sampled_from([HUBS[:1], HUBS[1:], HUBS]))
    def an_operator_asks(self, hub_ids: Sequence[int]) -> None:
        verdicts, at = self.deeds.timed(lambda: self.world.stores.refresh_requests.request(hub_ids))
        assert set(verdicts) == set(hub_ids)
        for hub_id, verdict in verdicts.items():
            self.books[hub_id].operator_asks(verdict, at)

    # --- HubSpot as a whole, the brake, the keys, time ---

    @rule()
    def are_woken(self) -> None:
        _, at = self.deeds.timed(self.world.stores.provider.make_postponed_due)
        self.deeds.woken(at)

    @rule()
    def a_sweep_begins(self) -> None:
        self.deeds.sweep()

    @rule(word=st.sampled_from(WORDS))
    def an_operator_says_of_revocations(self, word: str) -> None:
        since, books, stores = self.brake.since, self.books.values(), self.world.stores
        if word == "confirm":
            count, at = self.deeds.timed(stores.brake.confirm)
        else:
            count, at = self.deeds.timed(stores.brake.dismiss)
        if since is None:
            assert count is None
        elif word == "confirm":
            self.brake.confirmed()
            assert count == sum(book.confirmed(at) for book in books)
        else:
            self.brake.dismissed()
            assert count == sum(book.dismissed(since.plus(-WINDOW).earliest, at) for book in books)

    @rule()
    def keys_are_rotated(self) -> None:
        world = self.world
        world.keys.insert(0, Fernet.generate_key().decode())
        stored = sum(book.refresh_token is not None for book in self.books.values())
        resealed, proof = rotate_keys(world.reports, world.key_rotation, world.cipher, lambda pages, _: pages)
        assert (resealed, proof.rows, proof.on_older_key, proof.undecryptable_hubs) == (stored, stored, 0, [])

    @rule(seconds=LATER)
    def time_passes(self, seconds: float) -> None:
        self.deeds.passes(seconds)

    # --- what must be true after each ---

    @invariant()
    def everything_is_as_the_books_say(self) -> None:
        for book in self.books.values():
            sight.check(book, self.world)
        sight.check_brake(self.brake, self.books.values(), self.world)
        self.heard += self.world.heard()
        assert self.heard == self.deeds.told, "listeners hear of each change of status, once, in order; of nothing else"
        self.deeds.passes(0)
