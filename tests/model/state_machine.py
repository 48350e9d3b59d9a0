"""All operations on two connections, in any order, on the real store, compared with their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from shared.db.lifecycle.imports import ImportRow
from shared.domain.grant import Install
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.workflows.key_rotation import rotate_keys
from tests.model import invariants
from tests.model.answers import ANSWERS, INVALID_GRANTS, LIFETIMES_SECONDS, SCOPES, Answer
from tests.model.brake_model import WINDOW_SECONDS
from tests.model.operations import HUBS, AnsweredClaim, ClaimInFlight, Operations
from tests.model.world import ModelDatabase

ANY_HUB = st.sampled_from(HUBS)
#: Past a retry, a lease, the brake's window, a token's lifetime.
ADVANCES_SECONDS = st.sampled_from([7.0, 61.0, 660.0, 1861.0])
#: Age of a grant: new, recent, expired, and dated by a clock that is ahead.
AGES_SECONDS = st.sampled_from([0.0, 30.0, 700.0, 2400.0, -3600.0])
#: Revocations of other connections, which the brake counts.
INSERT_OTHER_REVOCATIONS = (
    "INSERT INTO tokenkeeper.history (hub_id, event) SELECT 1, 'revoked' FROM generate_series(1, %s)"
)

DECISIONS = ["confirm", "dismiss"]
OVERTAKING_OPERATIONS = ["an install", "a disconnect", "an import", "another worker", *DECISIONS]


class ConnectionMachine(RuleBasedStateMachine):
    """`database` is set by the test, on a class of its own."""

    database: ModelDatabase

    grants = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.operations = Operations(self.database)
        self.world, self.models, self.brake = self.operations.world, self.operations.models, self.operations.brake
        self.received: list[tuple[int, str]] = []
        # No bundles: what is due depends on the time, and hypothesis must be able to repeat its choices.
        self.flights: list[ClaimInFlight] = []
        self.answered: list[AnsweredClaim] = []
        self.saved: list[AnsweredClaim] = []
        self.disconnects: dict[int, int] = {}  #: the generation of the newest one, by hub

    # --- installs and imports ---

    @initialize(target=grants, hubs=st.sampled_from([2, 1]))
    def start_with_installs(self, hubs: int) -> MultipleResults[Install]:
        grants = [self.operations.make_install(hub_id, 0.0, 1800) for hub_id in HUBS[:hubs]]
        for grant in grants:
            self.operations.deliver(grant)
        return multiple(*grants)

    @rule(
        target=grants,
        hub_id=ANY_HUB,
        age_seconds=AGES_SECONDS,
        life=LIFETIMES_SECONDS,
        scopes=SCOPES,
        in_a_cookie=st.booleans(),
    )
    def create_install(
        self, hub_id: int, age_seconds: float, life: int, scopes: tuple[str, ...], in_a_cookie: bool
    ) -> Install:
        granted = self.operations.make_install(hub_id, age_seconds, life, scopes)
        return granted.without_access_token() if in_a_cookie else granted

    @rule(grant=grants)
    def deliver(self, grant: Install) -> None:
        self.operations.deliver(grant)

    @rule(target=grants, hub_id=ANY_HUB, age_seconds=AGES_SECONDS, life=LIFETIMES_SECONDS)
    def install(self, hub_id: int, age_seconds: float, life: int) -> Install:
        granted = self.operations.make_install(hub_id, age_seconds, life)
        self.operations.deliver(granted)
        return granted

    @rule(hub_id=ANY_HUB, same=st.booleans())
    def import_token(self, hub_id: int, same: bool) -> None:
        model, cipher, stores = self.models[hub_id], self.world.cipher, self.world.stores
        token = model.refresh_token if same and model.refresh_token else self.operations.next_name("refresh")
        identity = ConnectionIdentity(DEFAULT_APP, hub_id)
        existing = stores.imports.find_existing([identity]).get(identity)
        assert existing is None or existing.is_replaceable is model.is_replaceable()
        # What the caller read may have changed: the statement itself checks whether the row may be replaced.
        row = ImportRow(hub_id, cipher.encrypt_refresh_token(hub_id, token), may_replace=token != model.refresh_token)
        imported, at = self.operations.time_call(lambda: stores.imports.import_rows([row]))
        assert bool(imported.new | imported.replaced) is model.apply_import(token, at)

    # --- the refresh loop ---

    @rule(hub_id=ANY_HUB, limit=st.integers(1, 2), wait=st.booleans())
    def claim(self, hub_id: int, limit: int, wait: bool) -> None:
        if wait:
            self.operations.wait_for(hub_id)
        self.flights += self.operations.claim(limit)

    @rule(hub_id=ANY_HUB, answer=ANSWERS)
    def answer_oldest_claim(self, hub_id: int, answer: Answer) -> None:
        """Answer the oldest call in flight. The answer is not saved yet."""
        flights = [flight for flight in self.flights if flight.hub_id == hub_id]
        if not flights:
            self._wait_until_due(hub_id)
            flights = self.operations.claim(2)
            self.flights += flights
        if flights:
            self.flights.remove(flights[0])
            self.answered.append(self.operations.answer(flights[0], answer))

    @rule(most=st.integers(1, 2), reply_is_lost=st.booleans())
    def save(self, most: int, reply_is_lost: bool) -> None:
        answered, self.answered = self.answered[:most], self.answered[most:]
        self.operations.save(answered)
        self.saved += answered
        if reply_is_lost:
            assert not any(self.operations.save_again(each) for each in answered)

    @rule(which=st.integers(0, 3))
    def save_again(self, which: int) -> None:
        assert not any(self.operations.save_again(each) for each in self.saved[-1 - which :][:1])

    @rule(hub_id=ANY_HUB, answers=st.tuples(ANSWERS, ANSWERS))
    def refresh(self, hub_id: int, answers: tuple[Answer, Answer]) -> None:
        """One ordinary iteration of the loop."""
        self._run_loop_once(hub_id, dict(zip(HUBS, answers, strict=True)))

    @rule(hub_id=ANY_HUB, answer=st.sampled_from(INVALID_GRANTS), others=st.sampled_from([0, 9, 10]))
    def reject_grant(self, hub_id: int, answer: Answer, others: int) -> None:
        """`others`: the number of other connections that have just become revoked, which the brake counts."""
        if others:
            _, at = self.operations.time_call(lambda: self.world.sql.rows(INSERT_OTHER_REVOCATIONS, others))
            self.brake.revoked_at += [at] * others
        self._run_loop_once(hub_id, dict.fromkeys(HUBS, answer))

    @rule(hub_id=ANY_HUB, answer=ANSWERS, overtaking=st.sampled_from(OVERTAKING_OPERATIONS), is_saved=st.booleans())
    def overtake(self, hub_id: int, answer: Answer, overtaking: str, is_saved: bool) -> None:
        """Another operation comes between HubSpot's answer and the save, if that comes at all."""
        if overtaking in DECISIONS:
            self.reject_grant(hub_id, INVALID_GRANTS[0], 10)
        self.answer_oldest_claim(hub_id, answer)
        if overtaking == "an install":
            self.operations.deliver(self.operations.make_install(hub_id, 0.0, 1800))
        elif overtaking == "a disconnect":
            self.disconnect(hub_id)
        elif overtaking == "an import":
            self.import_token(hub_id, same=False)
        elif overtaking == "another worker":
            self.operations.advance(61.0)
            self.flights += self.operations.claim(2)
        else:
            self.decide_revocations(overtaking)
        if is_saved:
            self.save(2, reply_is_lost=False)

    @rule(hub_id=ANY_HUB)
    def release_claims(self, hub_id: int) -> None:
        for flight in [flight for flight in self.flights if flight.hub_id == hub_id]:
            self.operations.release(flight)
            self.flights.remove(flight)

    def _wait_until_due(self, hub_id: int) -> None:
        """A connection that has ended is installed again first, because most operations do nothing to those."""
        if self.models[hub_id].due is None:
            self.operations.deliver(self.operations.make_install(hub_id, 0.0, 1800))
        self.operations.wait_for(hub_id)

    def _run_loop_once(self, hub_id: int, answers: Mapping[int, Answer]) -> None:
        self._wait_until_due(hub_id)
        self.operations.sweep()
        answered = [self.operations.answer(flight, answers[flight.hub_id]) for flight in self.operations.claim(2)]
        self.operations.save(answered)
        self.saved += answered

    # --- disconnects and requests ---

    @rule(hub_id=ANY_HUB)
    def disconnect(self, hub_id: int) -> None:
        model = self.models[hub_id]
        connection_id = self.world.id_of(hub_id)
        secrets, at = self.operations.time_call(
            lambda: self.world.stores.disconnects.mark_and_read_tokens(connection_id)
        )
        assert (secrets is not None) is model.apply_disconnect(at)
        if secrets is not None:
            self.disconnects[hub_id] = secrets.generation
            refresh_token = self.world.cipher.decrypt_refresh_token(hub_id, secrets.encrypted_refresh_token)
            access_token = model.access.token if model.access and model.access.is_valid(at) else None
            assert (refresh_token, secrets.access_token) == (model.refresh_token, access_token)

    @rule(hub_id=ANY_HUB)
    def wipe_tokens(self, hub_id: int) -> None:
        if hub_id in self.disconnects:
            connection_id, generation = self.world.id_of(hub_id), self.disconnects[hub_id]
            wiped, at = self.operations.time_call(
                lambda: self.world.stores.disconnects.wipe_tokens(connection_id, generation)
            )
            assert wiped is self.models[hub_id].apply_wipe(at)

    @rule()
    def claim_unfinished_disconnects(self) -> None:
        claimed, at = self.operations.time_call(self.world.stores.disconnects.claim_unfinished)
        assert set(claimed) == {
            self.world.id_of(hub_id) for hub_id, model in self.models.items() if model.claim_unfinished(at)
        }

    @rule(hub_id=ANY_HUB, token=st.sampled_from(["none", "served", "another"]))
    def request_refresh_by_job(self, hub_id: int, token: str) -> None:
        model = self.models[hub_id]
        given = {"none": None, "served": model.access.token if model.access else None, "another": "of yesterday"}[token]
        statement = "SELECT hubspot.request_refresh(%s, %s)"
        answer, at = self.operations.time_call(
            lambda: (self.world.reader.value(statement, hub_id, given), self.world.stores.refresh_requests.apply())[0]
        )
        assert answer is model.request_by_job(given, at)

    @rule(hub_ids=st.sampled_from([HUBS[:1], HUBS[1:], HUBS]))
    def request_refresh_by_operator(self, hub_ids: Sequence[int]) -> None:
        requests = self.world.stores.refresh_requests
        ids = [self.world.id_of(hub_id) for hub_id in hub_ids]
        outcomes, at = self.operations.time_call(lambda: (requests.request(ids), requests.apply())[0])
        for hub_id, connection_id in zip(hub_ids, ids, strict=True):
            self.models[hub_id].check_operator_request(outcomes[connection_id], at)

    # --- HubSpot as a whole, the brake, the keys, time ---

    @rule()
    def make_postponed_due(self) -> None:
        _, at = self.operations.time_call(self.world.stores.provider.make_postponed_due)
        self.operations.make_postponed_due(at)

    @rule()
    def start_sweep(self) -> None:
        self.operations.sweep()

    @rule(decision=st.sampled_from(DECISIONS))
    def decide_revocations(self, decision: str) -> None:
        since, models, stores = self.brake.since, self.models.values(), self.world.stores
        if decision == "confirm":
            count, at = self.operations.time_call(stores.brake.confirm)
        else:
            count, at = self.operations.time_call(stores.brake.dismiss)
        if since is None:
            assert count is None
        elif decision == "confirm":
            self.brake.confirm()
            assert count == sum(model.confirm(at) for model in models)
        else:
            self.brake.dismiss()
            assert count == sum(model.dismiss(since.plus(-WINDOW_SECONDS).earliest, at) for model in models)

    @rule()
    def rotate_all_keys(self) -> None:
        world = self.world
        world.keys.insert(0, Fernet.generate_key().decode())
        stored = sum(model.refresh_token is not None for model in self.models.values())
        replaced, audit = rotate_keys(world.key_rotation, world.cipher, lambda pages, _: pages)
        assert (replaced, audit.rows, audit.on_older_key, audit.undecryptable_hubs) == (stored, stored, 0, [])

    @rule(seconds=ADVANCES_SECONDS)
    def advance_time(self, seconds: float) -> None:
        self.operations.advance(seconds)

    # --- after each operation ---

    @invariant()
    def database_matches_the_model(self) -> None:
        for model in self.models.values():
            invariants.check(model, self.world)
        invariants.check_brake(self.brake, self.models.values(), self.world)
        self.received += self.world.read_notifications()
        assert self.received == self.operations.notifications, (
            "NOTIFY is sent once for each change of status, in order, and only then"
        )
        self.operations.advance(0)
