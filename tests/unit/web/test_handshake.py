"""Every way in which HubSpot can send a browser back, and what the person is told."""

from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

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


def stopped(site, answer, status, words):
    """A page a person understands, a way to start again, nothing stored."""
    assert answer.status_code == status
    assert words in answer.text
    assert 'href="/install"' in answer.text
    assert not site.queue.messages
    assert not site.installs.rows
    return True


def test_the_front_page_has_a_connect_link(site):
    assert 'href="/install"' in site.visit("/").text


def test_a_developer_who_says_the_number_is_led_to_the_name_that_hubspot_uses(site):
    text = site.browser.get("/", headers={"Host": "127.0.0.1:5000"}).text
    assert text.count('"http://localhost:5000/install"') == 2


@pytest.mark.parametrize("host", ["evil.example", "localhost:5000", "127.0.0.1:5000.evil.example", ""])
def test_nobody_else_is_led_anywhere(site, host):
    assert "http:" not in site.browser.get("/", headers={"Host": host}).text


def test_connect_leads_to_hubspot_with_a_state(site):
    answer = site.visit("/install")
    assert answer.status_code == 302
    location = urlsplit(answer.headers["Location"])
    assert location.netloc == "app.hubspot.com"
    assert location.path == "/oauth/authorize"
    assert parse_qs(location.query)["state"]


def test_a_hub_can_be_preselected(site):
    assert "/oauth/62515/authorize" in site.visit("/install?hub_id=62515").headers["Location"]


@pytest.mark.parametrize("empty", ["", " ", "%20%20"])
def test_an_empty_field_preselects_nothing(site, empty):
    assert "com/oauth/authorize" in site.visit(f"/install?hub_id={empty}").headers["Location"]


@pytest.mark.parametrize(
    "hub_id",
    ["0", "-1", "1.5", "abc", "62515x", "9223372036854775808", "9" * 500, "٣", "1e3", "%00", "%ff", "1&hub_id=2"],
)
def test_what_is_no_hub_is_refused_with_a_page(site, hub_id):
    assert stopped(site, site.visit(f"/install?hub_id={hub_id}"), 400, "account number")


def test_the_largest_hub_that_postgres_can_hold_is_one(site):
    assert site.visit(f"/install?hub_id={2**63 - 1}").status_code == 302


def test_a_granted_code_is_sealed_queued_and_waited_for(site):
    answer = site.callback()
    assert answer.status_code == 303
    [message] = site.queue.messages
    assert answer.headers["Location"] == f"/installs/{message.install_id}"
    opened = site.cipher.decrypt_install(message.ciphertext)
    assert (opened.hub_id, opened.refresh_token, opened.access_token) == (HUB, REFRESH_TOKEN, ACCESS_TOKEN)
    assert (opened.granted_at, opened.expires_in) == (START, 1800)


def test_tabs_do_not_disturb_each_other(site):
    one, two = site.state(), site.state()
    assert site.callback("code-2", two, hub_id=2).status_code == 303
    assert site.callback("code-1", one, hub_id=1).status_code == 303
    assert [message.hub_id for message in site.queue.messages] == [2, 1]


def test_denied(site):
    answer = site.visit(f"/oauth/callback?error=access_denied&error_description=x&state={site.state()}")
    assert stopped(site, answer, 403, "did not allow")


def test_denied_where_hubspot_does_not_echo_the_state(site):
    assert stopped(site, site.visit("/oauth/callback?error=access_denied"), 403, "did not allow")


def test_another_error_is_told_in_our_words(site):
    query = f"error=server_error&error_description=<script>call+0900&state={site.state()}"
    answer = site.visit(f"/oauth/callback?{query}")
    assert stopped(site, answer, 400, "did not grant")
    assert "0900" not in answer.text
    assert "server_error" not in answer.text


def test_an_error_and_a_code_together_are_an_error(site):
    answer = site.visit(f"/oauth/callback?error=access_denied&code=c&state={site.state()}")
    assert stopped(site, answer, 403, "did not allow")
    assert not site.hubspot.exchanged


def test_a_denial_does_not_use_up_the_handshake(site):
    state = site.state()
    site.visit(f"/oauth/callback?error=access_denied&state={state}")
    assert site.callback(state=state).status_code == 303


