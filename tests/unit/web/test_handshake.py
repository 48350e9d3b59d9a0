"""The handshake: every way in which HubSpot can redirect a browser back, and the page that the person sees."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from shared.db.core.errors import StatementRejected
from shared.domain.errors import (
    AccountMigrating,
    CodeRejected,
    InvalidClient,
    InvalidGrant,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from tests.support.builders import ACCESS_TOKEN, HUB, REFRESH_TOKEN, START, grant
from tests.support.polling import until


def is_error_page(site, response, status, text):
    """Asserts an error page with this text and a link to start again, and that nothing is stored."""
    assert response.status_code == status
    assert text in response.text
    assert 'href="/install"' in response.text
    assert not site.queue.messages
    assert not site.installs.rows
    return True


def test_the_front_page_has_a_connect_link(site):
    assert 'href="/install"' in site.visit("/").text


def test_the_front_page_at_127_0_0_1_links_to_localhost_as_hubspot_redirects_there(site):
    text = site.browser.get("/", headers={"Host": "127.0.0.1:5000"}).text
    assert text.count('"http://localhost:5000/install"') == 2


@pytest.mark.parametrize("host", ["evil.example", "localhost:5000", "127.0.0.1:5000.evil.example", ""])
def test_the_front_page_at_any_other_host_links_by_path(site, host):
    assert "http:" not in site.browser.get("/", headers={"Host": host}).text


def test_connect_redirects_to_hubspot_with_a_state(site):
    response = site.visit("/install")
    assert response.status_code == 302
    location = urlsplit(response.headers["Location"])
    assert location.netloc == "app.hubspot.com"
    assert location.path == "/oauth/authorize"
    assert parse_qs(location.query)["state"]


def test_a_hub_can_be_preselected(site):
    assert "/oauth/62515/authorize" in site.visit("/install?hub_id=62515").headers["Location"]


@pytest.mark.parametrize("empty", ["", " ", "%20%20"])
def test_an_empty_hub_id_preselects_nothing(site, empty):
    assert "com/oauth/authorize" in site.visit(f"/install?hub_id={empty}").headers["Location"]


@pytest.mark.parametrize(
    "hub_id",
    ["0", "-1", "1.5", "abc", "62515x", "9223372036854775808", "9" * 500, "٣", "1e3", "%00", "%ff", "1&hub_id=2"],
)
def test_an_invalid_hub_id_gets_an_error_page(site, hub_id):
    assert is_error_page(site, site.visit(f"/install?hub_id={hub_id}"), 400, "account number")


def test_the_largest_hub_id_that_postgres_can_store_is_accepted(site):
    assert site.visit(f"/install?hub_id={2**63 - 1}").status_code == 302


def test_a_grant_is_encrypted_and_queued_and_the_browser_redirected_to_its_page(site):
    response = site.callback()
    assert response.status_code == 303
    [message] = site.queue.messages
    assert response.headers["Location"] == f"/installs/{message.install_id}"
    install = site.cipher.decrypt_install(message.ciphertext)
    assert (install.hub_id, install.refresh_token, install.access_token) == (HUB, REFRESH_TOKEN, ACCESS_TOKEN)
    assert (install.granted_at, install.expires_in) == (START, 1800)


def test_two_tabs_finish_two_handshakes_in_any_order(site):
    one, two = site.state(), site.state()
    assert site.callback("code-2", two, hub_id=2).status_code == 303
    assert site.callback("code-1", one, hub_id=1).status_code == 303
    assert [message.hub_id for message in site.queue.messages] == [2, 1]


def test_a_denied_consent_gets_an_error_page(site):
    response = site.visit(f"/oauth/callback?error=access_denied&error_description=x&state={site.state()}")
    assert is_error_page(site, response, 403, "did not allow")


def test_a_denied_consent_without_a_state_gets_an_error_page(site):
    assert is_error_page(site, site.visit("/oauth/callback?error=access_denied"), 403, "did not allow")


def test_another_error_of_hubspot_is_not_quoted(site):
    query = f"error=server_error&error_description=<script>call+0900&state={site.state()}"
    response = site.visit(f"/oauth/callback?{query}")
    assert is_error_page(site, response, 400, "did not grant")
    assert "0900" not in response.text
    assert "server_error" not in response.text


def test_an_error_and_a_code_together_are_an_error(site):
    response = site.visit(f"/oauth/callback?error=access_denied&code=c&state={site.state()}")
    assert is_error_page(site, response, 403, "did not allow")
    assert not site.hubspot.exchanged


def test_after_a_denial_the_same_handshake_can_succeed(site):
    state = site.state()
    site.visit(f"/oauth/callback?error=access_denied&state={state}")
    assert site.callback(state=state).status_code == 303


@pytest.mark.parametrize("query", ["code=c", "", "state=&code=c"])
def test_without_a_state_the_handshake_begins_again(site, query):
    response = site.visit(f"/oauth/callback?{query}")
    assert response.status_code == 302
    assert not site.hubspot.exchanged
    state = parse_qs(urlsplit(response.headers["Location"]).query)["state"][0]
    assert site.callback(state=state).status_code == 303


def test_a_state_that_is_lost_four_times_gets_an_error_page(site):
    responses = [site.visit("/oauth/callback?code=c") for _ in range(4)]
    assert [response.status_code for response in responses] == [302, 302, 302, 400]
    assert is_error_page(site, responses[-1], 400, "does not say what it belongs to")


@pytest.mark.parametrize("state", ["x", "%00", "%ff%fe", "a.b.c", "." * 300, "é", "eyJ.x"])
def test_an_invalid_state_gets_an_error_page(site, state):
    assert is_error_page(site, site.visit(f"/oauth/callback?code=c&state={state}"), 400, "damaged")
    assert not site.hubspot.exchanged


def test_an_expired_state_gets_an_error_page(site):
    state = site.state()
    site.clock.step(15 * 60 + 1)
    assert is_error_page(site, site.callback(state=state), 400, "took too long")
    assert not site.hubspot.exchanged


def test_the_state_of_another_browser_gets_an_error_page(site):
    state = site.state()
    other_browser = site.other_browser()
    other_browser.visit("/install")
    assert is_error_page(site, other_browser.callback(state=state), 403, "another browser")
    assert not site.hubspot.exchanged


def test_a_browser_without_its_cookies_gets_an_error_page(site):
    assert is_error_page(site, site.other_browser().callback(state=site.state()), 403, "another browser")


def test_the_state_is_checked_before_the_error(site):
    assert is_error_page(site, site.visit("/oauth/callback?error=access_denied&state=forged"), 400, "damaged")


@pytest.mark.parametrize("query", ["", "&code=", "&other=1"])
def test_a_missing_code_gets_an_error_page(site, query):
    assert is_error_page(site, site.visit(f"/oauth/callback?state={site.state()}{query}"), 400, "incomplete")


@pytest.mark.parametrize("code", ["%00", "a%20b", "%C3%A9", "c" * 2049, "a%0d%0ab"])
def test_a_malformed_code_is_not_sent_to_hubspot(site, code):
    assert is_error_page(site, site.visit(f"/oauth/callback?state={site.state()}&code={code}"), 400, "damaged")
    assert not site.hubspot.exchanged


@pytest.mark.parametrize("twice", ["state=x&state=y&code=c", "code=a&code=b", "error=a&error=b"])
def test_a_parameter_given_twice_gets_an_error_page(site, twice):
    query = twice if "state" in twice else f"{twice}&state={site.state()}"
    assert is_error_page(site, site.visit(f"/oauth/callback?{query}"), 400, "damaged")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (CodeRejected("BAD_AUTH_CODE", http_status=400), 400, "cannot be used again"),
        (CodeRejected("EXPIRED_AUTH_CODE", http_status=400), 400, "cannot be used again"),
        (InvalidClient("BAD_CLIENT_SECRET", http_status=400), 502, "not set up correctly"),
        (InvalidClient("MISMATCH_REDIRECT_URI", http_status=400), 502, "not set up correctly"),
        (TemporarilyUnavailable("timeout"), 504, "too long"),
        (TemporarilyUnavailable("connection"), 502, "does not answer as it should"),
        (TemporarilyUnavailable("html", http_status=200), 502, "does not answer as it should"),
        (Throttled("rate_limit", http_status=429), 503, "asks us to wait"),
        (AccountMigrating("migration", http_status=477, retry_after=3600), 503, "asks us to wait"),
        (UnknownRefusal("NEW_WORD", http_status=400), 502, "refused"),
        (InvalidGrant("BAD_HUB", http_status=400), 502, "refused"),
    ],
)
def test_an_exchange_without_a_grant_gets_the_page_of_its_error(site, error, status, text):
    site.hubspot.exchange_error = error
    assert is_error_page(site, site.callback(), status, text)


def test_hubspots_retry_after_is_passed_on(site):
    site.hubspot.exchange_error = Throttled("rate_limit", http_status=429, retry_after=7.6)
    assert site.callback().headers["Retry-After"] == "8"


def test_a_misconfigured_app_is_logged_as_an_error_with_hubspots_code(site):
    site.hubspot.exchange_error = InvalidClient("BAD_CLIENT_SECRET", http_status=400)
    with capture_logs() as logs:
        site.callback()
    assert [(line["log_level"], line["code"]) for line in logs] == [("error", "BAD_CLIENT_SECRET")]


@pytest.mark.parametrize("code", ["no_hub_id", "no_refresh_token"])
def test_a_grant_without_hub_id_or_refresh_token_gets_an_error_page(site, code):
    site.hubspot.exchange_error = TemporarilyUnavailable(code)
    assert is_error_page(site, site.callback(), 502, "does not answer as it should")


def test_after_an_error_of_hubspot_the_same_link_may_be_reloaded(site):
    state = site.state()
    site.hubspot.exchange_error = TemporarilyUnavailable("connection")
    site.callback(state=state)
    site.hubspot.exchange_error = None
    assert site.callback(state=state).status_code == 303


def test_a_reload_of_the_callback_does_not_exchange_the_code_again(site):
    state = site.state()
    first = site.callback(state=state)
    again = site.callback(state=state)
    assert again.status_code == 303
    assert again.headers["Location"] == first.headers["Location"]
    assert site.hubspot.exchanged == ["the-code"]
    assert len(site.queue.messages) == 1


def test_a_double_click_whose_first_response_was_lost_finds_the_install(site):
    state = site.state()
    first = site.callback(state=state)
    site.store_queued()
    site.lose_cookies()
    again = site.visit(f"/oauth/callback?code=the-code&state={state}")
    assert again.headers["Location"] == first.headers["Location"]
    assert "is connected" in site.visit(again.headers["Location"]).text


def test_a_double_click_that_another_process_answers_finds_the_install_as_soon_as_it_is_stored(site):
    state = site.state()
    first = site.callback(state=state)
    site.lose_cookies()
    other = site.other_process(double_click_seconds=60.0)
    with ThreadPoolExecutor(1) as threads:
        again = threads.submit(other.visit, f"/oauth/callback?code=the-code&state={state}")
        until(lambda: site.installs.asked > 1)
        site.store_queued()
        assert again.result().headers["Location"] == first.headers["Location"]


def test_a_code_that_hubspot_rejected_is_not_sent_again_and_is_found_once_another_process_has_stored_it(site):
    state = site.state()
    first = site.callback(state=state)
    site.lose_cookies()
    other, url = site.other_process(), f"/oauth/callback?code=the-code&state={state}"
    assert "Refresh" in other.visit(url).headers
    site.store_queued()
    assert other.visit(url).headers["Location"] == first.headers["Location"]
    assert site.hubspot.exchanged == ["the-code"] * 2


def test_another_account_after_the_back_button_is_another_install(site):
    state = site.state()
    one = site.callback("code-1", state, hub_id=1)
    two = site.callback("code-2", state, hub_id=2)
    assert one.headers["Location"] != two.headers["Location"]
    assert [message.hub_id for message in site.queue.messages] == [1, 2]


def test_a_used_code_in_a_new_handshake_is_refused(site):
    site.install("the-code")
    site.store_queued()
    response = site.visit(f"/oauth/callback?code=the-code&state={site.state()}")
    assert response.status_code == 400
    assert "cannot be used again" in response.text
    assert len(site.installs.rows) == 1


def test_a_head_request_does_not_use_up_the_code(site):
    state = site.state()
    assert site.browser.head(f"/oauth/callback?code=the-code&state={state}").status_code == 405
    assert not site.hubspot.exchanged


def test_with_the_queue_down_the_install_is_stored_directly(site):
    site.queue.down = True
    path = site.install()
    assert list(site.installs.rows) == [HUB]
    assert "is connected" in site.visit(path).text


def test_with_queue_and_postgres_down_the_grant_is_in_a_cookie(site, cookies):
    site.queue.down = site.installs.down = True
    response = site.callback()
    assert response.status_code == 303
    assert site.cookie_name("grant", response.headers["Location"]) in cookies(response)


def test_a_statement_that_postgres_rejects_is_logged_as_an_error_and_does_not_lose_the_grant(site, cookies):
    site.queue.down = True
    site.installs.error = StatementRejected("PostgreSQL rejected a statement: 42P01 UndefinedTable")
    with capture_logs() as logs:
        response = site.callback()
    assert response.status_code == 303
    assert site.cookie_name("grant", response.headers["Location"]) in cookies(response)
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["by"], line["why"]) == ("postgres", "PostgreSQL rejected a statement: 42P01 UndefinedTable")


def test_a_code_that_hubspot_rejects_while_postgres_is_down_gets_the_page_of_a_used_code(site):
    site.installs.down = True
    site.hubspot.exchange_error = CodeRejected("BAD_AUTH_CODE", http_status=400)
    assert is_error_page(site, site.callback(), 400, "cannot be used again")


def test_an_unexpected_exception_while_storing_does_not_lose_the_grant(site, cookies):
    site.queue.store_install = site.installs.add = None
    with capture_logs() as logs:
        response = site.callback()
    assert response.status_code == 303
    assert site.cookie_name("grant", response.headers["Location"]) in cookies(response)
    assert [line["error"] for line in logs if line["log_level"] == "error"] == ["TypeError", "TypeError"]
    assert REFRESH_TOKEN not in str(logs)


def test_a_grant_that_cannot_be_stored_anywhere_gets_an_error_page(site):
    site.queue.down = site.installs.down = True
    response = site.callback(refresh_token="r" * 5000)
    assert response.status_code == 503
    assert "start again" in response.text
    assert "tk_used" not in str(response.headers)


def test_a_grant_too_large_for_a_cookie_is_still_queued(site, cookies):
    response = site.callback(refresh_token="r" * 5000)
    assert response.status_code == 303
    assert "tk_grant" not in str(cookies(response))
    assert len(site.queue.messages) == 1


def test_the_cookie_of_a_grant_is_small_and_encrypted(site, cookies):
    response = site.callback(access_token="a" * 3000, refresh_token="r" * 512)
    name = site.cookie_name("grant", response.headers["Location"])
    line = cookies(response)[name]
    assert len(line) < 1200
    assert "HttpOnly" in line
    assert "SameSite=Lax" in line
    assert "Secure" not in line
    ciphertext = line.split(";")[0].removeprefix(f"{name}=")
    install = site.cipher.decrypt_install(ciphertext)
    assert install.refresh_token == "r" * 512
    assert install.access_token is None


def test_over_https_no_neighbouring_site_can_set_any_of_the_cookies(https_site, cookies):
    start = https_site.visit("/install")
    restart = https_site.visit("/oauth/callback?code=c")
    response = https_site.callback(state=https_site.state())
    lines = {**cookies(start), **cookies(restart), **cookies(response)}
    assert len(lines) == 5
    assert all(name.startswith("__Host-tk_") for name in lines)
    assert all("Secure" in line and "HttpOnly" in line and "Path=/;" in line + ";" for line in lines.values())
    assert not any("Domain" in line for line in lines.values())
    assert https_site.visit(response.headers["Location"]).status_code == 200


@pytest.mark.parametrize("name", ["tk_browser", "__Secure-tk_browser"])
def test_over_https_a_browser_identifier_that_a_neighbouring_site_planted_is_ignored(https_site, name):
    planted = "p" * 43
    https_site.browser.set_cookie(name, planted, domain="connect.example")
    https_site.visit("/install")
    assert https_site.browser.get_cookie("__Host-tk_browser", domain="connect.example").value != planted


def test_no_response_and_no_log_line_of_an_install_shows_a_secret(site):
    state = site.state()
    with capture_logs() as logs:
        responses = [site.callback("na1-secret-code", state, expires_in=1800)]
        responses.append(site.visit(responses[0].headers["Location"]))
        site.store_queued()
        responses.append(site.visit(responses[0].headers["Location"]))
        responses.append(site.visit(f"/oauth/callback?code=na1-secret-code&state={site.state()}"))
    output = "".join(f"{response.headers}{response.text}" for response in responses) + str(logs)
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "na1-secret-code", state, "a-secret-key"):
        assert secret not in output


def test_the_repr_of_a_grant_hides_its_tokens(site):
    assert REFRESH_TOKEN not in repr(grant())
