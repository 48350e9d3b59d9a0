"""The operator's pages with a real database and a real Redis: what they show, and the effect of each action."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import hypothesis
import pytest
import redis
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from shared.db.alerts.scope_watch import ScopeWatch
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable, UnknownRefusal
from shared.domain.provider import CallOutcome
from shared.settings import Settings
from tests.support.builders import HUB
from tests.support.environment import web_environment
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores
from tests.support.web_application import make_application
from web.startup import make_services

REQUIRE_TICKETS = """
INSERT INTO tokenkeeper.apps (app, required_scopes) VALUES ('default', '{oauth,tickets}')
ON CONFLICT (app) DO UPDATE SET required_scopes = excluded.required_scopes
"""
PASSWORD = "correct horse battery staple"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"operator:{PASSWORD}".encode()).decode()}


class Operator:
    """A signed-in operator, without a browser: opens pages and submits their forms."""

    def __init__(self, client: FlaskClient, origin: str) -> None:
        self.client = client
        self.origin = origin

    def open(self, path: str, status: int = 200) -> str:
        response = self.get(path)
        assert response.status_code == status, response.text
        return response.text

    def get(self, path: str, **options: Any) -> TestResponse:
        """Asks again, as the page says, where PostgreSQL took longer than a page waits: three seconds."""

        def find_answer() -> TestResponse | None:
            response = self.client.get(path, headers=BASIC, **options)
            return None if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else response

        answer = until(find_answer)
        assert answer is not None
        return answer

    def csrf_token(self, page: str, action: str = "") -> str:
        """Of the form for `action` on that page; of any form by default."""
        html = self.open(page)
        pattern = re.escape(action) if action else '[^"]+'
        form = re.search(rf'<form method="post" action="{pattern}">.*?</form>', html, re.DOTALL)
        assert form, f"no form for {action} on {page}"
        token = re.search(r'name="csrf_token" value="([^"]+)"', form[0])
        assert token
        return token[1]

    def post(self, action: str, csrf_token: str) -> TestResponse:
        return self.client.post(action, data={"csrf_token": csrf_token}, headers=BASIC)

    def submit(self, page: str, action: str) -> str:
        """Submits the form for `action` on that page; the page to which the response redirects."""
        response = self.post(action, self.csrf_token(page, action))
        assert response.status_code == 303, response.text
        return self.open(response.headers["Location"])


@pytest.fixture
def environ(environment: Callable[..., dict[str, str]]) -> dict[str, str]:
    return environment(OPERATOR_PASSWORD=PASSWORD)


@pytest.fixture
def operator(environ: dict[str, str]) -> Operator:
    services = make_services(Settings.from_env(web_environment(environ)))
    return Operator(make_application(services).test_client(), services.origin)


@pytest.fixture
def count_interactive_messages(environ: dict[str, str]) -> Iterator[Callable[[], int]]:
    """The number of messages in the interactive queue."""
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        yield lambda: int(client.llen("tokenkeeper.interactive"))  # type: ignore[arg-type]


def visible_text(html: str) -> str:
    """The text without tags, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def read_headline(operator: Operator) -> str:
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", operator.open("/operator"))
    assert heading
    return heading[1]


def record_sweep(sql: SqlFixture) -> None:
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")


# --- the overview ---


def test_an_empty_database_reports_a_missing_sweep_and_then_that_no_account_is_connected(
    operator: Operator, sql: SqlFixture
) -> None:
    assert read_headline(operator) == "Nothing is refreshed."
    record_sweep(sql)
    assert read_headline(operator) == "No account is connected."


def test_the_overview_reports_revoked_connections(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for hub_id in (1, 2, 3):
        connections.install(hub_id)
    record_sweep(sql)
    assert read_headline(operator) == "All 3 connections have a valid token."
    connections.stores.results.save([connections.make_revocation(connections.claim_one(3))])
    text = visible_text(operator.open("/operator"))
    assert "1 connection is revoked." in text
    assert "2 active" in text
    assert "1 revoked" in text


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            TemporarilyUnavailable("server_error", http_status=502),
            ["HubSpot does not answer.", "HubSpot had an internal error"],
        ),
        (
            InvalidClient("BAD_CLIENT_SECRET", http_status=400),
            ["HubSpot does not accept our app.", "HUBSPOT_CLIENT_SECRET"],
        ),
    ],
)
def test_the_overview_shows_hubspots_condition_with_its_reason_and_what_to_do(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture, error: ProviderError, shown: list[str]
) -> None:
    connections.install()
    record_sweep(sql)
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=error)] * 5)
    headline, explanation = shown
    assert read_headline(operator) == headline
    text = visible_text(operator.open("/operator"))
    for expected in (explanation, str(error), "UTC"):
        assert expected in text


