"""The page of an install: waits until the grant is stored, submits it again meanwhile, is shown to one browser."""

from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from shared.domain.connection import Status
from tests.support.builders import HUB
from web.oauth.install_cookie import LOST_AFTER_SECONDS, RESUBMIT_QUEUED_SECONDS, RESUBMIT_SECONDS
from web.oauth.install_cookie_jar import STORED_GRANT_SECONDS
from web.oauth.install_status import INSTALL_PAGE_RATE, MAX_CHECKS


def status(site, path):
    return site.visit(f"{path}/status").get_json()


def drop_grant(site, path):
    site.browser.delete_cookie(site.cookie_name("grant", path))


def test_the_page_waits_and_then_says_connected(site):
    path = site.install()
    page = site.visit(path)
    assert page.status_code == 200
    assert "Connecting account 62515" in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text
    assert status(site, path) == {"state": "storing", "hub_id": HUB}
    site.store_queued()
    assert status(site, path) == {"state": "connected", "hub_id": HUB}
    assert "is connected" in site.visit(path).text


def test_the_page_shows_the_domain_and_the_scopes(site):
    path = site.install()
    site.store_queued()
    site.installs.domain = "acme.example"
    text = site.visit(path).text
    assert "acme.example is connected" in text
    assert "Read contacts" in text
    assert "http-equiv" not in text


def test_the_page_reloads_for_the_domain_for_thirty_seconds(site):
    path = site.install()
    site.store_queued()
    assert "http-equiv" in site.visit(path).text
    site.clock.step(31)
    text = site.visit(path).text
    assert "http-equiv" not in text
    assert "not known yet" in text


@pytest.mark.parametrize("ended", [Status.REVOKED, Status.DISCONNECTED])
def test_the_page_says_that_the_connection_has_ended_since(site, ended):
    path = site.install()
    site.store_queued()
    site.installs.status = ended
    assert "no longer connected" in site.visit(path).text
    assert status(site, path)["state"] == "connected"


def test_a_domain_is_escaped(site):
    path = site.install()
    site.store_queued()
    site.installs.domain = "<script>alert(1)</script>"
    assert "<script>alert" not in site.visit(path).text


def test_the_page_is_404_for_another_browser(site):
    path = site.install()
    site.store_queued()
    other_browser = site.other_browser()
    assert other_browser.visit(path).status_code == 404
    response = other_browser.visit(f"{path}/status")
    assert response.status_code == 404
    assert response.get_json() == {"state": "failed", "hub_id": None}


def test_an_unknown_install_is_404(site):
    site.install()
    assert site.visit(f"/installs/{uuid4()}").status_code == 404
    assert site.visit("/installs/no-uuid").status_code == 404


def test_the_cookie_of_one_install_does_not_open_another(site):
    one, two = site.install("code-1", hub_id=1), site.install("code-2", hub_id=2)
    cookie = site.browser.get_cookie(site.cookie_name("install", one)).value
    other_browser = site.other_browser()
    other_browser.browser.set_cookie(site.cookie_name("install", two), cookie)
    assert other_browser.visit(two).status_code == 404


def test_once_stored_the_browsers_copy_lives_for_five_more_minutes(site):
    path = site.install()
    site.store_queued()
    first, second = site.visit(path), site.visit(path)
    assert "is connected" in first.text
    assert site.browser.get_cookie(site.cookie_name("grant", path)).max_age == STORED_GRANT_SECONDS
    assert "is connected" in second.text
    assert "Set-Cookie" not in second.headers, "its life does not begin again"


def test_an_install_that_was_seen_stored_and_that_a_failover_lost_is_handed_in_again(site):
    path = site.install()
    site.store_queued()
    assert status(site, path)["state"] == "connected"
    site.installs.rows.clear()
    site.clock.step(60)
    assert status(site, path)["state"] == "storing"
    assert list(site.installs.rows) == [HUB]
    assert status(site, path)["state"] == "connected"


def test_after_a_wiped_queue_the_browsers_copy_is_submitted(site):
    path = site.install()
    site.queue.messages.clear()
    assert status(site, path)["state"] == "storing"
    site.clock.step(RESUBMIT_SECONDS)
    status(site, path)
    assert list(site.installs.rows) == [HUB]
    assert site.installs.rows[HUB].access_token is None
    assert status(site, path)["state"] == "connected"


def test_with_postgres_down_the_page_answers_and_does_not_flood_the_queue(site):
    site.installs.down = True
    path = site.install()
    for _ in range(20):
        site.clock.step(1)
        assert status(site, path) == {"state": "storing", "hub_id": HUB}
    assert len(site.queue.messages) == 1
    site.clock.step(RESUBMIT_QUEUED_SECONDS)
    status(site, path)
    assert len(site.queue.messages) == 2
    site.installs.down = False
    site.store_queued()
    assert list(site.installs.rows) == [HUB]


