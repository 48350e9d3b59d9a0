"""Commands and pages where several apps and users have one hub: which connection is meant, and by which customer."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.reports.connection_list import ConnectionList, Sort
from tests.support.command import Command
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, open_transaction

HUB = 62515
IDENTITIES = [("crm", None), ("default", None), ("personal", 7), ("personal", 8)]


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def four(connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """Of one hub; and one of another hub."""
    for app, user_id in IDENTITIES:
        connections.install(HUB, app=app, user_id=user_id)
    connections.install(HUB + 1, app="crm")
    return connections


def read_due(sql: SqlFixture) -> list[tuple[str, int | None]]:
    due = "SELECT c.app, c.user_id FROM tokenkeeper.refresh_requests AS r JOIN tokenkeeper.connections AS c"
    return sql.rows(f"{due} ON c.id = r.connection_id ORDER BY 1, 2")  # type: ignore[return-value]


@pytest.mark.usefixtures("four")
def test_a_command_about_one_connection_lists_those_that_fit_and_takes_the_one_that_is_named(
    tokenkeeper: Command, sql: SqlFixture
) -> None:
    for command in (("claim", str(HUB), "acme"), ("history", str(HUB)), ("disconnect", str(HUB), "--yes")):
        refused = tokenkeeper(*command)
        assert refused.status == 2
        assert refused.err.startswith(
            f"tokenkeeper: {HUB} has 4 connections, add what names one of them: --app crm; --app default; "
            "--app personal --user 7; --app personal --user 8"
        )
    assert tokenkeeper("claim", str(HUB), "acme", "--app", "personal", "--user", "8").out == (
        f"{HUB}: belongs to 'acme' now\n"
    )
    assert sql.rows("SELECT app, user_id FROM hubspot.tokens WHERE customer = 'acme'") == [("personal", 8)]
    history = json.loads(tokenkeeper("history", str(HUB), "--app", "personal", "--user", "8", "--json").out)
    assert [(line["event"], line["customer"]) for line in history["history"]] == [
        ("claimed", "acme"),
        ("installed", None),
    ]
    assert (history["connection"]["app"], history["connection"]["user_id"]) == ("personal", 8)
    unknown = tokenkeeper("history", str(HUB), "--app", "personal", "--user", "9")
    assert (unknown.status, unknown.err) == (1, f"tokenkeeper: {HUB} --app personal --user 9: no such connection\n")


@pytest.mark.usefixtures("four")
def test_refresh_means_all_connections_of_a_hub_or_those_that_are_named(tokenkeeper: Command, sql: SqlFixture) -> None:
    one = tokenkeeper("refresh", str(HUB), "--app", "crm", "--json")
    assert json.loads(one.out) == {"app": "crm", "hub_id": HUB, "user_id": None, "answer": "asked"}
    assert read_due(sql) == [("crm", None)]
    assert tokenkeeper("refresh", str(HUB)).out.count("\n") == 4
    assert read_due(sql) == IDENTITIES
    absent = tokenkeeper("refresh", str(HUB), "--app", "nothing")
    assert (absent.status, absent.err) == (1, f"{HUB} --app nothing: no such connection\n")


@pytest.mark.usefixtures("four")
def test_claim_asks_before_it_takes_a_connection_from_a_customer(tokenkeeper: Command, sql: SqlFixture) -> None:
    claim = ("claim", str(HUB), "--app", "crm")
    assert tokenkeeper(*claim, "acme").status == 0
    assert tokenkeeper(*claim, "acme").out == f"{HUB}: is this customer's already\n"
    assert tokenkeeper(*claim, "beta").status == 2
    assert sql.value("SELECT customer FROM hubspot.connections WHERE hub_id = %s AND app = 'crm'", HUB) == "acme"
    assert tokenkeeper(*claim, "beta", "--yes").out == f"{HUB}: belongs to 'beta' now\n"
    assert sql.rows("SELECT event, customer, detail FROM hubspot.history WHERE event LIKE '%%c%%' ORDER BY id") == [
        ("claimed", "acme", {}),
        ("customer_changed", "beta", {"was": "acme"}),
    ]
    refused = tokenkeeper(*claim, "a\nb")
    assert (refused.status, "no control characters" in refused.err) == (2, True)


def test_a_claim_of_a_connection_that_another_customer_gets_at_this_moment_does_nothing(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(connect) as other:
            other.set("customer = 'beta'")
            result = threads.submit(tokenkeeper, "claim", str(HUB), "acme")
            until(lambda: sql.count_lock_waits() == 1)
            other.rows("COMMIT")
        assert (
            result.result().err
            == f"tokenkeeper: {HUB}: it changed at this moment, so nothing was done: run this again\n"
        )


@pytest.mark.usefixtures("four")
def test_the_list_is_filtered_by_app_and_customer_in_every_order(engine: Engine, sql: SqlFixture) -> None:
    sql.rows("UPDATE tokenkeeper.connections SET customer = 'acme' WHERE app = 'personal'")
    sql.rows("UPDATE tokenkeeper.connections SET failures = 1")
    connections = ConnectionList(engine)
    for sort in Sort:
        everything = connections.read_page(sort=sort, limit=2)
        rows = list(everything.connections)
        while everything.after:
            everything = connections.read_page(sort=sort, after=everything.after, limit=2)
            rows += everything.connections
        assert len({row.id for row in rows}) == len(rows) == 5, sort
        of_app = connections.read_page(sort=sort, app="crm").connections
        assert sorted(row.hub_id for row in of_app) == [HUB, HUB + 1]
        of_customer = connections.read_page(sort=sort, customer="acme", search="62").connections
        assert sorted(row.user_id or 0 for row in of_customer) == [7, 8]
    assert connections.read_page(customer="acme", app="crm").connections == []


@pytest.mark.usefixtures("four")
def test_the_command_lists_one_customers_connections(tokenkeeper: Command) -> None:
    tokenkeeper("claim", str(HUB), "acme", "--app", "personal", "--user", "7")
    (line,) = tokenkeeper("connections", "--customer", "acme", "--json").out.splitlines()
    found = json.loads(line)
    assert (found["hub_id"], found["app"], found["user_id"], found["customer"]) == (HUB, "personal", 7, "acme")
    assert "id" not in found
    assert tokenkeeper("connections", "--app", "crm", "--json").out.count("\n") == 2
