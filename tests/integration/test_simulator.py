"""The simulator answers as HubSpot does: consent, tokens, introspection, revocation, uninstall, the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from sandbox.simulator.control import ConsentRefused, ControlFailed
from tests.support.simulator import APP, CALLBACK, HUB, SimulatorFixture, returned, running

VERSIONS = ["v1", "v3", "2026-03", "2026-09"]


@pytest.fixture
def rig() -> Iterator[SimulatorFixture]:
    with running() as made:
        yield made


def four(reply: requests.Response) -> tuple[int, str, str]:
    """Status code, `status` and `error`, of a refusal whose four fields agree."""
    body = reply.json()
    assert set(body) == {"status", "message", "error", "error_description"}
    assert body["message"] == body["error_description"]
    return reply.status_code, body["status"], body["error"]


# Consent


def test_allow_sends_the_browser_back_with_a_code_and_the_state(rig: SimulatorFixture) -> None:
    back = rig.control.allow(rig.authorize_url(), HUB)
    assert back.startswith(CALLBACK + "?")
    assert returned(back)["state"] == "s p+c&e"
    assert returned(back)["code"].startswith("na1-")


def test_a_question_without_state_is_answered_without_state(rig: SimulatorFixture) -> None:
    assert set(returned(rig.control.allow(rig.authorize_url(state=None), HUB))) == {"code"}


def test_deny_sends_an_error_back_and_no_code(rig: SimulatorFixture) -> None:
    back = returned(rig.control.deny(rig.authorize_url()))
    assert back["error"] == "access_denied"
    assert back["error_description"]
    assert back["state"] == "s p+c&e"
    assert "code" not in back


def test_closing_the_page_sends_nothing_back(rig: SimulatorFixture) -> None:
    form = {"client_id": APP["client_id"], "redirect_uri": CALLBACK, "scope": "oauth", "answer": "close"}
    reply = rig.http.post(f"{rig.url}/oauth/authorize", data=form, allow_redirects=False, timeout=10)
    assert reply.status_code == 200
    assert "Location" not in reply.headers


def test_the_page_lists_accounts_and_scopes_and_says_that_it_is_a_simulator(rig: SimulatorFixture) -> None:
    page = rig.http.get(rig.authorize_url(scope="oauth crm.lists.read", optional_scope="files"), timeout=10).text
    for text in ("This is not HubSpot", "Northwind Bakery", "62515", "crm.lists.read", "files", "<script"):
        assert (text in page) is (text != "<script")


def test_a_preselected_account_is_the_only_one_on_the_page(rig: SimulatorFixture) -> None:
    page = rig.http.get(rig.authorize_url(preselected="777"), timeout=10).text
    assert "Account 777" in page
    assert "Northwind" not in page
    code = returned(rig.control.allow(rig.authorize_url(preselected="777"), HUB))["code"]
    assert rig.exchange(code).json()["hub_id"] == 777


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_id": "someone-else"}, "invalid application client_id"),
        ({"redirect_uri": "nonsense"}, "the redirect URL 'nonsense' doesn't match the app's registered redirect URL"),
        ({"redirect_uri": None}, "doesn't match the app's registered redirect URL"),
        ({"scope": ""}, "An invalid scope name was provided"),
        ({"scope": "oauth <script>"}, "An invalid scope name was provided"),
    ],
)
def test_a_wrong_authorize_url_shows_hubspots_error_page(
    rig: SimulatorFixture, changes: dict[str, str | None], words: str
) -> None:
    with pytest.raises(ConsentRefused) as refused:
        rig.control.allow(rig.authorize_url(**changes), HUB)
    assert words in str(refused.value)


def test_scopes_and_redirect_uris_are_checked_where_the_app_has_registered_them(rig: SimulatorFixture) -> None:
    rig.control.change_settings(required_scopes=["oauth", "files"], redirect_uris=[CALLBACK])
    with pytest.raises(ConsentRefused, match="the provided scopes are insufficient"):
        rig.control.allow(rig.authorize_url(), HUB)
    with pytest.raises(ConsentRefused, match="registered redirect URL"):
        rig.control.allow(rig.authorize_url(redirect_uri=CALLBACK + "/other", scope="oauth files"), HUB)
    assert rig.code(scope="files oauth")


def test_an_account_without_a_feature_loses_the_optional_scope_and_cannot_grant_a_required_one(
    rig: SimulatorFixture,
) -> None:
    rig.control.change_settings(HUB, unavailable_scopes=["files"])
    granted = rig.exchange(rig.code(optional_scope="files forms")).json()
    assert granted["scopes"] == ["oauth", "forms"]
    with pytest.raises(ConsentRefused, match="doesn't have access to some HubSpot features"):
        rig.control.allow(rig.authorize_url(scope="oauth files"), HUB)


@pytest.mark.parametrize("number", ["0", "-5", "1e3", "9223372036854775808", "٣", "x"])
def test_what_is_no_hub_id_is_refused_on_a_page(rig: SimulatorFixture, number: str) -> None:
    form = {"client_id": APP["client_id"], "redirect_uri": CALLBACK, "scope": "oauth", "answer": "allow"}
    reply = rig.http.post(f"{rig.url}/oauth/authorize", data={**form, "other_hub_id": number}, timeout=10)
    assert reply.status_code == 200
    assert "digits only" in reply.text


def test_the_front_page_uninstalls_as_a_customer_does(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    assert "Uninstall the app from Northwind Bakery" in rig.http.get(rig.url, timeout=10).text
    page = rig.http.post(f"{rig.url}/accounts/{HUB}/uninstall", timeout=10).text
    assert "Uninstall the app from" not in page
    assert four(rig.refresh(token)) == (400, "BAD_REFRESH_TOKEN", "invalid_grant")


# The token endpoint


@pytest.mark.parametrize("version", VERSIONS)
def test_a_code_and_then_a_refresh_token_bring_hubspots_seven_fields(rig: SimulatorFixture, version: str) -> None:
    first = rig.exchange(rig.code(), version).json()
    again = rig.refresh(first["refresh_token"], version).json()
    for grant in (first, again):
        assert set(grant) == {
            "token_type", "refresh_token", "access_token", "hub_id", "scopes", "expires_in", "token_use",
        }  # fmt: skip
        assert (grant["token_type"], grant["token_use"]) == ("bearer", "access_token")
        assert (grant["hub_id"], grant["scopes"], grant["expires_in"]) == (HUB, ["oauth"], 1800)
        assert len(grant["access_token"]) == 240
    assert again["refresh_token"] == first["refresh_token"]
    assert again["access_token"] != first["access_token"]


def test_a_code_is_good_once(rig: SimulatorFixture) -> None:
    code = rig.code()
    assert rig.exchange(code).ok
    assert four(rig.exchange(code)) == (400, "BAD_AUTH_CODE", "invalid_grant")
    assert four(rig.exchange("na1-made-up"))[1] == "BAD_AUTH_CODE"


def test_a_code_expires(rig: SimulatorFixture) -> None:
    rig.control.change_settings(code_lifetime=30)
    code = rig.code()
    rig.clock.ahead = 31
    assert four(rig.exchange(code))[1] == "EXPIRED_AUTH_CODE"


def test_a_code_is_bound_to_its_redirect_uri_and_its_app(rig: SimulatorFixture) -> None:
    rig.control.change_settings(client_ids=[APP["client_id"], "another-app"])
    code = rig.code()
    assert four(rig.exchange(code, redirect_uri=CALLBACK + "?"))[1] == "MISMATCH_REDIRECT_URI_AUTH_CODE"
    assert four(rig.exchange(code, client_id="another-app"))[1] == "BAD_AUTH_CODE"
    assert rig.exchange(code).ok


def test_checks_come_in_hubspots_order(rig: SimulatorFixture) -> None:
    """Content type, client id, grant type, secret, and only then the token."""
    bad = {"client_id": "x", "grant_type": "y", "client_secret": "z"}
    json_reply = rig.http.post(f"{rig.url}/oauth/2026-09/token", json=APP | bad, timeout=10)
    assert json_reply.status_code == 415
    assert four(rig.refresh("dead", **bad)) == (400, "BAD_CLIENT_ID", "invalid_request")
    del bad["client_id"]
    assert four(rig.refresh("dead", **bad))[1] == "BAD_GRANT_TYPE"
    del bad["grant_type"]
    assert four(rig.refresh("dead", **bad)) == (400, "BAD_CLIENT_SECRET", "invalid_client")
    assert four(rig.refresh("dead")) == (400, "BAD_REFRESH_TOKEN", "invalid_grant")


def test_json_sent_as_a_form_is_a_bad_grant_type(rig: SimulatorFixture) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = rig.http.post(f"{rig.url}/oauth/v3/token", data='{"grant_type": "x"}', headers=form, timeout=10)
    assert four(reply)[1] == "BAD_GRANT_TYPE"


def test_only_v1_takes_parameters_from_the_query(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    query = {"client_secret": APP["client_secret"], "refresh_token": token}
    body = {"grant_type": "refresh_token", "client_id": APP["client_id"]}
    replies = {
        version: rig.http.post(f"{rig.url}/oauth/{version}/token", params=query, data=body, timeout=10)
        for version in VERSIONS
    }
    assert replies["v1"].ok
    for version in VERSIONS[1:]:
        assert four(replies[version])[1] == "BAD_CLIENT_SECRET"


def test_a_version_that_hubspot_does_not_serve_is_not_found(rig: SimulatorFixture) -> None:
    assert rig.refresh(rig.control.install(HUB), "2027-03").status_code == 404


def test_a_secret_can_be_rotated_while_it_runs(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    rig.control.change_settings(client_secrets=[APP["client_secret"], "newer"])
    assert rig.refresh(token).ok
    assert rig.refresh(token, client_secret="newer").ok
    rig.control.change_settings(client_secrets=["newer"])
    assert four(rig.refresh(token))[1] == "BAD_CLIENT_SECRET"


def test_the_settings_do_not_show_the_secrets(rig: SimulatorFixture) -> None:
    assert APP["client_secret"] not in str(rig.control.get_settings())


def test_another_apps_id_meets_a_bad_refresh_token(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    rig.control.change_settings(client_ids=["another-app"])
    assert four(rig.refresh(token, client_id="another-app"))[1] == "BAD_REFRESH_TOKEN"
    assert rig.introspect(token, client_id="another-app") == {"active": False}


def test_errors_can_have_two_fields_as_before_2026(rig: SimulatorFixture) -> None:
    rig.control.change_settings(legacy_errors=True)
    assert set(rig.refresh("dead").json()) == {"status", "message"}


def test_both_errors_of_a_bad_client_id_can_be_had(rig: SimulatorFixture) -> None:
    rig.control.change_settings(bad_client_id_error="invalid_client")
    assert four(rig.refresh("dead", client_id="x")) == (400, "BAD_CLIENT_ID", "invalid_client")


# Lives of tokens


def test_lifetime_and_length_are_settable_for_all_and_for_one(rig: SimulatorFixture) -> None:
    one, other = rig.control.install(HUB), rig.control.install(7)
    rig.control.change_settings(lifetime=60)
    rig.control.change_settings(7, lifetime=5.5, token_length=700)
    assert rig.refresh(one).json()["expires_in"] == 60
    grant = rig.refresh(other).json()
    assert (grant["expires_in"], len(grant["access_token"])) == (5, 700)
    rig.control.remove_account_settings(7)
    assert rig.refresh(other).json()["expires_in"] == 60


def test_fields_can_be_left_out(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    rig.control.change_settings(HUB, omit=["refresh_token", "hub_id", "scopes"])
    assert not {"refresh_token", "hub_id", "scopes"} & set(rig.refresh(token).json())


def test_a_rotated_refresh_token_dies_at_once_or_after_its_grace(rig: SimulatorFixture) -> None:
    first = rig.control.install(HUB)
    rig.control.change_settings(rotation=0)
    second = rig.refresh(first).json()["refresh_token"]
    assert second != first
    assert four(rig.refresh(first))[1] == "BAD_REFRESH_TOKEN"
    rig.control.change_settings(rotation=30)
    third = rig.refresh(second).json()["refresh_token"]
    assert rig.refresh(second).ok
    rig.clock.ahead = 31
    assert not rig.refresh(second).ok
    assert rig.refresh(third).ok


@pytest.mark.parametrize(("how", "same", "old_lives"), [
    ("same", True, True), ("new", False, True), ("new_kills_old", False, False),
])  # fmt: skip
def test_an_install_again_keeps_or_replaces_the_refresh_token(
    rig: SimulatorFixture, how: str, same: bool, old_lives: bool
) -> None:
    rig.control.change_settings(reinstall=how)
    old = rig.exchange(rig.code()).json()["refresh_token"]
    new = rig.exchange(rig.code(scope="oauth files")).json()
    assert (new["refresh_token"] == old) is same
    assert new["scopes"] == ["oauth", "files"]
    assert rig.refresh(old).ok is old_lives


def test_many_accounts_are_installed_in_one_call(rig: SimulatorFixture) -> None:
    tokens = rig.control.install_many(5000)
    assert len(set(tokens.values())) == 5000
    assert rig.refresh(tokens[1_004_999]).json()["hub_id"] == 1_004_999


# Introspection, revocation, uninstall


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_introspection_describes_both_kinds_of_token(rig: SimulatorFixture, version: str) -> None:
    grant = rig.refresh(rig.control.install(HUB)).json()
    access = rig.post("token/introspect", version, token=grant["access_token"]).json()
    refresh = rig.post("token/introspect", version, token=grant["refresh_token"]).json()
    assert (access["token_use"], refresh["token_use"]) == ("access_token", "refresh_token")
    for told in (access, refresh):
        assert (told["active"], told["hub_id"], told["token_type"]) == (True, HUB, "Bearer")
        assert told["hub_domain"] == "northwind-bakery.example"
        assert told["user"] == "olive@northwind-bakery.example"
    assert 1790 < access["expires_in"] <= 1800
    assert access["signed_access_token"]["hubId"] == HUB
    assert "expires_in" not in refresh


def test_an_unknown_token_is_not_active(rig: SimulatorFixture) -> None:
    assert rig.introspect("na1-made-up") == {"active": False}
    assert four(rig.post("token/introspect", token="x", client_secret="wrong"))[1] == "BAD_CLIENT_SECRET"


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_revoking_ends_the_refresh_token_and_spares_the_access_token(rig: SimulatorFixture, version: str) -> None:
    grant = rig.refresh(rig.control.install(HUB)).json()
    assert rig.post("token/revoke", version, token=grant["refresh_token"]).status_code == 200
    assert rig.post("token/revoke", version, token="unknown").status_code == 200
    assert four(rig.refresh(grant["refresh_token"]))[1] == "BAD_REFRESH_TOKEN"
    assert rig.introspect(grant["refresh_token"]) == {"active": False}
    assert rig.contacts(grant["access_token"]).ok


def test_v1_revokes_by_delete(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    assert rig.http.delete(f"{rig.url}/oauth/v1/refresh-tokens/{token}", timeout=10).status_code == 204
    assert not rig.refresh(token).ok


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_the_app_uninstalls_itself_with_the_accounts_token(rig: SimulatorFixture, version: str) -> None:
    grant = rig.refresh(rig.control.install(HUB)).json()
    address = f"{rig.url}/appinstalls/{version}/external-install"
    bearer = {"Authorization": f"Bearer {grant['access_token']}"}
    assert rig.http.delete(address, timeout=10).status_code == 401
    assert rig.http.delete(address, headers=bearer, timeout=10).status_code == 204
    assert not rig.refresh(grant["refresh_token"]).ok
    assert rig.introspect(grant["refresh_token"]) == {"active": False}


@pytest.mark.parametrize(("keep", "state"), [(False, "revoked"), (True, "live")])
def test_a_customers_uninstall_ends_the_refresh_token_and_may_spare_access_tokens(
    rig: SimulatorFixture, keep: bool, state: str
) -> None:
    grant = rig.refresh(rig.control.install(HUB)).json()
    rig.control.uninstall(HUB, keep_access_tokens=keep)
    assert four(rig.refresh(grant["refresh_token"]))[1] == "BAD_REFRESH_TOKEN"
    assert rig.control.check_tokens([grant["access_token"]])[0].state == state
    assert rig.contacts(grant["access_token"]).ok is keep


def test_an_account_that_uninstalled_can_install_again(rig: SimulatorFixture) -> None:
    old = rig.control.install(HUB)
    rig.control.uninstall(HUB)
    grant = rig.exchange(rig.code()).json()
    assert grant["refresh_token"] != old
    assert rig.contacts(grant["access_token"]).ok


# The API, and the check


def test_the_api_takes_a_live_token_and_refuses_others_with_hubspots_two_bodies(rig: SimulatorFixture) -> None:
    token = rig.refresh(rig.control.install(HUB)).json()["access_token"]
    details = rig.http.get(
        f"{rig.url}/account-info/2026-03/details", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert details.json()["portalId"] == HUB
    rig.clock.ahead = 1803
    late = rig.contacts(token)
    assert (late.status_code, late.json()["category"]) == (401, "EXPIRED_AUTHENTICATION")
    assert late.json()["message"].startswith("The OAuth token used to make this call expired 3 second(s)")
    assert late.json()["context"]["expire time"]
    garbage = rig.contacts("garbage")
    assert (garbage.status_code, garbage.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    assert garbage.headers["x-hubspot-auth-failure"] == "401 Unauthorized"


def test_the_check_tells_live_from_expired_from_unknown(rig: SimulatorFixture) -> None:
    short, long = rig.control.install(1), rig.control.install(2)
    rig.control.change_settings(1, lifetime=10)
    tokens = [rig.refresh(short).json()["access_token"], rig.refresh(long).json()["access_token"]]
    forged = tokens[0][:-1] + ("a" if tokens[0][-1] != "a" else "b")
    rig.clock.ahead = 15
    checks = rig.control.check_tokens([*tokens, forged, "", "\ud800"])
    assert [check.state for check in checks] == ["expired", "live", "unknown", "unknown", "unknown"]
    assert [check.hub_id for check in checks] == [1, 2, None, None, None]
    assert -6 < (checks[0].seconds_left or 0) < -4


def test_a_reset_with_accounts_makes_every_token_unknown(rig: SimulatorFixture) -> None:
    token = rig.control.install(HUB)
    access = rig.refresh(token).json()["access_token"]
    rig.control.change_settings(lifetime=7)
    rig.control.reset(settings=True, accounts=True)
    assert not rig.refresh(token).ok
    assert rig.control.check_tokens([access])[0].state == "unknown"
    assert rig.control.get_settings()["all"]["lifetime"] == 1800


@pytest.mark.parametrize(
    "wrong",
    [
        {"lifetime": "long"}, {"lifetime": 0}, {"latency": [2, 1]}, {"latency": [1]}, {"token_length": 10},
        {"reinstall": "maybe"}, {"client_ids": []}, {"no_such": 1}, {"legacy_errors": 1}, {"rotation": -1},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_its_name_and_changes_nothing(
    rig: SimulatorFixture, wrong: dict[str, object]
) -> None:
    before = rig.control.get_settings()
    with pytest.raises(ControlFailed, match=next(iter(wrong))):
        rig.control.change_settings(**wrong)  # type: ignore[arg-type]
    assert rig.control.get_settings() == before


def test_what_concerns_the_app_cannot_be_set_for_one_account(rig: SimulatorFixture) -> None:
    with pytest.raises(ControlFailed, match="client_secrets"):
        rig.control.change_settings(HUB, client_secrets=["x"])