def test_with_both_down_the_grant_goes_to_the_first_that_returns(site):
    site.installs.down = site.queue.down = True
    path = site.install()
    for _ in range(10):
        assert status(site, path)["state"] == "storing"
        site.clock.step(2)
    site.queue.down = False
    status(site, path)
    [message] = site.queue.messages
    assert path.endswith(message.install_id)
    site.installs.down = False
    site.store_queued()
    assert status(site, path)["state"] == "connected"


def test_with_both_down_the_grant_is_submitted_every_three_seconds(site):
    site.installs.down = site.queue.down = True
    path = site.install()
    attempts = []
    for _ in range(40):
        with capture_logs() as logs:
            status(site, path)
        attempts.append(any(line.get("by") == "queue" for line in logs))
        site.clock.step(0.25)
    assert sum(attempts) == 4  # at once, and then every 3 s of the 10


def test_an_outage_of_an_hour_loses_no_grant(site):
    site.installs.down = site.queue.down = True
    path = site.install()
    site.clock.step(3600)
    assert status(site, path)["state"] == "storing"
    site.installs.down = False
    site.clock.step(RESUBMIT_SECONDS)
    status(site, path)
    assert list(site.installs.rows) == [HUB]


def test_a_grant_that_is_neither_stored_nor_in_the_browser_fails_after_five_minutes(site):
    path = site.install()
    site.queue.messages.clear()
    drop_grant(site, path)
    assert status(site, path)["state"] == "storing"
    site.clock.step(LOST_AFTER_SECONDS + 1)
    assert status(site, path) == {"state": "failed", "hub_id": HUB}
    text = site.visit(path).text
    assert "is not connected so far" in text
    assert "/install?hub_id=62515" in text


def test_an_install_does_not_fail_while_postgres_is_down(site):
    site.installs.down = True
    path = site.install()
    drop_grant(site, path)
    site.clock.step(LOST_AFTER_SECONDS + 1)
    assert status(site, path)["state"] == "storing"


def test_a_grant_of_another_install_is_not_submitted(site):
    one, two = site.install("code-1", hub_id=1), site.install("code-2", hub_id=2)
    site.queue.messages.clear()
    foreign = site.browser.get_cookie(site.cookie_name("grant", one)).value
    site.browser.set_cookie(site.cookie_name("grant", two), foreign)
    site.clock.step(RESUBMIT_SECONDS)
    assert status(site, two)["state"] == "storing"
    assert not site.installs.rows


@pytest.mark.parametrize("value", ["", "x", "gAAAA", "\x00", "é", "x" * 4000])
def test_a_grant_that_does_not_decrypt_is_not_submitted(site, value):
    path = site.install()
    site.queue.messages.clear()
    site.browser.set_cookie(site.cookie_name("grant", path), value)
    site.clock.step(RESUBMIT_SECONDS)
    assert status(site, path)["state"] == "storing"
    assert not site.installs.rows


def test_after_a_change_of_secret_key_the_browsers_copy_is_still_stored(site):
    path = site.install()
    site.queue.messages.clear()
    site.browser.set_cookie(site.cookie_name("install", path), "signed-with-the-old-key")
    assert status(site, path) == {"state": "storing", "hub_id": HUB}
    assert list(site.installs.rows) == [HUB]
    assert status(site, path)["state"] == "connected"


def test_the_page_is_not_cached(site):
    path = site.install()
    for response in (site.visit(path), site.visit(f"{path}/status")):
        assert response.headers["Cache-Control"] == "no-store"


def test_a_flood_of_questions_from_one_address_asks_postgres_no_more_than_the_limit(site):
    path = site.install()
    site.store_queued()
    states = {status(site, path)["state"] for _ in range(INSTALL_PAGE_RATE.burst)}
    asked = site.installs.asked
    assert states == {"connected"}
    assert status(site, path) == {"state": "storing", "hub_id": HUB}
    assert site.installs.asked == asked


def test_where_postgres_hangs_further_pages_wait_in_the_browser(site):
    path = site.install()
    find, answers = site.installs.find, []

    def find_while_others_ask(install_id):
        if len(answers) < MAX_CHECKS:
            answers.append(None)
            answers[-1] = status(site, path)
        return find(install_id)

    site.store_queued()
    site.installs.find = find_while_others_ask
    assert status(site, path)["state"] == "connected"
    assert site.installs.asked == MAX_CHECKS + 1
