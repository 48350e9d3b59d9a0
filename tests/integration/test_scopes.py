"""Connections that lack scopes: counted per app, listed with links, and an alert when many lose the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.alerts.scope_watch import MIN_ALERT_CONNECTIONS, ScopeWatch
from shared.db.reports.scopes import ScopeReports
from shared.domain.identity import ConnectionIdentity
from tests.support.stores import ConnectionFixture, SqlFixture

REQUIRE = """
INSERT INTO tokenkeeper.apps (app, required_scopes) VALUES ('default', %s)
ON CONFLICT (app) DO UPDATE SET required_scopes = excluded.required_scopes
"""
CHANGED = """
INSERT INTO tokenkeeper.history (hub_id, event, detail)
SELECT n, 'scopes_changed', '{"before": ["crm.lists.read", "oauth", "tickets"], "after": ["oauth", "crm.lists.read"]}'
  FROM generate_series(%s, %s) AS n
"""
ALERTS = "SELECT detail, recovered FROM tokenkeeper.alerts WHERE kind = 'scopes_lost' ORDER BY number"
COUNT_AGAIN = "UPDATE tokenkeeper.apps SET counted_at = NULL"


@pytest.fixture
def watch(engine: Engine) -> ScopeWatch:
    return ScopeWatch(engine, look_seconds=0.0)


@pytest.fixture
def require(sql: SqlFixture) -> Callable[..., None]:
    return lambda *scopes: sql.rows(REQUIRE, list(scopes)) and None


@pytest.fixture
def four_grants(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """Hub 1 has all, 2 and 3 lack some, 4 is revoked, of 5 no scopes are known."""
    connections.install(1, scopes=("oauth", "tickets", "forms"))
    connections.install(2, scopes=("oauth", "Tickets", "crm.objects.tickets.read"))
    connections.install(3, scopes=("oauth", "forms"))
    connections.install(4, scopes=())
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL", 4)
    connections.install(5, scopes=())


@pytest.mark.usefixtures("four_grants")
def test_scopes_are_compared_literally_and_counted_by_scope(engine, watch, require):
    require("tickets", "forms", "oauth")
    watch.measure()
    (counts,) = ScopeReports(engine).read_counts()
    assert (counts.app, counts.lacking, counts.by_scope) == ("default", 2, {"tickets": 2, "forms": 1})
    pages = list(ScopeReports(engine).read_lacking())
    assert [(each.identity, each.missing_scopes) for page in pages for each in page] == [
        (ConnectionIdentity("default", 2), ("forms", "tickets")),
        (ConnectionIdentity("default", 3), ("tickets",)),
    ]


@pytest.mark.usefixtures("four_grants")
def test_a_count_is_repeated_when_the_required_scopes_change_and_after_ten_minutes(engine, watch, require, sql):
    require("forms")
    watch.measure()
    assert not watch.any_due()
    require("tickets")
    assert watch.any_due()
    watch.measure()
    assert ScopeReports(engine).read_counts()[0].by_scope == {"tickets": 2}
    sql.set("scopes = '{tickets}'")
    sql.rows("UPDATE tokenkeeper.apps SET counted_at = counted_at - interval '11 minutes'")
    watch.measure()
    assert ScopeReports(engine).read_counts()[0].lacking == 0


def test_when_many_lose_the_same_scope_there_is_one_alert_and_one_when_it_is_over(watch, require, sql):
    require("oauth")
    sql.rows(CHANGED, 1, MIN_ALERT_CONNECTIONS - 1)
    sql.rows(CHANGED, 1, 1)
    watch.measure()
    assert sql.rows(ALERTS) == [], "one connection counts once"
    for _ in range(2):
        sql.rows(CHANGED, MIN_ALERT_CONNECTIONS, MIN_ALERT_CONNECTIONS)
        sql.rows(COUNT_AGAIN)
        watch.measure()
    about = {"scope": "tickets", "count": MIN_ALERT_CONNECTIONS}
    assert sql.rows(ALERTS) == [(about, False)]
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '2 hours'")
    sql.rows(COUNT_AGAIN)
    watch.measure()
    assert [recovered for _, recovered in sql.rows(ALERTS)] == [False, True]


@pytest.mark.usefixtures("four_grants")
def test_the_command_lists_who_lacks_what_with_a_link_for_each_whose_app_is_in_the_settings(
    product, connections, require, sql
):
    require("tickets", "oauth")
    sql.set("customer = 'acme'", 3)
    product.environment["CONNECT_LINK_KEYS"] = "k" * 32
    listed = product.tokenkeeper("scopes", "--links", "--json")
    assert listed.returncode == 0, listed.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(row["hub_id"], row["missing_scopes"]) for row in rows] == [(2, ["tickets"]), (3, ["tickets"])]
    assert rows[0]["link"].endswith("/install?hub_id=2")
    assert "/connect/" in rows[1]["link"]
    assert "2 lack tickets (coarse; HubSpot has replaced it by crm.objects.tickets.read" in listed.stderr
    connections.install(4, app="gone", scopes=("oauth",))
    sql.rows("INSERT INTO tokenkeeper.apps (app, required_scopes) VALUES ('gone', '{tickets}')")
    plain = product.tokenkeeper("scopes", "--links", "--app", "gone")
    assert plain.stdout.splitlines()[1:] == ["4\tgone\t\t\tactive\ttickets"]
    plain = product.tokenkeeper("scopes", "--app", "another")
    assert plain.stdout == "hub_id\tapp\tuser_id\tcustomer\tstatus\tmissing_scopes\n"
