"""The operator's pages on a real database and a real Redis: what they show, and what becomes of each order."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import redis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable, UnknownRefusal
from shared.domain.provider import CallOutcome
from shared.settings import Settings
from tests.support.builders import HUB
from tests.support.environment import web_environment
from tests.support.stores import ConnectionFixture, SqlFixture, Stores
from web.app import create_app
from web.server.startup import make_services

PASSWORD = "correct horse battery staple"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"operator:{PASSWORD}".encode()).decode()}


class Desk:
    """An operator's browser, signed in."""

    def __init__(self, browser: FlaskClient, origin: str) -> None:
        self.browser = browser
        self.origin = origin

    def open(self, path: str, status: int = 200) -> str:
        answer = self.browser.get(path, headers=BASIC)
        assert answer.status_code == status, answer.text
        return answer.text

    def press(self, page: str, action: str) -> TestResponse:
        """Send the form of a page; the answer to it."""
        text = self.open(page)
        form = re.search(rf'<form method="post" action="{re.escape(action)}">.*?</form>', text, re.DOTALL)
        assert form, f"no form for {action} on {page}"
        token = re.search(r'name="csrf_token" value="([^"]+)"', form[0])
        assert token
        return self.browser.post(action, data={"csrf_token": token[1]}, headers=BASIC)

    def told(self, page: str, action: str) -> str:
        """The page to which that leads."""
        answer = self.press(page, action)
        assert answer.status_code == 303, answer.text
        return self.open(answer.headers["Location"])


@pytest.fixture
def settings(environment: Callable[..., dict[str, str]]) -> dict[str, str]:
    return environment(OPERATOR_PASSWORD=PASSWORD)


@pytest.fixture
def desk(settings: dict[str, str]) -> Desk:
    ours = Settings.from_env(web_environment(settings))
    made = make_services(ours)
    return Desk(create_app(made).test_client(), made.origin)


@pytest.fixture
def queued(settings: dict[str, str]) -> Iterator[Callable[[], int]]:
    """How many messages wait that people wait for."""
    with redis.Redis.from_url(settings["REDIS_URL"]) as client:
        yield lambda: int(client.llen("tokenkeeper.interactive"))  # type: ignore[arg-type]


