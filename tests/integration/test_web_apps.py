"""The handshake of several apps over HTTP: an ordinary one, its staging twin, and one that each user connects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.support.apps_file import use_apps_file
from tests.support.http_server import serving
from tests.support.stores import SqlFixture
from tests.support.visitor import Visitor

HUB = 62515
ADA, BEN = 222222, 777
USERS = "the-user-level-app"
STAGING = "the-staging-app"


@pytest.fixture
def url(environment: Callable[..., dict[str, str]], simulator: SimulatorControl, tmp_path: Path) -> Iterator[str]:
    """Web alone. Where no Redis answers, it stores an install itself."""
    simulator.add_app(USERS, user_level=True)
    simulator.add_app(STAGING, client_secrets=["staging-secret"])
    apps = {
        "default": {},
        "staging": {"client_id": STAGING, "client_secret": "staging-secret"},
        "users": {"client_id": USERS, "user_level": True},
    }
    one_app = environment(REDIS_URL="redis://127.0.0.1:1/0")
    with serving(use_apps_file(one_app, tmp_path / "apps.toml", apps)) as url:
        yield url


def install(url: str, simulator: SimulatorControl, query: str, user_id: int | None = None) -> None:
    """In a browser of its own, until its page says that it is connected."""
    with Visitor(url, simulator) as visitor:
        consent_page = visitor.get(f"/install{query}").headers["Location"]
        answer = visitor.get(simulator.allow(consent_page, HUB, user_id))
        assert answer.status_code == 303, answer.text
        visitor.wait(answer.headers["Location"])


def read_connections(sql: SqlFixture) -> list[tuple[object, ...]]:
    return sql.rows("SELECT app, hub_id, user_id FROM hubspot.tokens ORDER BY app, user_id")


def test_a_hub_in_three_apps_and_two_users_in_one_of_them_are_four_connections(
    url: str, simulator: SimulatorControl, sql: SqlFixture
) -> None:
    install(url, simulator, "")
    install(url, simulator, "?app=staging")
    install(url, simulator, "?app=users", ADA)
    simulator.change_settings(client_id=USERS, omit=["user_id"])  # then introspection is asked for it
    install(url, simulator, "?app=users", BEN)
    install(url, simulator, "?app=users", BEN)
    assert read_connections(sql) == [
        ("default", HUB, None),
        ("staging", HUB, None),
        ("users", HUB, BEN),
        ("users", HUB, ADA),
    ]
    tokens = [token for (token,) in sql.rows("SELECT access_token FROM hubspot.tokens")]
    assert all(check.is_live for check in simulator.check_tokens(tokens))
    assert len(set(tokens)) == len(tokens)


def test_an_install_waits_in_the_browser_until_hubspot_says_whose_it_is(
    url: str, simulator: SimulatorControl, sql: SqlFixture
) -> None:
    simulator.change_settings(client_id=USERS, omit=["user_id"])
    fault = simulator.add_fault(503, where="introspect", client_id=USERS)
    with Visitor(url, simulator) as visitor:
        consent_page = visitor.get("/install?app=users").headers["Location"]
        answer = visitor.get(simulator.allow(consent_page, HUB, ADA))
        assert answer.status_code == 303, answer.text
        path = answer.headers["Location"]
        assert visitor.status(path)["state"] == "storing"
        assert read_connections(sql) == []

        simulator.clear_faults(fault)
        visitor.wait(path)
    assert sql.rows("SELECT app, user_id FROM hubspot.connections") == [("users", ADA)]