def test_refreshes_and_remaining_life_are_shown_as_charts_and_as_numbers(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.rows("INSERT INTO tokenkeeper.refreshes_by_minute VALUES (date_trunc('minute', now()), 1234, 5)")
    text = operator.open("/operator")
    assert "1,234 refreshed, 5 failed" in text
    assert '<td class="right">1,234</td>' in text
    assert "25 min to 30 min" in text


# --- the brake ---


@pytest.fixture
def held_count(connections: ConnectionFixture, stores: Stores, sql: SqlFixture) -> int:
    """HubSpot refuses twelve refresh tokens at once: ten connections are revoked, the brake holds two."""
    for hub_id in range(1, 13):
        connections.install(hub_id)
    sql.set("due_at = now() - interval '1 second'")
    stores.results.save([connections.make_revocation(claimed) for claimed in stores.claims.claim(12).rows])
    return 2


def test_dismissing_the_brake_makes_every_connection_active(
    operator: Operator, held_count: int, sql: SqlFixture
) -> None:
    assert f"{held_count} connections are held by the brake." == read_headline(operator)
    text = operator.submit("/operator", "/operator/revocations/dismiss")
    assert "active and due again" in text
    assert sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'active'") == 12
    assert "The revocation brake is on" not in text


def test_confirming_the_brake_revokes_every_connection_it_holds(
    operator: Operator, held_count: int, sql: SqlFixture
) -> None:
    assert "are revoked now" in operator.submit("/operator", "/operator/revocations/confirm")
    assert sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'revoked'") == 12


def test_a_decision_after_the_brake_was_released_changes_nothing(
    operator: Operator, held_count: int, stores: Stores
) -> None:
    token = operator.csrf_token("/operator", "/operator/revocations/confirm")
    stores.brake.dismiss()
    response = operator.post("/operator/revocations/confirm", token)
    assert "The brake was off already" in operator.open(response.headers["Location"])


def test_a_connection_held_by_the_brake_refers_to_the_overview(
    operator: Operator, held_count: int, sql: SqlFixture
) -> None:
    hub_id = sql.value("SELECT hub_id FROM hubspot.connections WHERE status = 'suspect' LIMIT 1")
    assert "Decide for all of them on the overview" in operator.open(f"/connections/{hub_id}")


# --- the list ---


def listed_hubs(html: str) -> list[int]:
    return [int(hub_id) for hub_id in re.findall(r'<th scope="row"><a href="/connections/(\d+)"', html)]


def find_link(html: str, rel: str) -> str | None:
    link = re.search(rf'rel="{rel}" href="([^"]+)"', html)
    return link[1].replace("&amp;", "&") if link else None


def test_the_list_has_links_to_the_next_and_the_previous_page(
    operator: Operator, connections: ConnectionFixture
) -> None:
    connections.import_due(120)
    first = operator.open("/connections")
    assert listed_hubs(first) == list(range(1, 51))
    assert find_link(first, "prev") is None
    second = operator.open(find_link(first, "next") or "")
    third = operator.open(find_link(second, "next") or "")
    assert listed_hubs(second) == list(range(51, 101))
    assert listed_hubs(third) == list(range(101, 121))
    assert find_link(third, "next") is None
    assert listed_hubs(operator.open(find_link(third, "prev") or "")) == listed_hubs(second)


def test_the_list_is_filtered_searched_and_sorted(
    operator: Operator, connections: ConnectionFixture, stores: Stores
) -> None:
    for hub_id in (11, 12, 21):
        connections.install(hub_id)
        stores.save_account_info(hub_id, f"shop-{hub_id}.example", f"Ann@shop-{hub_id}.example")
    stores.results.save([connections.make_failure(connections.claim_one(12))])
    stores.results.save([connections.make_revocation(connections.claim_one(21))])
    assert listed_hubs(operator.open("/connections?status=revoked")) == [21]
    assert listed_hubs(operator.open("/connections?q=1")) == [11, 12]
    assert listed_hubs(operator.open("/connections?q=ANN%40shop-2")) == [21]
    assert listed_hubs(operator.open("/connections?sort=failures")) == [12], "21 is revoked and not tried again"
    assert 'aria-sort="descending"' in operator.open("/connections?sort=failures")
    assert "No connection matches" in operator.open("/connections?q=unknown")
    assert "revoked (1)" in operator.open("/connections")
    assert "revoked (1)" not in operator.open("/connections?q=1"), "the counts are of all connections"


def test_missing_scopes_are_named_with_the_link_for_the_customer_and_the_list_is_filtered_by_them(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    connections.install(11, scopes=("oauth", "tickets"))
    connections.install(12, scopes=("oauth", "crm.objects.tickets.read"))
    assert "lacking scopes" not in operator.open("/connections")
    sql.rows(REQUIRE_TICKETS)
    ScopeWatch(engine).measure()
    assert "lacking scopes (1)" in operator.open("/connections")
    assert listed_hubs(operator.open("/connections?lacking=scopes")) == [12]
    assert listed_hubs(operator.open("/connections?lacking=scopes&q=1&sort=due")) == [12]
    assert "What is missing" not in operator.open("/connections/11")
    page = operator.open("/connections/12")
    assert "coarse; HubSpot has replaced it by crm.objects.tickets.read" in page
    assert "/install?hub_id=12" in page


@pytest.mark.parametrize("query", ["status=x", "sort=x", "after=x", "before=%00", "after=a&before=b", "q=" + "x" * 999])
def test_invalid_list_parameters_lead_to_the_list(operator: Operator, query: str) -> None:
    text = operator.open(f"/connections?{query}", status=400)
    assert 'href="/connections"' in text


@pytest.mark.parametrize(
    "query", ["q=%00", "q=%27%3B--", "q=%25", "q=_", "q=\\", "q=%E2%80%AE", "status=&sort=&q=&after="]
)
def test_any_search_text_is_accepted(operator: Operator, connections: ConnectionFixture, query: str) -> None:
    connections.install()
    operator.open(f"/connections?{query}")


any_text = st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))


