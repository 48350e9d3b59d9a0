"""A connection belongs to the customer of the connect link by which it came, in any order and any number of times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from shared.db.core.engine import make_engine
from shared.db.lifecycle.installs import InstallOutcome, InstallStore, NewInstall
from shared.db.lifecycle.single_uses import SingleUses
from shared.domain.customer import CustomerClaim
from tests.support.builders import HUB
from tests.support.databases import Databases
from tests.support.stores import SCHEDULE, ConnectionFixture, SqlFixture, at_once

OTHER_HUB = 783


def claim(sql: SqlFixture, customer: str = "acme", link_id: str = "link-1", **but: Any) -> CustomerClaim:
    return CustomerClaim(customer, link_id, sql.now() + timedelta(minutes=30), **but)


@pytest.fixture
def read_customer(sql: SqlFixture) -> Callable[..., str | None]:
    def read(hub_id: int = HUB) -> str | None:
        customer: str | None = sql.value("SELECT customer FROM hubspot.tokens WHERE hub_id = %s", hub_id)
        return customer

    return read


def test_a_new_connection_has_its_customer_from_its_first_instant(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(customer_claim=claim(sql))
    assert read_customer() == "acme"
    assert sql.rows("SELECT event, customer FROM hubspot.history WHERE hub_id = %s", HUB) == [("installed", "acme")]
    assert sql.rows("SELECT hub_id FROM hubspot.tokens WHERE customer = 'acme'") == [(HUB,)]


def test_the_first_link_claims_a_connection_without_a_customer(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(ago=60)
    connections.install(customer_claim=claim(sql))
    assert read_customer() == "acme"
    assert sql.events() == ["installed", "reinstalled", "claimed"]


def test_an_install_without_a_link_and_one_of_the_same_customer_leave_the_customer(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(ago=60, customer_claim=claim(sql))
    connections.install(ago=30)
    connections.install(customer_claim=claim(sql, link_id="link-2"))
    assert read_customer() == "acme"
    assert sql.events() == ["installed", "reinstalled", "reinstalled"]


def test_another_customers_connection_keeps_its_customer_and_gets_the_new_grant(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(ago=60, customer_claim=claim(sql))
    connections.install(access_token="newest", customer_claim=claim(sql, "globex", "link-2"))
    assert read_customer() == "acme"
    assert sql.read_served_token() == "newest"
    refused = sql.rows("SELECT detail, customer FROM hubspot.history WHERE event = 'claim_refused'")
    assert refused == [({"reason": "conflict", "customer": "globex"}, "acme")]


def test_a_link_that_may_move_moves_it(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(ago=60, customer_claim=claim(sql))
    connections.install(customer_claim=claim(sql, "globex", "link-2", may_move=True))
    assert read_customer() == "globex"
    changed = sql.rows("SELECT detail, customer FROM hubspot.history WHERE event = 'customer_changed'")
    assert changed == [({"before": "acme", "after": "globex"}, "globex")]


def test_a_link_brings_one_installation_and_the_second_one_no_customer(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(customer_claim=claim(sql))
    connections.install(OTHER_HUB, customer_claim=claim(sql))
    assert (read_customer(), read_customer(OTHER_HUB)) == ("acme", None)
    assert sql.events(OTHER_HUB) == ["installed", "claim_refused"]


def test_of_two_installations_by_one_link_at_the_same_time_one_gets_the_customer(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    hubs = list(range(801, 809))
    at_once([lambda hub=hub: connections.install(hub, customer_claim=claim(sql)) for hub in hubs])  # type: ignore[misc]
    assert sorted(read_customer(hub) or "" for hub in hubs) == [""] * 7 + ["acme"]


def test_the_same_install_delivered_again_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    install_id = str(uuid4())
    for _ in range(3):
        connections.install(install_id=install_id, customer_claim=claim(sql))
    assert read_customer() == "acme"
    assert sql.events() == ["installed"]
    assert sql.value("SELECT count(*) FROM tokenkeeper.single_uses") == 1


def test_a_link_whose_grant_is_stored_after_a_newer_one_claims_and_moves_nothing(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install()
    late = connections.install(ago=60, customer_claim=claim(sql))
    assert late.outcome is InstallOutcome.OLDER_THAN_STORED
    assert read_customer() == "acme"
    assert sql.events() == ["installed", "claimed"]
    connections.install(ago=50, customer_claim=claim(sql, "globex", "link-2", may_move=True))
    assert read_customer() == "acme"
    assert sql.events() == ["installed", "claimed", "claim_refused"]
    connections.install(OTHER_HUB, customer_claim=claim(sql))
    assert read_customer(OTHER_HUB) is None, "an older grant spends its link, too"


def test_a_refresh_leaves_the_customer(
    connections: ConnectionFixture, sql: SqlFixture, read_customer: Callable[..., str | None]
) -> None:
    connections.install(customer_claim=claim(sql))
    claimed = connections.claim_one()
    connections.stores.results.save([connections.make_success(claimed)])
    assert sql.read_served_token() == "new-access"
    assert read_customer() == "acme"


def test_a_spent_link_is_found_and_a_state_is_spent_once(
    connections: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    uses = SingleUses(engine)
    assert uses.find_link_use("link-1") is None
    install_id = str(uuid4())
    connections.install(install_id=install_id, customer_claim=claim(sql))
    assert uses.find_link_use("link-1") == install_id
    first, second = str(uuid4()), str(uuid4())
    for used_by in (first, second, first):
        assert uses.spend_state("state-1", used_by, sql.now()) == first


def test_spent_links_are_pruned_a_month_after_their_end(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install(customer_claim=claim(sql))
    connections.install(OTHER_HUB, customer_claim=claim(sql, link_id="link-2"))
    sql.rows("UPDATE tokenkeeper.single_uses SET expires_at = now() - interval '31 days' WHERE id = 'link-2'")
    connections.stores.prune()
    assert sql.rows("SELECT id FROM tokenkeeper.single_uses") == [("link-1",)]


def test_web_may_settle_a_claim_with_its_own_login(databases: Databases, database_url: str, sql: SqlFixture) -> None:
    web_engine = make_engine(databases.as_web(database_url))
    installs = InstallStore(web_engine)
    for number, customer in enumerate(("acme", "globex")):
        installs.add(
            NewInstall(
                hub_id=HUB,
                granted_at=sql.now(),
                encrypted_refresh_token="encrypted",
                due_at=SCHEDULE.due_at,
                install_id=str(uuid4()),
                customer_claim=claim(sql, customer, f"link-{number}", may_move=True),
            )
        )
    assert sql.value("SELECT customer FROM tokenkeeper.connections") == "globex"
    assert SingleUses(web_engine).spend_state("state-1", str(uuid4()), sql.now())
    assert installs.is_connected("default", HUB)
    web_engine.dispose()
