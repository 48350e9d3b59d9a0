"""The simulator answers as HubSpot does: consent, tokens, introspection, revocation, uninstall, the API."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from sandbox.simulator.control import ConsentRefused, ControlFailed
from tests.support.simulator import APP, CALLBACK, HUB, SimulatorFixture, parse_redirect, run_simulator

VERSIONS = ["v1", "v3", "2026-03", "2026-09"]


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


def parse_refusal(reply: requests.Response) -> tuple[int, str, str]:
    """HTTP status, `status` and `error` of a refusal with HubSpot's four fields."""
    body = reply.json()
    assert set(body) == {"status", "message", "error", "error_description"}
    assert body["message"] == body["error_description"]
    return reply.status_code, body["status"], body["error"]


# Consent


def test_allow_sends_the_browser_back_with_a_code_and_the_state(simulator: SimulatorFixture) -> None:
    back = simulator.control.allow(simulator.authorize_url(), HUB)
    assert back.startswith(CALLBACK + "?")
    assert parse_redirect(back)["state"] == "s p+c&e"
    assert parse_redirect(back)["code"].startswith("na1-")


def test_an_authorize_url_without_state_is_answered_without_state(simulator: SimulatorFixture) -> None:
    assert set(parse_redirect(simulator.control.allow(simulator.authorize_url(state=None), HUB))) == {"code"}


def test_deny_sends_an_error_back_and_no_code(simulator: SimulatorFixture) -> None:
    back = parse_redirect(simulator.control.deny(simulator.authorize_url()))
    assert back["error"] == "access_denied"
    assert back["error_description"]
    assert back["state"] == "s p+c&e"
    assert "code" not in back


def test_closing_the_consent_page_does_not_redirect(simulator: SimulatorFixture) -> None:
    form = {"client_id": APP["client_id"], "redirect_uri": CALLBACK, "scope": "oauth", "answer": "close"}
    reply = simulator.http.post(f"{simulator.url}/oauth/authorize", data=form, allow_redirects=False, timeout=60)
    assert reply.status_code == 200
    assert "Location" not in reply.headers


def test_the_consent_page_lists_accounts_and_scopes_and_says_that_it_is_a_simulator(
    simulator: SimulatorFixture,
) -> None:
    page = simulator.http.get(
        simulator.authorize_url(scope="oauth crm.lists.read", optional_scope="files"), timeout=60
    ).text
    for text in ("This is not HubSpot", "Northwind Bakery", "62515", "crm.lists.read", "files", "<script"):
        assert (text in page) is (text != "<script")


def test_a_preselected_account_is_the_only_one_on_the_consent_page(simulator: SimulatorFixture) -> None:
    page = simulator.http.get(simulator.authorize_url(preselected="777"), timeout=60).text
    assert "Account 777" in page
    assert "Northwind" not in page
    code = parse_redirect(simulator.control.allow(simulator.authorize_url(preselected="777"), HUB))["code"]
    assert simulator.exchange(code).json()["hub_id"] == 777


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
def test_an_invalid_authorize_url_shows_hubspots_error_page(
    simulator: SimulatorFixture, changes: dict[str, str | None], words: str
) -> None:
    with pytest.raises(ConsentRefused) as refused:
        simulator.control.allow(simulator.authorize_url(**changes), HUB)
    assert words in str(refused.value)


