"""The simulator serves several apps, account-level and user-level ones, each with its own grants and faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.simulator.control import DEMO_CLIENT_ID, ConsentRefused, ControlFailed
from sandbox.simulator.simulation import Simulation
from tests.support.simulator import APP, CALLBACK, HUB, SimulatorFixture, parse_redirect, run_simulator

SECOND, USERS = "the-second-app", "the-user-level-app"
ADA, BEN = 222222, 777


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        fixture.control.add_app(SECOND, client_secrets=["second-secret"], redirect_uris=["http://localhost:1/second"])
        fixture.control.add_app(USERS, user_level=True)
        yield fixture


def as_app(client_id: str) -> dict[str, str]:
    secrets = {SECOND: "second-secret"}
    return {"client_id": client_id, "client_secret": secrets.get(client_id, APP["client_secret"])}


def install_for_user(simulator: SimulatorFixture, user_id: int) -> dict[str, object]:
    url = simulator.authorize_url(client_id=USERS)
    code = parse_redirect(simulator.control.allow(url, HUB, user_id))["code"]
    return dict(simulator.exchange(code, **as_app(USERS)).json())


def test_each_app_has_its_own_secrets_redirect_uris_and_tokens(simulator: SimulatorFixture) -> None:
    first, second = simulator.control.install(HUB), simulator.control.install(HUB, SECOND)
    assert simulator.refresh(first).ok
    assert simulator.refresh(second, **as_app(SECOND)).ok
    for token, app in ((first, SECOND), (second, DEMO_CLIENT_ID)):
        assert simulator.refresh(token, **as_app(app)).json()["status"] == "BAD_REFRESH_TOKEN"
        assert simulator.introspect(token, **as_app(app)) == {"active": False}
    assert simulator.refresh(second, client_id=SECOND).json()["status"] == "BAD_CLIENT_SECRET"
    with pytest.raises(ConsentRefused, match="registered redirect URL"):
        simulator.control.allow(simulator.authorize_url(client_id=SECOND), HUB)


def test_an_access_token_is_unknown_to_another_app_and_names_its_own(simulator: SimulatorFixture) -> None:
    access = simulator.refresh(simulator.control.install(HUB, SECOND), **as_app(SECOND)).json()["access_token"]
    assert simulator.introspect(access) == {"active": False}
    described = simulator.introspect(access, **as_app(SECOND))
    assert described["client_id"] == SECOND
    assert described["app_id"] == simulator.control.get_app_id(SECOND) != simulator.control.get_app_id(DEMO_CLIENT_ID)


def test_an_uninstall_of_one_app_leaves_the_others_tokens_alone(simulator: SimulatorFixture) -> None:
    first, second = simulator.control.install(HUB), simulator.control.install(HUB, SECOND)
    second_access = simulator.refresh(second, **as_app(SECOND)).json()["access_token"]
    assert simulator.control.uninstall(HUB, client_id=DEMO_CLIENT_ID) == 1
    assert not simulator.refresh(first).ok
    assert simulator.refresh(second, **as_app(SECOND)).ok
    assert simulator.get_contacts(second_access).ok
    assert simulator.control.uninstall(HUB) == 1
    assert not simulator.get_contacts(second_access).ok
    assert simulator.control.uninstall(HUB) == 0


def test_all_grants_of_one_app_are_ended_in_one_call(simulator: SimulatorFixture) -> None:
    first = simulator.control.install_many(20)
    second = simulator.control.install_many(20, client_id=SECOND)
    assert simulator.control.uninstall(client_id=SECOND) == 20
    assert simulator.refresh(next(iter(first.values()))).ok
    assert not simulator.refresh(next(iter(second.values())), **as_app(SECOND)).ok


def test_faults_settings_and_statistics_can_be_limited_to_one_app(simulator: SimulatorFixture) -> None:
    first, second = simulator.control.install(HUB), simulator.control.install(HUB, SECOND)
    simulator.control.add_fault(429, client_id=SECOND, where="all", times=2)
    simulator.control.change_settings(client_id=SECOND, lifetime=40)
    assert simulator.refresh(first).json()["expires_in"] == 1800
    assert simulator.refresh(second, **as_app(SECOND)).status_code == 429
    assert simulator.post("token/introspect", **as_app(SECOND), token=second).status_code == 429
    assert simulator.refresh(second, **as_app(SECOND)).json()["expires_in"] == 40
    calls = simulator.control.get_stats()["calls_by_app"]
    assert calls[DEMO_CLIENT_ID]["token/refresh"] == {"ok": 1}
    assert calls[SECOND]["token/refresh"] == {"http_429": 1, "ok": 1}
    simulator.control.change_settings(client_id=SECOND, client_secrets=["changed"])
    assert simulator.refresh(second, **as_app(SECOND)).json()["status"] == "BAD_CLIENT_SECRET"
    assert "changed" not in str(simulator.control.get_settings())


@pytest.mark.parametrize("wrong", [{"client_ids": ["x"]}, {"clock_error": 5}, {"no_such": 1}])
def test_an_invalid_setting_of_an_app_is_refused_and_creates_no_app(
    simulator: SimulatorFixture, wrong: dict[str, object]
) -> None:
    with pytest.raises(ControlFailed, match=next(iter(wrong))):
        simulator.control.add_app("third", **wrong)
    with pytest.raises(ControlFailed, match="client_id: one of"):
        simulator.control.install(HUB, "third")


def test_each_user_of_an_account_has_a_grant_of_their_own(simulator: SimulatorFixture) -> None:
    ada, ben = install_for_user(simulator, ADA), install_for_user(simulator, BEN)
    assert (ada["user_id"], ben["user_id"]) == (ADA, BEN)
    assert ada["refresh_token"] != ben["refresh_token"]
    for grant, user_id, email in (
        (ada, ADA, "olive@northwind-bakery.example"),
        (ben, BEN, f"user-{BEN}@northwind-bakery.example"),
    ):
        described = simulator.introspect(str(grant["access_token"]), **as_app(USERS))
        assert (described["hub_id"], described["user_id"], described["user"]) == (HUB, user_id, email)
        signed = described["signed_access_token"]
        assert (signed["isUserLevel"], signed["userId"], signed["installingUserId"]) == (True, user_id, user_id)
        assert simulator.introspect(str(grant["refresh_token"]), **as_app(USERS))["user_id"] == user_id
        assert simulator.refresh(str(grant["refresh_token"]), **as_app(USERS)).json()["user_id"] == user_id


def test_an_account_level_app_gets_no_user_id_and_introspection_names_who_authorized_it(
    simulator: SimulatorFixture,
) -> None:
    grant = simulator.refresh(simulator.control.install(HUB)).json()
    assert "user_id" not in grant
    described = simulator.introspect(grant["access_token"])
    assert (described["user_id"], described["signed_access_token"]["isUserLevel"]) == (ADA, False)


def test_the_user_id_can_be_left_out_of_token_replies(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(client_id=USERS, omit=["user_id"])
    grant = install_for_user(simulator, BEN)
    assert "user_id" not in grant
    assert simulator.introspect(str(grant["access_token"]), **as_app(USERS))["user_id"] == BEN


def test_revoking_and_uninstalling_one_users_grant_leave_the_others_alone(simulator: SimulatorFixture) -> None:
    ada, ben, cyd = (str(install_for_user(simulator, user)["refresh_token"]) for user in (ADA, BEN, 888))
    simulator.post("token/revoke", **as_app(USERS), token=ada)
    assert simulator.control.uninstall(HUB, client_id=USERS, user_id=BEN) == 1
    assert not simulator.refresh(ada, **as_app(USERS)).ok
    assert not simulator.refresh(ben, **as_app(USERS)).ok
    access = simulator.refresh(cyd, **as_app(USERS)).json()["access_token"]
    check = simulator.control.check_tokens([access])[0]
    assert (check.state, check.hub_id, check.client_id, check.user_id) == ("live", HUB, USERS, 888)


def test_the_consent_page_lets_one_choose_a_user_only_for_a_user_level_app(simulator: SimulatorFixture) -> None:
    page = simulator.http.get(simulator.authorize_url(client_id=USERS), timeout=60).text
    assert "Choose a user of the account" in page
    assert "Choose a user" not in simulator.http.get(simulator.authorize_url(), timeout=60).text
    form = {"client_id": USERS, "redirect_uri": CALLBACK, "scope": "oauth", "answer": "allow", "hub_id": str(HUB)}
    reply = simulator.http.post(f"{simulator.url}/oauth/authorize", data={**form, "other_user_id": "x"}, timeout=60)
    assert "Choose a user, or type the number of one" in reply.text


def test_concurrent_refreshes_of_two_users_of_one_account_are_no_overlap(simulator: SimulatorFixture) -> None:
    ada, ben = (str(install_for_user(simulator, user)["refresh_token"]) for user in (ADA, BEN))
    simulator.control.add_fault("slow", client_id=USERS, seconds=60)
    with simulator.send_refresh(ada, **as_app(USERS)), simulator.send_refresh(ben, **as_app(USERS)):
        simulator.wait_until_in_flight(2)
        assert simulator.control.get_stats()["violations"] == 0
        with simulator.send_refresh(ben, **as_app(USERS)):
            simulator.wait_until_in_flight(3)
    stats = simulator.control.get_stats()
    assert (stats["most_refreshes_of_one_hub"], stats["violations"]) == (2, 1)
    details = stats["violation_details"][0]
    assert (details["hub_id"], details["client_id"], details["user_id"]) == (HUB, USERS, BEN)


def test_the_front_page_uninstalls_one_app_of_an_account(simulator: SimulatorFixture) -> None:
    first, second = simulator.control.install(HUB), simulator.control.install(HUB, SECOND)
    assert f"Uninstall {SECOND} from Northwind Bakery" in simulator.http.get(simulator.url, timeout=60).text
    form = {"client_id": SECOND, "user_id": "0"}
    simulator.http.post(f"{simulator.url}/accounts/{HUB}/uninstall", data=form, timeout=60)
    assert simulator.refresh(first).ok
    assert not simulator.refresh(second, **as_app(SECOND)).ok


def test_a_state_file_of_version_0_1_keeps_what_is_installed_in_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with sqlite3.connect(path) as old:
        old.executescript("""
            CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
            CREATE TABLE accounts (hub_id INTEGER PRIMARY KEY, name TEXT NOT NULL, domain TEXT NOT NULL,
              user TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 0);
            CREATE TABLE codes (code TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL,
              redirect_uri TEXT NOT NULL, scopes TEXT NOT NULL, expires_at REAL NOT NULL);
            CREATE TABLE refresh_tokens (token TEXT PRIMARY KEY, hub_id INTEGER NOT NULL, client_id TEXT NOT NULL,
              scopes TEXT NOT NULL, dies_at REAL) WITHOUT ROWID;
            INSERT INTO accounts VALUES (7, 'Old', 'old.example', 'old@old.example', 2);
            INSERT INTO refresh_tokens VALUES ('na1-old', 7, 'app', 'oauth files', NULL), ('na1-dead', 8, 'app', '', 5);
        """)
    old.close()
    for _ in range(2):
        state = Simulation(lambda: 1000.0, path=str(path))
        assert state.refresh("na1-old", "app").parse_fields()["scopes"] == ["oauth", "files"]
        assert [each.hub_id for each in state.accounts.list_installations(client_id="app")] == [7]
        assert state.accounts.get_account(7).name == "Old"
        state.close()