def shown(text: str) -> str:
    """The page as it is read: without tags, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def verdict(desk: Desk) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", desk.open("/operator"))
    assert found
    return found[1]


def swept(sql: SqlFixture) -> None:
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")


# --- the overview ---


def test_an_empty_database_says_that_nothing_is_swept_and_then_that_nobody_is_connected(
    desk: Desk, sql: SqlFixture
) -> None:
    assert verdict(desk) == "Nothing is refreshed."
    swept(sql)
    assert verdict(desk) == "No account is connected."


def test_the_overview_says_in_words_how_all_is_doing(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for hub_id in (1, 2, 3):
        connections.install(hub_id)
    swept(sql)
    assert verdict(desk) == "All 3 connections are fresh."
    connections.stores.results.save([connections.revoked(connections.claim_one(3))])
    text = shown(desk.open("/operator"))
    assert "1 connection needs you." in text
    assert "2 active" in text
    assert "1 revoked" in text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            TemporarilyUnavailable("server_error", http_status=502),
            ("HubSpot does not answer.", "HubSpot had an error of its own"),
        ),
        (InvalidClient("BAD_CLIENT_SECRET", http_status=400), ("HubSpot refuses our app.", "HUBSPOT_CLIENT_SECRET")),
    ],
)
def test_hubspots_state_is_told_with_its_reason_and_what_to_do(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture, error: ProviderError, told: tuple[str, str]
) -> None:
    connections.install()
    swept(sql)
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=error)] * 5)
    headline, advice = told
    assert verdict(desk) == headline
    text = shown(desk.open("/operator"))
    assert advice in text
    assert str(error) in text
    assert "UTC" in text


def test_refreshes_and_remaining_life_are_shown_as_charts_and_as_numbers(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.rows("INSERT INTO tokenkeeper.refreshes_by_minute VALUES (date_trunc('minute', now()), 1234, 5)")
    text = desk.open("/operator")
    assert "1,234 refreshed, 5 failed" in text
    assert '<td class="right">1,234</td>' in text
    assert "25 min to 30 min" in text


# --- the brake ---


@pytest.fixture
def held(connections: ConnectionFixture, stores: Stores, sql: SqlFixture) -> int:
    """Twelve are called dead at once: ten are revoked, the brake holds two."""
    for hub_id in range(1, 13):
        connections.install(hub_id)
    sql.set("due_at = now() - interval '1 second'")
    stores.results.save([connections.revoked(claimed) for claimed in stores.claims.claim(12).rows])
    return 2


def test_the_brake_is_dismissed(desk: Desk, held: int, sql: SqlFixture) -> None:
    assert f"{held} connections are held by the brake." == verdict(desk)
    text = desk.told("/operator", "/operator/revocations/dismiss")
    assert "active and due again" in text
    assert sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'active'") == 12
    assert "The revocation brake is on" not in text


def test_the_brake_is_confirmed(desk: Desk, held: int, sql: SqlFixture) -> None:
    assert "are revoked now" in desk.told("/operator", "/operator/revocations/confirm")
    assert sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'revoked'") == 12


def test_a_brake_that_somebody_else_ended_is_no_error(desk: Desk, held: int, stores: Stores) -> None:
    page = desk.open("/operator")
    stores.brake.dismiss()
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    answer = desk.browser.post("/operator/revocations/confirm", data={"csrf_token": token[1]}, headers=BASIC)
    assert "there was nothing to decide" in desk.open(answer.headers["Location"])


def test_one_that_the_brake_holds_leads_to_the_overview(desk: Desk, held: int, sql: SqlFixture) -> None:
    hub_id = sql.value("SELECT hub_id FROM hubspot.connections WHERE status = 'suspect' LIMIT 1")
    assert "Decide for all of them on the overview" in desk.open(f"/connections/{hub_id}")


# --- the list ---


def hubs(text: str) -> list[int]:
    return [int(found) for found in re.findall(r'<th scope="row"><a href="/connections/(\d+)"', text)]


def link(text: str, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]+)"', text)
    return found[1].replace("&amp;", "&") if found else None


def test_the_list_is_paged_both_ways(desk: Desk, connections: ConnectionFixture) -> None:
    connections.many_due(120)
    first = desk.open("/connections")
    assert hubs(first) == list(range(1, 51))
    assert link(first, "prev") is None
    second = desk.open(link(first, "next") or "")
    third = desk.open(link(second, "next") or "")
    assert hubs(second) == list(range(51, 101))
    assert hubs(third) == list(range(101, 121))
    assert link(third, "next") is None
    assert hubs(desk.open(link(third, "prev") or "")) == hubs(second)


def test_it_is_filtered_searched_and_sorted(desk: Desk, connections: ConnectionFixture, stores: Stores) -> None:
    for hub_id in (11, 12, 21):
        connections.install(hub_id)
        stores.account_info.save(hub_id, f"shop-{hub_id}.example", f"Ann@shop-{hub_id}.example")
    stores.results.save(
        [
            connections.failed(connections.claim_one(12)),
        ]
    )
    stores.results.save([connections.revoked(connections.claim_one(21))])
    assert hubs(desk.open("/connections?status=revoked")) == [21]
    assert hubs(desk.open("/connections?q=1")) == [11, 12]
    assert hubs(desk.open("/connections?q=ANN%40shop-2")) == [21]
    assert hubs(desk.open("/connections?sort=failures")) == [12], "21 is revoked: nobody tries it"
    assert 'aria-sort="descending"' in desk.open("/connections?sort=failures")
    assert "Nothing is found" in desk.open("/connections?q=nobody")
    assert "revoked (1)" in desk.open("/connections")


@pytest.mark.parametrize("query", ["status=x", "sort=x", "after=x", "before=%00", "after=a&before=b", "q=" + "x" * 999])
def test_what_no_page_of_ours_links_to_is_told_so(desk: Desk, query: str) -> None:
    text = desk.open(f"/connections?{query}", status=400)
    assert 'href="/connections"' in text


@pytest.mark.parametrize(
    "query", ["q=%00", "q=%27%3B--", "q=%25", "q=_", "q=\\", "q=%E2%80%AE", "status=&sort=&q=&after="]
)
def test_odd_searches_find_nothing_or_all_and_break_nothing(
    desk: Desk, connections: ConnectionFixture, query: str
) -> None:
    connections.install()
    desk.open(f"/connections?{query}")


any_text = st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/connections", "/operator"])
    | any_text.map(lambda text: "/connections/" + text.replace("?", "")),
    query=st.dictionaries(
        st.sampled_from(["status", "q", "sort", "after", "before", "notice"]),
        st.sampled_from(["active", "due", "failures", "1", "ended"]) | any_text,
    ),
)
def test_nothing_an_operator_can_send_is_a_server_error(desk: Desk, path: str, query: dict[str, str]) -> None:
    assert desk.browser.get(path, query_string=query, headers=BASIC).status_code < 500


# --- one connection ---


def test_a_fresh_one_is_told_with_its_history_and_how_to_read_its_token(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    text = desk.open(f"/connections/{HUB}")
    told = shown(text)
    assert "Installed" in told
    assert "Read contacts" in told
    assert f"WHERE hub_id = {HUB};" in told
    assert "(in 29 min" in told
    assert f"access-of-{HUB}" not in text
    assert f"sealed-of-{HUB}" not in text


def test_a_revoked_one_says_why_and_has_the_link_for_the_customer(desk: Desk, connections: ConnectionFixture) -> None:
    connections.install()
    connections.stores.results.save([connections.revoked(connections.claim_one())])
    text = desk.open(f"/connections/{HUB}")
    assert f'value="{desk.origin}/install?hub_id={HUB}"' in text
    told = shown(text)
    assert "HubSpot says that the refresh token is no good any more" in told
    assert "BAD_REFRESH_TOKEN" in told
    assert "Have the customer install again" in told


def test_what_others_wrote_is_shown_and_not_run(desk: Desk, connections: ConnectionFixture, stores: Stores) -> None:
    connections.install(scopes=("oauth", "<b>\x1b[2Jbold"))
    stores.account_info.save(HUB, "<script>alert(1)</script>", "\u202eann@example.com")
    for path in ("/connections", f"/connections/{HUB}", f"/connections/{HUB}/disconnect"):
        text = desk.open(path)
        assert "<script>alert" not in text
        assert "<b>" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_an_odd_refusal_is_told_by_its_code(desk: Desk, connections: ConnectionFixture) -> None:
    connections.install()
    connections.stores.results.save(
        [connections.failed(connections.claim_one(), UnknownRefusal("SOMETHING_NEW", http_status=418))]
    )
    told = shown(desk.open(f"/connections/{HUB}"))
    assert "HubSpot refused, in words that we do not know" in told
    assert "SOMETHING_NEW (HTTP 418)" in told


@pytest.mark.parametrize("hub_id", ["62515", "0", "-1", "x", "1.5", "9" * 19, "9" * 30, "9" * 5000, "%00", "٣", "1%0a"])
def test_an_account_that_was_never_here_is_not_found(desk: Desk, hub_id: str) -> None:
    for path in (f"/connections/{hub_id}", f"/connections/{hub_id}/disconnect"):
        assert 'href="/connections"' in desk.open(path, status=404)


# --- refresh now ---


def test_refresh_now_makes_it_due_and_says_so(desk: Desk, connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    page, action = f"/connections/{HUB}", f"/connections/{HUB}/refresh"
    assert "Due now" in desk.told(page, action)
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")
    assert "Due already" in desk.told(page, action)


def test_a_revoked_one_is_tried_again(desk: Desk, connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    connections.stores.results.save([connections.revoked(connections.claim_one())])
    assert "Due now" in desk.told(f"/connections/{HUB}", f"/connections/{HUB}/refresh")
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")


def test_one_in_flight_is_left_alone(desk: Desk, connections: ConnectionFixture) -> None:
    connections.install()
    connections.claim_one()
    assert "in flight already" in desk.told(f"/connections/{HUB}", f"/connections/{HUB}/refresh")


# --- disconnect ---


def test_disconnect_asks_first_and_then_ends_it_at_once(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture, queued: Callable[[], int]
) -> None:
    connections.install()
    question = f"/connections/{HUB}/disconnect"
    assert f'href="{question}"' in desk.open(f"/connections/{HUB}")
    assert sql.served() is not None
    text = desk.told(question, question)
    assert "HubSpot is being told" in text
    assert sql.served() is None
    assert queued() == 1
    assert "disconnected already" in desk.open(question)
    assert "Refresh now" not in text


def test_disconnecting_twice_is_harmless(
    desk: Desk, connections: ConnectionFixture, stores: Stores, queued: Callable[[], int]
) -> None:
    connections.install()
    question = f"/connections/{HUB}/disconnect"
    token = re.search(r'name="csrf_token" value="([^"]+)"', desk.open(question))
    assert token
    for _ in range(2):
        answer = desk.browser.post(question, data={"csrf_token": token[1]}, headers=BASIC)
        assert "notice=ended" in answer.headers["Location"]
    assert queued() == 2
    stores.disconnects.wipe_tokens(HUB)
    answer = desk.browser.post(question, data={"csrf_token": token[1]}, headers=BASIC)
    assert "nothing left to end" in desk.open(answer.headers["Location"])


def test_orders_for_an_account_that_was_never_here_are_not_found(desk: Desk, connections: ConnectionFixture) -> None:
    connections.install()
    token = re.search(r'name="csrf_token" value="([^"]+)"', desk.open(f"/connections/{HUB}"))
    assert token
    for action in ("/connections/7/refresh", "/connections/7/disconnect", f"/connections/{'9' * 19}/refresh"):
        assert desk.browser.post(action, data={"csrf_token": token[1]}, headers=BASIC).status_code == 404


# --- what must not be seen ---


def test_no_page_holds_a_secret(desk: Desk, connections: ConnectionFixture, engine: Engine) -> None:
    connections.install(access_token="CIsecret-access", encrypted_refresh_token="gAAAAsealed-refresh")
    pages = [desk.open(path) for path in ("/operator", "/connections", f"/connections/{HUB}")]
    pages.append(desk.told(f"/connections/{HUB}/disconnect", f"/connections/{HUB}/disconnect"))
    for text in pages:
        for secret in ("CIsecret", "gAAAA", PASSWORD):
            assert secret not in text


def test_a_verdict_of_death_shows_its_evidence(desk: Desk, connections: ConnectionFixture) -> None:
    connections.install()
    dead = InvalidGrant("BAD_HUB", http_status=400, correlation_id="0a1b2c3d-0000-4000-8000-000000000000")
    connections.stores.results.save([connections.failed(connections.claim_one(), dead)])
    assert "correlation id 0a1b2c3d-0000-4000-8000-000000000000" in shown(desk.open(f"/connections/{HUB}"))