def test_scopes_and_redirect_uris_of_the_app_are_checked(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(required_scopes=["oauth", "files"], redirect_uris=[CALLBACK])
    with pytest.raises(ConsentRefused, match="the provided scopes are insufficient"):
        simulator.control.allow(simulator.authorize_url(), HUB)
    with pytest.raises(ConsentRefused, match="registered redirect URL"):
        simulator.control.allow(simulator.authorize_url(redirect_uri=CALLBACK + "/other", scope="oauth files"), HUB)
    assert simulator.get_code(scope="files oauth")


def test_an_account_without_a_feature_loses_the_optional_scope_and_cannot_grant_a_required_one(
    simulator: SimulatorFixture,
) -> None:
    simulator.control.change_settings(HUB, unavailable_scopes=["files"])
    granted = simulator.exchange(simulator.get_code(optional_scope="files forms")).json()
    assert granted["scopes"] == ["oauth", "forms"]
    with pytest.raises(ConsentRefused, match="doesn't have access to some HubSpot features"):
        simulator.control.allow(simulator.authorize_url(scope="oauth files"), HUB)


@pytest.mark.parametrize("number", ["0", "-5", "1e3", "9223372036854775808", "٣", "x"])
def test_an_invalid_hub_id_is_refused_with_an_error_page(simulator: SimulatorFixture, number: str) -> None:
    form = {"client_id": APP["client_id"], "redirect_uri": CALLBACK, "scope": "oauth", "answer": "allow"}
    reply = simulator.http.post(f"{simulator.url}/oauth/authorize", data={**form, "other_hub_id": number}, timeout=60)
    assert reply.status_code == 200
    assert "digits only" in reply.text


def test_the_front_page_uninstalls_the_app_from_an_account(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    assert "Uninstall the app from Northwind Bakery" in simulator.http.get(simulator.url, timeout=60).text
    page = simulator.http.post(f"{simulator.url}/accounts/{HUB}/uninstall", timeout=60).text
    assert "Uninstall the app from" not in page
    assert parse_refusal(simulator.refresh(token)) == (400, "BAD_REFRESH_TOKEN", "invalid_grant")


# The token endpoint


@pytest.mark.parametrize("version", VERSIONS)
def test_codes_and_refresh_tokens_are_exchanged_for_hubspots_seven_fields(
    simulator: SimulatorFixture, version: str
) -> None:
    first = simulator.exchange(simulator.get_code(), version).json()
    again = simulator.refresh(first["refresh_token"], version).json()
    for grant in (first, again):
        assert set(grant) == {
            "token_type", "refresh_token", "access_token", "hub_id", "scopes", "expires_in", "token_use",
        }  # fmt: skip
        assert (grant["token_type"], grant["token_use"]) == ("bearer", "access_token")
        assert (grant["hub_id"], grant["scopes"], grant["expires_in"]) == (HUB, ["oauth"], 1800)
        assert len(grant["access_token"]) == 240
    assert again["refresh_token"] == first["refresh_token"]
    assert again["access_token"] != first["access_token"]


def test_a_code_can_be_exchanged_only_once(simulator: SimulatorFixture) -> None:
    code = simulator.get_code()
    assert simulator.exchange(code).ok
    assert parse_refusal(simulator.exchange(code)) == (400, "BAD_AUTH_CODE", "invalid_grant")
    assert parse_refusal(simulator.exchange("na1-made-up"))[1] == "BAD_AUTH_CODE"


def test_a_code_expires(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(code_lifetime=30)
    code = simulator.get_code()
    simulator.clock.offset_seconds = 31
    assert parse_refusal(simulator.exchange(code))[1] == "EXPIRED_AUTH_CODE"


def test_a_code_is_bound_to_its_redirect_uri_and_its_app(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(client_ids=[APP["client_id"], "another-app"])
    code = simulator.get_code()
    assert parse_refusal(simulator.exchange(code, redirect_uri=CALLBACK + "?"))[1] == "MISMATCH_REDIRECT_URI_AUTH_CODE"
    assert parse_refusal(simulator.exchange(code, client_id="another-app"))[1] == "BAD_AUTH_CODE"
    assert simulator.exchange(code).ok


def test_a_token_request_is_checked_in_hubspots_order(simulator: SimulatorFixture) -> None:
    """Content type, client id, grant type, secret, and only then the token."""
    bad = {"client_id": "x", "grant_type": "y", "client_secret": "z"}
    json_reply = simulator.http.post(f"{simulator.url}/oauth/2026-09/token", json=APP | bad, timeout=60)
    assert json_reply.status_code == 415
    assert parse_refusal(simulator.refresh("dead", **bad)) == (400, "BAD_CLIENT_ID", "invalid_request")
    del bad["client_id"]
    assert parse_refusal(simulator.refresh("dead", **bad))[1] == "BAD_GRANT_TYPE"
    del bad["grant_type"]
    assert parse_refusal(simulator.refresh("dead", **bad)) == (400, "BAD_CLIENT_SECRET", "invalid_client")
    assert parse_refusal(simulator.refresh("dead")) == (400, "BAD_REFRESH_TOKEN", "invalid_grant")


def test_json_with_the_content_type_of_a_form_is_a_bad_grant_type(simulator: SimulatorFixture) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = simulator.http.post(f"{simulator.url}/oauth/v3/token", data='{"grant_type": "x"}', headers=form, timeout=60)
    assert parse_refusal(reply)[1] == "BAD_GRANT_TYPE"


def test_only_v1_takes_parameters_from_the_query(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    query = {"client_secret": APP["client_secret"], "refresh_token": token}
    body = {"grant_type": "refresh_token", "client_id": APP["client_id"]}
    replies = {
        version: simulator.http.post(f"{simulator.url}/oauth/{version}/token", params=query, data=body, timeout=60)
        for version in VERSIONS
    }
    assert replies["v1"].ok
    for version in VERSIONS[1:]:
        assert parse_refusal(replies[version])[1] == "BAD_CLIENT_SECRET"


def test_an_unknown_api_version_is_not_found(simulator: SimulatorFixture) -> None:
    assert simulator.refresh(simulator.control.install(HUB), "2027-03").status_code == 404


def test_the_client_secret_can_be_rotated_while_the_simulator_runs(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    simulator.control.change_settings(client_secrets=[APP["client_secret"], "newer"])
    assert simulator.refresh(token).ok
    assert simulator.refresh(token, client_secret="newer").ok
    simulator.control.change_settings(client_secrets=["newer"])
    assert parse_refusal(simulator.refresh(token))[1] == "BAD_CLIENT_SECRET"


def test_the_settings_do_not_show_the_secrets(simulator: SimulatorFixture) -> None:
    assert APP["client_secret"] not in str(simulator.control.get_settings())


def test_another_apps_refresh_token_is_refused(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    simulator.control.change_settings(client_ids=["another-app"])
    assert parse_refusal(simulator.refresh(token, client_id="another-app"))[1] == "BAD_REFRESH_TOKEN"
    assert simulator.introspect(token, client_id="another-app") == {"active": False}


def test_errors_can_have_two_fields_as_before_2026(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(legacy_errors=True)
    assert set(simulator.refresh("dead").json()) == {"status", "message"}


def test_the_error_of_a_bad_client_id_can_be_chosen(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(bad_client_id_error="invalid_client")
    assert parse_refusal(simulator.refresh("dead", client_id="x")) == (400, "BAD_CLIENT_ID", "invalid_client")


# Settings of tokens


def test_life_and_length_of_tokens_can_be_set_for_all_accounts_and_for_one(simulator: SimulatorFixture) -> None:
    one, other = simulator.control.install(HUB), simulator.control.install(7)
    simulator.control.change_settings(lifetime=60)
    simulator.control.change_settings(7, lifetime=5.5, token_length=700)
    assert simulator.refresh(one).json()["expires_in"] == 60
    grant = simulator.refresh(other).json()
    assert (grant["expires_in"], len(grant["access_token"])) == (5, 700)
    simulator.control.remove_account_settings(7)
    assert simulator.refresh(other).json()["expires_in"] == 60


def test_fields_can_be_left_out_of_token_replies(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    simulator.control.change_settings(HUB, omit=["refresh_token", "hub_id", "scopes"])
    assert not {"refresh_token", "hub_id", "scopes"} & set(simulator.refresh(token).json())


def test_a_rotated_refresh_token_is_revoked_at_once_or_after_a_grace_period(simulator: SimulatorFixture) -> None:
    first = simulator.control.install(HUB)
    simulator.control.change_settings(rotation=0)
    second = simulator.refresh(first).json()["refresh_token"]
    assert second != first
    assert parse_refusal(simulator.refresh(first))[1] == "BAD_REFRESH_TOKEN"
    simulator.control.change_settings(rotation=30)
    third = simulator.refresh(second).json()["refresh_token"]
    assert simulator.refresh(second).ok
    simulator.clock.offset_seconds = 31
    assert not simulator.refresh(second).ok
    assert simulator.refresh(third).ok


@pytest.mark.parametrize(("reinstall", "is_same", "old_is_valid"), [
    ("same", True, True), ("new", False, True), ("new_kills_old", False, False),
])  # fmt: skip
def test_a_reinstall_keeps_or_replaces_the_refresh_token(
    simulator: SimulatorFixture, reinstall: str, is_same: bool, old_is_valid: bool
) -> None:
    simulator.control.change_settings(reinstall=reinstall)
    old = simulator.exchange(simulator.get_code()).json()["refresh_token"]
    new = simulator.exchange(simulator.get_code(scope="oauth files")).json()
    assert (new["refresh_token"] == old) is is_same
    assert new["scopes"] == ["oauth", "files"]
    assert simulator.refresh(old).ok is old_is_valid


def test_many_accounts_are_installed_in_one_call(simulator: SimulatorFixture) -> None:
    tokens = simulator.control.install_many(5000)
    assert len(set(tokens.values())) == 5000
    assert simulator.refresh(tokens[1_004_999]).json()["hub_id"] == 1_004_999


# Introspection, revocation, uninstall


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_introspection_describes_access_and_refresh_tokens(simulator: SimulatorFixture, version: str) -> None:
    grant = simulator.refresh(simulator.control.install(HUB)).json()
    access = simulator.post("token/introspect", version, token=grant["access_token"]).json()
    refresh = simulator.post("token/introspect", version, token=grant["refresh_token"]).json()
    assert (access["token_use"], refresh["token_use"]) == ("access_token", "refresh_token")
    for reply in (access, refresh):
        assert (reply["active"], reply["hub_id"], reply["token_type"]) == (True, HUB, "Bearer")
        assert reply["hub_domain"] == "northwind-bakery.example"
        assert reply["user"] == "olive@northwind-bakery.example"
    assert 1790 < access["expires_in"] <= 1800
    assert access["signed_access_token"]["hubId"] == HUB
    assert "expires_in" not in refresh


def test_introspection_of_an_unknown_token_says_not_active(simulator: SimulatorFixture) -> None:
    assert simulator.introspect("na1-made-up") == {"active": False}
    assert parse_refusal(simulator.post("token/introspect", token="x", client_secret="wrong"))[1] == "BAD_CLIENT_SECRET"


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_revoking_ends_the_refresh_token_and_not_the_access_token(simulator: SimulatorFixture, version: str) -> None:
    grant = simulator.refresh(simulator.control.install(HUB)).json()
    assert simulator.post("token/revoke", version, token=grant["refresh_token"]).status_code == 200
    assert simulator.post("token/revoke", version, token="unknown").status_code == 200
    assert parse_refusal(simulator.refresh(grant["refresh_token"]))[1] == "BAD_REFRESH_TOKEN"
    assert simulator.introspect(grant["refresh_token"]) == {"active": False}
    assert simulator.get_contacts(grant["access_token"]).ok


def test_v1_revokes_a_refresh_token_by_delete(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    assert simulator.http.delete(f"{simulator.url}/oauth/v1/refresh-tokens/{token}", timeout=60).status_code == 204
    assert not simulator.refresh(token).ok


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_the_app_uninstalls_itself_with_an_access_token(simulator: SimulatorFixture, version: str) -> None:
    grant = simulator.refresh(simulator.control.install(HUB)).json()
    address = f"{simulator.url}/appinstalls/{version}/external-install"
    bearer = {"Authorization": f"Bearer {grant['access_token']}"}
    assert simulator.http.delete(address, timeout=60).status_code == 401
    assert simulator.http.delete(address, headers=bearer, timeout=60).status_code == 204
    assert not simulator.refresh(grant["refresh_token"]).ok
    assert simulator.introspect(grant["refresh_token"]) == {"active": False}


@pytest.mark.parametrize(("keep", "state"), [(False, "revoked"), (True, "live")])
def test_a_customers_uninstall_ends_the_refresh_token_and_optionally_access_tokens(
    simulator: SimulatorFixture, keep: bool, state: str
) -> None:
    grant = simulator.refresh(simulator.control.install(HUB)).json()
    simulator.control.uninstall(HUB, keep_access_tokens=keep)
    assert parse_refusal(simulator.refresh(grant["refresh_token"]))[1] == "BAD_REFRESH_TOKEN"
    assert simulator.control.check_tokens([grant["access_token"]])[0].state == state
    assert simulator.get_contacts(grant["access_token"]).ok is keep


def test_an_account_that_uninstalled_can_install_again(simulator: SimulatorFixture) -> None:
    old = simulator.control.install(HUB)
    simulator.control.uninstall(HUB)
    grant = simulator.exchange(simulator.get_code()).json()
    assert grant["refresh_token"] != old
    assert simulator.get_contacts(grant["access_token"]).ok


# The API, and the check


def test_the_api_accepts_a_live_token_and_refuses_others_as_hubspot_does(simulator: SimulatorFixture) -> None:
    token = simulator.refresh(simulator.control.install(HUB)).json()["access_token"]
    simulator.clock.offset_seconds = 1803
    expired = simulator.get_contacts(token)
    assert (expired.status_code, expired.json()["category"]) == (401, "EXPIRED_AUTHENTICATION")
    since = re.match(r"The OAuth token used to make this call expired (\d+) second\(s\)", expired.json()["message"])
    assert since
    assert 3 <= int(since[1]) < 60
    assert expired.json()["context"]["expire time"]
    garbage = simulator.get_contacts("garbage")
    assert (garbage.status_code, garbage.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    assert garbage.headers["x-hubspot-auth-failure"] == "401 Unauthorized"


def test_the_token_check_distinguishes_live_expired_and_unknown(simulator: SimulatorFixture) -> None:
    short, long = simulator.control.install(1), simulator.control.install(2)
    simulator.control.change_settings(1, lifetime=10)
    tokens = [simulator.refresh(short).json()["access_token"], simulator.refresh(long).json()["access_token"]]
    forged = tokens[0][:-1] + ("a" if tokens[0][-1] != "a" else "b")
    simulator.clock.offset_seconds = 15
    checks = simulator.control.check_tokens([*tokens, forged, "", "\ud800"])
    assert [check.state for check in checks] == ["expired", "live", "unknown", "unknown", "unknown"]
    assert [check.hub_id for check in checks] == [1, 2, None, None, None]
    assert -60 < (checks[0].seconds_left or 0) <= -5


def test_a_reset_with_accounts_makes_every_token_unknown(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    access = simulator.refresh(token).json()["access_token"]
    simulator.control.change_settings(lifetime=7)
    simulator.control.reset(settings=True, accounts=True)
    assert not simulator.refresh(token).ok
    assert simulator.control.check_tokens([access])[0].state == "unknown"
    assert simulator.control.get_settings()["all"]["lifetime"] == 1800


@pytest.mark.parametrize(
    "wrong",
    [
        {"lifetime": "long"}, {"lifetime": 0}, {"latency": [2, 1]}, {"latency": [1]}, {"token_length": 10},
        {"reinstall": "maybe"}, {"client_ids": []}, {"no_such": 1}, {"legacy_errors": 1}, {"rotation": -1},
    ],
)  # fmt: skip
def test_an_invalid_setting_is_refused_by_name_and_changes_nothing(
    simulator: SimulatorFixture, wrong: dict[str, object]
) -> None:
    before = simulator.control.get_settings()
    with pytest.raises(ControlFailed, match=next(iter(wrong))):
        simulator.control.change_settings(**wrong)  # type: ignore[arg-type]
    assert simulator.control.get_settings() == before


def test_settings_of_the_app_cannot_be_changed_for_one_account(simulator: SimulatorFixture) -> None:
    with pytest.raises(ControlFailed, match="client_secrets"):
        simulator.control.change_settings(HUB, client_secrets=["x"])
