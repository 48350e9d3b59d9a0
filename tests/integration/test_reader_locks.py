"""What jobs, and logins that can only connect, hold open: no statement of the product waits for any of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg2 import errors
from sqlalchemy import Engine

from shared.db.alerts.detection import AlertDetector
from shared.db.schema.migrate import migrate
from shared.domain.account import AccountInfo
from shared.domain.errors import TemporarilyUnavailable
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture, open_transaction

HUBS = range(1, 7)
#: The advisory locks of earlier versions: one per hub, and that of migrations.
ADVISORY_LOCKS = ["pg_advisory_lock(1953459562, 1)", *(f"pg_advisory_lock({hub_id})" for hub_id in HUBS)]


@dataclass(frozen=True, slots=True)
class Stranger:
    connect: Callable[[], Any]
    is_reader: bool


@pytest.fixture(params=["hubspot_reader", None], ids=["reader", "connect"])
def stranger(
    request: pytest.FixtureRequest, sql: SqlFixture, database_url: str, connect: Callable[..., Any]
) -> Iterator[Stranger]:
    """A login of a job, or one that may only connect."""
    name, password = f"stranger_{secrets.token_hex(4)}", secrets.token_hex(8)
    membership = f"IN ROLE {request.param}" if request.param else ""
    sql.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {membership}")
    parts = urlsplit(database_url)
    where = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(scheme="postgresql", netloc=f"{name}:{password}@{where}"))
    yield Stranger(lambda: connect(url), is_reader=request.param is not None)
    sql.rows(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("relation", ["hubspot.tokens", "hubspot.connections", "hubspot.history"])
@pytest.mark.parametrize("mode", ["ROW SHARE", "ROW EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE"])
def test_no_login_can_lock_a_view_against_writers(
    connections: ConnectionFixture, stranger: Stranger, relation: str, mode: str
) -> None:
    with open_transaction(stranger.connect) as session, pytest.raises(errors.InsufficientPrivilege):
        session.rows(f"LOCK TABLE {relation} IN {mode} MODE")


@pytest.mark.parametrize("strength", ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
def test_no_login_can_lock_a_row_through_a_view(
    connections: ConnectionFixture, stranger: Stranger, strength: str
) -> None:
    connections.install()
    with pytest.raises(errors.InsufficientPrivilege):
        SqlFixture(stranger.connect()).rows(f"SELECT * FROM hubspot.tokens FOR {strength}")


def test_all_that_the_product_does_goes_on_while_others_hold_open_what_they_can(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture, database_url: str, stranger: Stranger
) -> None:
    for hub_id in HUBS:
        connections.install(hub_id)
    with ExitStack() as stack:
        for isolation in ("READ COMMITTED", "SERIALIZABLE"):
            session = stack.enter_context(open_transaction(stranger.connect, isolation))
            session.rows("CREATE TEMP TABLE connections (hub_id bigint PRIMARY KEY)")
            session.rows("LISTEN hubspot_connections; NOTIFY hubspot_connections, 'forged'")
            for lock in ADVISORY_LOCKS if isolation == "READ COMMITTED" else ():
                session.rows(f"SELECT {lock}")
            if stranger.is_reader:
                session.rows("LOCK TABLE hubspot.tokens, hubspot.connections, hubspot.history IN ACCESS SHARE MODE")
                session.rows("SELECT * FROM hubspot.tokens, hubspot.connections, hubspot.history")
                session.rows("DECLARE page CURSOR FOR SELECT * FROM hubspot.tokens; FETCH 1 FROM page")
                for hub_id in HUBS:
                    session.rows("SELECT hubspot.request_refresh(%s)", hub_id)
        do_all_that_the_product_does(connections, engine)
        migrate(database_url)
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE status = 'active'") == 4
    assert sql.read_served_token(1) == "new-access"


def do_all_that_the_product_does(connections: ConnectionFixture, engine: Engine) -> None:
    """Every statement of worker and web that changes rows which others can read."""
    stores = connections.stores
    no_answer = CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))
    assert stores.provider.begin_sweep(0.0) is not None
    stores.refresh_requests.request(list(connections.ids(*HUBS)))
    stores.refresh_requests.apply()
    rows = {row.connection.identity.hub_id: row for row in stores.claims.claim(6).rows}
    assert len(rows) == 6
    results = [
        connections.make_success(rows[1]),
        connections.make_failure(rows[2]),
        connections.make_revocation(rows[3]),
    ]
    assert stores.results.save(results).saved == connections.ids(1, 2, 3)
    assert stores.claims.release([rows[4].lease, rows[5].lease, rows[6].lease]) == []
    stores.provider.record_outcomes([no_answer] * FAILURES_BEFORE_OUTAGE)
    stores.provider.record_outcomes([CallOutcome(is_first_attempt=False)])
    connections.install(4)
    accounts, _ = stores.account_info.claim_missing(10)
    assert accounts
    for account in accounts:
        stores.account_info.save(account, AccountInfo("acme.example", None))
    tokens = stores.disconnects.mark_and_read_tokens(connections.id_of(5))
    assert tokens is not None
    assert stores.disconnects.wipe_tokens(connections.id_of(5), tokens.generation)
    assert AlertDetector(engine, 2.0, search_pause_factor=0).detect()
    stores.prune()