@pytest.mark.parametrize("query", ["code=c", "", "state=&code=c"])
def test_a_missing_state_begins_the_handshake_anew(site, query):
    answer = site.visit(f"/oauth/callback?{query}")
    assert answer.status_code == 302
    assert not site.hubspot.exchanged
    state = parse_qs(urlsplit(answer.headers["Location"]).query)["state"][0]
    assert site.callback(state=state).status_code == 303


def test_a_state_that_is_lost_again_and_again_ends_in_a_page_not_in_a_loop(site):
    answers = [site.visit("/oauth/callback?code=c") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [302, 302, 302, 400]
    assert stopped(site, answers[-1], 400, "does not say what it belongs to")


@pytest.mark.parametrize("state", ["x", "%00", "%ff%fe", "a.b.c", "." * 300, "é", "eyJ.x"])
def test_a_wrong_state(site, state):
    assert stopped(site, site.visit(f"/oauth/callback?code=c&state={state}"), 400, "damaged")
    assert not site.hubspot.exchanged


def test_an_expired_state(site):
    state = site.state()
    site.clock.step(15 * 60 + 1)
    assert stopped(site, site.callback(state=state), 400, "took too long")
    assert not site.hubspot.exchanged


def test_the_state_of_another_browser(site):
    state = site.state()
    stranger = site.other_browser()
    stranger.visit("/install")
    assert stopped(site, stranger.callback(state=state), 403, "another browser")
    assert not site.hubspot.exchanged


def test_a_browser_that_lost_its_cookies(site):
    assert stopped(site, site.other_browser().callback(state=site.state()), 403, "another browser")


def test_the_state_is_checked_before_the_error(site):
    assert stopped(site, site.visit("/oauth/callback?error=access_denied&state=forged"), 400, "damaged")


@pytest.mark.parametrize("query", ["", "&code=", "&other=1"])
def test_a_missing_code(site, query):
    assert stopped(site, site.visit(f"/oauth/callback?state={site.state()}{query}"), 400, "incomplete")


@pytest.mark.parametrize("code", ["%00", "a%20b", "%C3%A9", "c" * 2049, "a%0d%0ab"])
def test_a_code_that_cannot_be_one_is_not_asked_about(site, code):
    assert stopped(site, site.visit(f"/oauth/callback?state={site.state()}&code={code}"), 400, "damaged")
    assert not site.hubspot.exchanged


@pytest.mark.parametrize("twice", ["state=x&state=y&code=c", "code=a&code=b", "error=a&error=b"])
def test_a_parameter_given_twice_counts_for_neither(site, twice):
    query = twice if "state" in twice else f"{twice}&state={site.state()}"
    assert stopped(site, site.visit(f"/oauth/callback?{query}"), 400, "damaged")


@pytest.mark.parametrize(
    ("trouble", "status", "words"),
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
def test_an_exchange_that_brings_nothing(site, trouble, status, words):
    site.hubspot.trouble = trouble
    assert stopped(site, site.callback(), status, words)


def test_hubspots_retry_after_is_passed_on(site):
    site.hubspot.trouble = Throttled("rate_limit", http_status=429, retry_after=7.6)
    assert site.callback().headers["Retry-After"] == "8"


def test_an_app_set_up_wrongly_is_an_error_in_the_log_with_hubspots_word(site):
    site.hubspot.trouble = InvalidClient("BAD_CLIENT_SECRET", http_status=400)
    with capture_logs() as logs:
        site.callback()
    assert [(line["log_level"], line["code"]) for line in logs] == [("error", "BAD_CLIENT_SECRET")]


@pytest.mark.parametrize("missing", ["hub_id", "refresh_token"])
def test_a_grant_that_cannot_be_stored_is_no_grant(site, missing):
    assert stopped(site, site.callback(**{missing: None}), 502, "does not answer as it should")


def test_after_trouble_the_same_link_may_be_reloaded(site):
    state = site.state()
    site.hubspot.trouble = TemporarilyUnavailable("connection")
    site.callback(state=state)
    site.hubspot.trouble = None
    assert site.callback(state=state).status_code == 303


def test_a_reload_of_the_callback_does_not_exchange_the_code_again(site):
    state = site.state()
    first = site.callback(state=state)
    again = site.callback(state=state)
    assert again.status_code == 303
    assert again.headers["Location"] == first.headers["Location"]
    assert site.hubspot.exchanged == ["the-code"]
    assert len(site.queue.messages) == 1


def test_a_second_click_whose_first_answer_was_lost_finds_the_install(site):
    state = site.state()
    first = site.callback(state=state)
    site.work()
    for cookie in list(site.browser._cookies.values()):
        if cookie.key != "tk_browser":
            site.browser.delete_cookie(cookie.key, path=cookie.path)
    again = site.visit(f"/oauth/callback?code=the-code&state={state}")
    assert again.headers["Location"] == first.headers["Location"]
    assert "is connected" in site.visit(again.headers["Location"]).text


def test_another_account_after_the_back_button_is_another_install(site):
    state = site.state()
    one = site.callback("code-1", state, hub_id=1)
    two = site.callback("code-2", state, hub_id=2)
    assert one.headers["Location"] != two.headers["Location"]
    assert [message.hub_id for message in site.queue.messages] == [1, 2]


def test_a_used_code_in_a_new_handshake_is_refused(site):
    site.install("the-code")
    site.work()
    answer = site.visit(f"/oauth/callback?code=the-code&state={site.state()}")
    assert answer.status_code == 400
    assert "cannot be used again" in answer.text
    assert len(site.installs.rows) == 1


def test_asking_for_the_headers_alone_does_not_spend_the_code(site):
    state = site.state()
    assert site.browser.head(f"/oauth/callback?code=the-code&state={state}").status_code == 405
    assert not site.hubspot.exchanged


def test_with_the_queue_down_the_install_is_stored_directly(site):
    site.queue.down = True
    path = site.install()
    assert list(site.installs.rows) == [HUB]
    assert "is connected" in site.visit(path).text


def test_with_both_down_the_browser_carries_it(site, cookies):
    site.queue.down = site.installs.down = True
    answer = site.callback()
    assert answer.status_code == 303
    assert "tk_grant" in cookies(answer)


def test_not_even_a_bug_of_ours_costs_a_grant(site, cookies):
    site.queue.store_install = site.installs.add = None
    with capture_logs() as logs:
        answer = site.callback()
    assert answer.status_code == 303
    assert "tk_grant" in cookies(answer)
    assert [line["error"] for line in logs if line["log_level"] == "error"] == ["TypeError", "TypeError"]
    assert REFRESH_TOKEN not in str(logs)


def test_a_grant_that_nobody_can_keep_is_admitted(site):
    site.queue.down = site.installs.down = True
    answer = site.callback(refresh_token="r" * 5000)
    assert answer.status_code == 503
    assert "start again" in answer.text
    assert "tk_done" not in str(answer.headers)


def test_a_grant_too_large_for_a_cookie_still_goes_through_the_queue(site, cookies):
    answer = site.callback(refresh_token="r" * 5000)
    assert answer.status_code == 303
    assert "tk_grant" not in cookies(answer)
    assert len(site.queue.messages) == 1


def test_the_grants_cookie_is_small_sealed_and_only_for_its_page(site, cookies):
    answer = site.callback(access_token="a" * 3000, refresh_token="r" * 512)
    line = cookies(answer)["tk_grant"]
    assert len(line) < 4096
    assert f"Path={answer.headers['Location']}" in line
    assert "HttpOnly" in line
    assert "SameSite=Lax" in line
    assert "Secure" not in line
    sealed = line.split(";")[0].removeprefix("tk_grant=")
    opened = site.cipher.decrypt_install(sealed)
    assert opened.refresh_token == "r" * 512
    assert opened.access_token is None


def test_over_https_every_cookie_is_secure_and_prefixed(https_site, cookies):
    start = https_site.visit("/install")
    answer = https_site.callback(state=https_site.state())
    lines = {**cookies(start), **cookies(answer)}
    assert "__Host-tk_browser" in lines
    assert all("Secure" in line and "HttpOnly" in line for line in lines.values())
    assert all(name.startswith(("__Host-tk_", "__Secure-tk_")) for name in lines)
    assert https_site.visit(answer.headers["Location"]).status_code == 200


def test_no_answer_and_no_log_line_shows_a_secret(site):
    state = site.state()
    with capture_logs() as logs:
        answers = [site.callback("na1-secret-code", state, expires_in=1800)]
        answers.append(site.visit(answers[0].headers["Location"]))
        site.work()
        answers.append(site.visit(answers[0].headers["Location"]))
        answers.append(site.visit(f"/oauth/callback?code=na1-secret-code&state={site.state()}"))
    said = "".join(f"{answer.headers}{answer.text}" for answer in answers) + str(logs)
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "na1-secret-code", state, "a-secret-key"):
        assert secret not in said


def test_the_grants_repr_stays_hidden(site):
    assert REFRESH_TOKEN not in repr(grant())
