"""All operations on three connections, of two apps, in any order, on the real store, compared with their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from shared.db.lifecycle.imports import ImportRow
from shared.domain.grant import Install
from shared.domain.identity import ConnectionIdentity
from shared.workflows.key_rotation import rotate_keys
from tests.model import invariants
from tests.model.answers import ANSWERS, INVALID_GRANTS, LIFETIMES_SECONDS, SCOPES, Answer
from tests.model.brake_model import WINDOW_SECONDS
from tests.model.operations import CONNECTIONS, AnsweredClaim, ClaimInFlight, Operations
from tests.model.world import APPS, ModelDatabase

ANY_CONNECTION = st.sampled_from(CONNECTIONS)
#: Past a retry, a lease, the brake's window, a token's lifetime.
ADVANCES_SECONDS = st.sampled_from([7.0, 61.0, 660.0, 1861.0])
#: Age of a grant: new, recent, expired, and dated by a clock that is ahead.
AGES_SECONDS = st.sampled_from([0.0, 30.0, 700.0, 2400.0, -3600.0])
#: Revocations of other connections, which the brake counts.
INSERT_OTHER_REVOCATIONS = (
    "INSERT INTO tokenkeeper.history (app, hub_id, event) SELECT %s, 1, 'revoked' FROM generate_series(1, %s)"
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
        self.world, self.models, self.brakes = self.operations.world, self.operations.models, self.operations.brakes
        self.received: list[tuple[ConnectionIdentity, str]] = []
        # No bundles: what is due depends on the time, and hypothesis must be able to repeat its choices.
        self.flights: list[ClaimInFlight] = []
        self.answered: list[AnsweredClaim] = []
        self.saved: list[AnsweredClaim] = []
        self.disconnects: dict[ConnectionIdentity, int] = {}  #: the generation of the newest one

    # --- installs and imports ---

    @initialize(target=grants, connections=st.sampled_from([3, 1]))
    def start_with_installs(self, connections: int) -> MultipleResults[Install]:
        grants = [self.operations.make_install(identity, 0.0, 1800) for identity in CONNECTIONS[:connections]]
        for grant in grants:
            self.operations.deliver(grant)
        return multiple(*grants)

    @rule(
        target=grants,
        identity=ANY_CONNECTION,
        age_seconds=AGES_SECONDS,
        life=LIFETIMES_SECONDS,
        scopes=SCOPES,
        in_a_cookie=st.booleans(),
    )
    def create_install(
        self, identity: ConnectionIdentity, age_seconds: float, life: int, scopes: tuple[str, ...], in_a_cookie: bool
    ) -> Install:
        granted = self.operations.make_install(identity, age_seconds, life, scopes)
        return granted.without_access_token() if in_a_cookie else granted

    @rule(grant=grants)
    def deliver(self, grant: Install) -> None:
        self.operations.deliver(grant)

    @rule(target=grants, identity=ANY_CONNECTION, age_seconds=AGES_SECONDS, life=LIFETIMES_SECONDS)
    def install(self, identity: ConnectionIdentity, age_seconds: float, life: int) -> Install:
        granted = self.operations.make_install(identity, age_seconds, life)
        self.operations.deliver(granted)
        return granted

    @rule(identity=ANY_CONNECTION, same=st.booleans())
    def import_token(self, identity: ConnectionIdentity, same: bool) -> None:
        model, cipher, stores = self.models[identity], self.world.cipher, self.world.stores
        token = model.refresh_token if same and model.refresh_token else self.operations.next_name("refresh")
        existing = stores.imports.find_existing([identity]).get(identity)
        assert existing is None or existing.is_replaceable is model.is_replaceable()
        # What the caller read may have changed: the statement itself checks whether the row may be replaced.
        row = ImportRow(
            identity.hub_id,
            cipher.encrypt_refresh_token(identity.hub_id, token),
            app=identity.app,
            user_id=identity.user_id,
            may_replace=token != model.refresh_token,
        )
        imported, at = self.operations.time_call(lambda: stores.imports.import_rows([row]))
        assert bool(imported.new | imported.replaced) is model.apply_import(token, at)

    # --- the refresh loop ---

    @rule(identity=ANY_CONNECTION, limit=st.integers(1, 2), wait=st.booleans())
    def claim(self, identity: ConnectionIdentity, limit: int, wait: bool) -> None:
        if wait:
            self.operations.wait_for(identity)
        self.flights += self.operations.claim(limit)

    @rule(identity=ANY_CONNECTION, answer=ANSWERS)
    def answer_oldest_claim(self, identity: ConnectionIdentity, answer: Answer) -> None:
        """Answer the oldest call in flight. The answer is not saved yet."""
        flights = [flight for flight in self.flights if flight.identity == identity]
        if not flights:
            self._wait_until_due(identity)
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

    @rule(identity=ANY_CONNECTION, answers=st.tuples(ANSWERS, ANSWERS, ANSWERS))
    def refresh(self, identity: ConnectionIdentity, answers: tuple[Answer, Answer, Answer]) -> None:
        """One ordinary iteration of the loop."""
        self._run_loop_once(identity, dict(zip(CONNECTIONS, answers, strict=True)))

    @rule(identity=ANY_CONNECTION, answer=st.sampled_from(INVALID_GRANTS), others=st.sampled_from([0, 9, 10]))
    def reject_grant(self, identity: ConnectionIdentity, answer: Answer, others: int) -> None:
        """`others`: the number of other connections that have just become revoked, which the brake counts."""
        if others:
            _, at = self.operations.time_call(
                lambda: self.world.sql.rows(INSERT_OTHER_REVOCATIONS, identity.app, others)
            )
            self.brakes[identity.app].revoked_at += [at] * others
        self._run_loop_once(identity, dict.fromkeys(CONNECTIONS, answer))

    @rule(
        identity=ANY_CONNECTION,
        answer=ANSWERS,
        overtaking=st.sampled_from(OVERTAKING_OPERATIONS),
        is_saved=st.booleans(),
    )
    def overtake(self, identity: ConnectionIdentity, answer: Answer, overtaking: str, is_saved: bool) -> None:
        """Another operation comes between HubSpot's answer and the save, if that comes at all."""
        if overtaking in DECISIONS:
            self.reject_grant(identity, INVALID_GRANTS[0], 10)
        self.answer_oldest_claim(identity, answer)
        if overtaking == "an install":
            self.operations.deliver(self.operations.make_install(identity, 0.0, 1800))
        elif overtaking == "a disconnect":
            self.disconnect(identity)
        elif overtaking == "an import":
            self.import_token(identity, same=False)
        elif overtaking == "another worker":
            self.operations.advance(61.0)
            self.flights += self.operations.claim(2)
        else:
            self.decide_revocations(overtaking, identity.app)
        if is_saved:
            self.save(2, reply_is_lost=False)

    @rule(identity=ANY_CONNECTION)
    def release_claims(self, identity: ConnectionIdentity) -> None:
        for flight in [flight for flight in self.flights if flight.identity == identity]:
            self.operations.release(flight)
            self.flights.remove(flight)

    def _wait_until_due(self, identity: ConnectionIdentity) -> None:
        """A connection that has ended is installed again first, because most operations do nothing to those."""
        if self.models[identity].due is None:
            self.operations.deliver(self.operations.make_install(identity, 0.0, 1800))
        self.operations.wait_for(identity)

    def _run_loop_once(self, identity: ConnectionIdentity, answers: Mapping[int, Answer]) -> None:
        self._wait_until_due(identity)
        self.operations.sweep()
        answered = [self.operations.answer(flight, answers[flight.identity]) for flight in self.operations.claim(2)]
        self.operations.save(answered)
        self.saved += answered

    # --- disconnects and requests ---

    @rule(identity=ANY_CONNECTION)
    def disconnect(self, identity: ConnectionIdentity) -> None:
        model = self.models[identity]
        connection_id = self.world.id_of(identity)
        secrets, at = self.operations.time_call(
            lambda: self.world.stores.disconnects.mark_and_read_tokens(connection_id)
        )
        assert (secrets is not None) is model.apply_disconnect(at)
        if secrets is not None:
            self.disconnects[identity] = secrets.generation
            refresh_token = self.world.cipher.decrypt_refresh_token(identity.hub_id, secrets.encrypted_refresh_token)
            access_token = model.access.token if model.access and model.access.is_valid(at) else None
            assert (refresh_token, secrets.access_token) == (model.refresh_token, access_token)

    @rule(identity=ANY_CONNECTION)
    def wipe_tokens(self, identity: ConnectionIdentity) -> None:
        if identity in self.disconnects:
            connection_id, generation = self.world.id_of(identity), self.disconnects[identity]
            wiped, at = self.operations.time_call(
                lambda: self.world.stores.disconnects.wipe_tokens(connection_id, generation)
            )
            assert wiped is self.models[identity].apply_wipe(at)

    @rule()
    def claim_unfinished_disconnects(self) -> None:
        claimed, at = self.operations.time_call(self.world.stores.disconnects.claim_unfinished)
        assert set(claimed) == {
            self.world.id_of(identity) for identity, model in self.models.items() if model.claim_unfinished(at)
        }

    @rule(identity=ANY_CONNECTION, token=st.sampled_from(["none", "served", "another"]))
    def request_refresh_by_job(self, identity: ConnectionIdentity, token: str) -> None:
        model = self.models[identity]
        given = {"none": None, "served": model.access.token if model.access else None, "another": "of yesterday"}[token]
        statement = "SELECT hubspot.request_refresh(%s, %s, %s, %s)"
        named = (identity.hub_id, given, identity.app, identity.user_id)
        answer, at = self.operations.time_call(
            lambda: (self.world.reader.value(statement, *named), self.world.stores.refresh_requests.apply())[0]
        )
        assert answer is model.request_by_job(given, at)

    @rule(identities=st.sampled_from([CONNECTIONS[:1], CONNECTIONS[1:], CONNECTIONS]))
    def request_refresh_by_operator(self, identities: Sequence[int]) -> None:
        requests = self.world.stores.refresh_requests
        ids = [self.world.id_of(identity) for identity in identities]
        outcomes, at = self.operations.time_call(lambda: (requests.request(ids), requests.apply())[0])
        for identity, connection_id in zip(identities, ids, strict=True):
            self.models[identity].check_operator_request(outcomes[connection_id], at)

    # --- HubSpot as a whole, the brake, the keys, time ---

    @rule()
    def make_postponed_due(self) -> None:
        for app, stores in self.world.stores_by_app.items():
            _, at = self.operations.time_call(stores.provider.make_postponed_due)
            self.operations.make_postponed_due(app, at)

    @rule()
    def start_sweep(self) -> None:
        self.operations.sweep()

    @rule(decision=st.sampled_from(DECISIONS), app=st.sampled_from(APPS))
    def decide_revocations(self, decision: str, app: str) -> None:
        brake, models, stores = self.brakes[app], self.operations.models_of(app), self.world.stores_by_app[app]
        invariants.check_held(app, brake, models, self.world)
        since = brake.since
        if decision == "confirm":
            count, at = self.operations.time_call(stores.brake.confirm)
        else:
            count, at = self.operations.time_call(stores.brake.dismiss)
        if since is None:
            assert count is None
        elif decision == "confirm":
            brake.confirm()
            assert count == sum(model.confirm(at) for model in models)
        else:
            brake.dismiss()
            assert count == sum(model.dismiss(since.plus(-WINDOW_SECONDS).earliest, at) for model in models)

    @rule()
    def rotate_all_keys(self) -> None:
        world = self.world
        world.keys.insert(0, Fernet.generate_key().decode())
        tokens = [token for model in self.models.values() for token in (model.refresh_token, model.other_refresh_token)]
        stored = sum(token is not None for token in tokens)
        replaced, audit = rotate_keys(world.key_rotation, world.cipher, lambda pages, _: pages)
        assert (replaced, audit.rows, audit.on_older_key, audit.undecryptable_hubs) == (stored, stored, 0, [])

    @rule(seconds=ADVANCES_SECONDS)
    def advance_time(self, seconds: float) -> None:
        self.operations.advance(seconds)

    # --- after each operation ---

    @invariant()
    def database_matches_the_model(self) -> None:
        invariants.check(self.models, self.world)
        invariants.check_brakes(self.brakes, self.world)
        self.received += self.world.read_notifications()
        assert self.received == self.operations.notifications, (
            "NOTIFY is sent once for each change of status, in order, and only then"
        )
        self.operations.advance(0)