@hypothesis.settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(["/connections", "/operator"])
    | any_text.map(lambda text: "/connections/" + text.replace("?", "")),
    query=st.dictionaries(
        st.sampled_from(["status", "q", "sort", "after", "before", "notice"]),
        st.sampled_from(["active", "due", "failures", "1", "ended"]) | any_text,
    ),
)
def test_no_address_of_an_operators_page_is_a_server_error(
    operator: Operator, path: str, query: dict[str, str]
) -> None:
    assert operator.get(path, query_string=query).status_code < 500


# --- one connection ---


def test_a_connection_shows_its_history_and_how_to_read_its_token(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    text = operator.open(f"/connections/{HUB}")
    visible = visible_text(text)
    assert "Installed" in visible
    assert "Read contacts" in visible
    assert f"WHERE hub_id = {HUB};" in visible
    assert re.search(r"\(in (29|30) min", visible)
    assert f"access-of-{HUB}" not in text
    assert f"encrypted-of-{HUB}" not in text  # words: ok


def test_a_revoked_connection_shows_the_reason_and_the_link_for_the_customer(
    operator: Operator, connections: ConnectionFixture
) -> None:
    connections.install()
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    text = operator.open(f"/connections/{HUB}")
    assert f'value="{operator.origin}/install?hub_id={HUB}"' in text
    visible = visible_text(text)
    assert "HubSpot says that the refresh token is no longer valid" in visible
    assert "BAD_REFRESH_TOKEN" in visible
    assert "Ask the customer to install the app again" in visible
    assert "What the app was allowed to do" in visible
    assert "hubspot.tokens" not in visible, "it returns no row"


def test_text_from_hubspot_is_escaped(operator: Operator, connections: ConnectionFixture, stores: Stores) -> None:
    connections.install(scopes=("oauth", "<b>\x1b[2Jbold"))
    stores.save_account_info(HUB, "<script>alert(1)</script>", "\u202eann@example.com")
    for path in ("/connections", f"/connections/{HUB}", f"/connections/{HUB}/disconnect"):
        text = operator.open(path)
        assert "<script>alert" not in text
        assert "<b>" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_an_unknown_refusal_shows_its_code(operator: Operator, connections: ConnectionFixture) -> None:
    connections.install()
    connections.stores.results.save(
        [connections.make_failure(connections.claim_one(), UnknownRefusal("SOMETHING_NEW", http_status=418))]
    )
    visible = visible_text(operator.open(f"/connections/{HUB}"))
    assert "HubSpot refused with a code that this version does not know" in visible
    assert "SOMETHING_NEW (HTTP 418)" in visible


@pytest.mark.parametrize("hub_id", ["62515", "0", "-1", "x", "1.5", "9" * 19, "9" * 30, "9" * 5000, "%00", "٣", "1%0a"])
def test_the_page_of_an_unknown_account_is_not_found(operator: Operator, hub_id: str) -> None:
    for path in (f"/connections/{hub_id}", f"/connections/{hub_id}/disconnect"):
        assert 'href="/connections"' in operator.open(path, status=404)


# --- refresh now ---


def test_refresh_now_makes_a_connection_due(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    page, action = f"/connections/{HUB}", f"/connections/{HUB}/refresh"
    assert "Due now" in operator.submit(page, action)
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")
    assert "Due already" in operator.submit(page, action)


def test_refresh_now_tries_a_revoked_connection_again(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    assert "Due now" in operator.submit(f"/connections/{HUB}", f"/connections/{HUB}/refresh")
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")


def test_refresh_now_does_not_repeat_a_refresh_in_flight(operator: Operator, connections: ConnectionFixture) -> None:
    connections.install()
    connections.claim_one()
    assert "in flight already" in operator.submit(f"/connections/{HUB}", f"/connections/{HUB}/refresh")


# --- disconnect ---


def test_disconnect_asks_first_and_then_ends_the_connection_at_once(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture, count_interactive_messages: Callable[[], int]
) -> None:
    connections.install()
    question = f"/connections/{HUB}/disconnect"
    assert f'href="{question}"' in operator.open(f"/connections/{HUB}")
    assert sql.read_served_token() is not None
    text = operator.submit(question, question)
    assert "being uninstalled at HubSpot" in text
    assert sql.read_served_token() is None
    assert count_interactive_messages() == 1
    assert "is already disconnected" in operator.open(question)
    assert "Refresh now" not in text


def test_a_repeated_disconnect_changes_nothing(
    operator: Operator, connections: ConnectionFixture, stores: Stores, count_interactive_messages: Callable[[], int]
) -> None:
    connections.install()
    question = f"/connections/{HUB}/disconnect"
    token = operator.csrf_token(question)
    for _ in range(2):
        assert "notice=ended" in operator.post(question, token).headers["Location"]
    assert count_interactive_messages() == 2
    stores.disconnect(HUB)
    response = operator.post(question, token)
    assert "It was disconnected already" in operator.open(response.headers["Location"])


def test_an_action_on_an_unknown_account_is_not_found(operator: Operator, connections: ConnectionFixture) -> None:
    connections.install()
    token = operator.csrf_token(f"/connections/{HUB}")
    for action in ("/connections/7/refresh", "/connections/7/disconnect", f"/connections/{'9' * 19}/refresh"):
        assert operator.post(action, token).status_code == 404


# --- secrets and evidence ---


def test_no_page_contains_a_secret(operator: Operator, connections: ConnectionFixture, engine: Engine) -> None:
    connections.install(access_token="CIsecret-access", encrypted_refresh_token="gAAAAsealed-refresh")
    pages = [operator.open(path) for path in ("/operator", "/connections", f"/connections/{HUB}")]
    pages.append(operator.submit(f"/connections/{HUB}/disconnect", f"/connections/{HUB}/disconnect"))
    for text in pages:
        for secret in ("CIsecret", "gAAAA", PASSWORD):
            assert secret not in text


def test_a_suspect_connection_shows_the_evidence(operator: Operator, connections: ConnectionFixture) -> None:
    connections.install()
    dead = InvalidGrant("BAD_HUB", http_status=400, correlation_id="0a1b2c3d-0000-4000-8000-000000000000")
    connections.stores.results.save([connections.make_failure(connections.claim_one(), dead)])
    assert "correlation id 0a1b2c3d-0000-4000-8000-000000000000" in visible_text(operator.open(f"/connections/{HUB}"))


def test_of_a_hub_with_several_connections_the_page_lets_one_choose_and_an_action_changes_that_one(
    operator: Operator, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for app, user_id in (("default", None), ("personal", 7), ("personal", 8)):
        connections.install(app=app, user_id=user_id)
    sql.rows("UPDATE tokenkeeper.connections SET customer = 'Acme & Co' WHERE user_id = 8")
    choice = operator.open(f"/connections/{HUB}")
    assert "has 3 connections" in choice
    for query in ("app=default", "app=personal&amp;user=7", "app=personal&amp;user=8"):
        assert f'href="/connections/{HUB}?{query}"' in choice
    page, action = f"/connections/{HUB}?app=personal&user=8", f"/connections/{HUB}/refresh?app=personal&amp;user=8"
    assert "Acme &amp; Co" in operator.open(page)
    token = operator.csrf_token(page, action)
    assert operator.post(f"/connections/{HUB}/refresh", token).status_code == 400
    assert operator.post(action.replace("&amp;", "&"), token).status_code == 303
    requested = "SELECT c.user_id FROM tokenkeeper.refresh_requests AS r JOIN tokenkeeper.connections AS c"
    assert sql.rows(f"{requested} ON c.id = r.connection_id") == [(8,)]
    listed = operator.open("/connections?customer=Acme+%26+Co")
    assert listed.count(f">{HUB}</a>") == 1
    for wrong in ("app=Personal", "user=x", "app=personal&user=9"):
        operator.open(f"/connections/{HUB}?{wrong}", status=404)
