"""The cookies of a browser's installs stay small together, and no grant is dropped of which they are the only copy."""

import pytest

from tests.support.builders import HUB
from web.oauth.install_cookie_jar import MAX_COOKIES_BYTES, MAX_ONLY_COPIES_BYTES


def count_cookie_bytes(site):
    return sum(len(f"{cookie.key}={cookie.value}; ") for cookie in site.browser._cookies.values())


def install_many(site, count, **grant_values):
    """The paths of the installs' pages. Real refresh tokens of HubSpot have some 40 characters."""
    return [site.install(f"code-{hub}", hub_id=hub, **grant_values) for hub in range(1, count + 1)]


@pytest.mark.parametrize("refresh_token", ["r" * 41, "r" * 512])
def test_after_many_installs_the_cookies_of_one_browser_stay_below_two_kilobytes(site, refresh_token):
    sizes = []
    for hub in range(1, 51):
        site.install(f"code-{hub}", hub_id=hub, refresh_token=refresh_token)
        sizes.append(count_cookie_bytes(site))
    assert max(sizes) < MAX_COOKIES_BYTES + 48
    assert len(site.queue.messages) == 50


def test_the_newest_installs_keep_their_pages(site):
    paths = install_many(site, 20)
    assert [site.visit(path).status_code for path in (paths[0], *paths[-2:])] == [404, 200, 200]


def test_a_reload_of_the_callback_is_recognised_after_several_installs(site):
    state = site.state()
    site.callback("code-0", state, hub_id=HUB)
    install_many(site, 5)
    assert site.callback("code-0", state).status_code == 303
    assert site.hubspot.exchanged.count("code-0") == 1


def test_with_queue_and_postgres_down_no_new_install_replaces_the_only_copy_of_another(site):
    site.queue.down = site.installs.down = True
    paths = []
    while (response := site.callback(f"code-{len(paths)}", hub_id=len(paths) + 1)).status_code == 303:
        paths.append(response.headers["Location"])
    assert response.status_code == 503
    assert "Please start again" in response.text
    assert len(paths) > 5
    assert count_cookie_bytes(site) < MAX_ONLY_COPIES_BYTES + 48
    site.installs.down = False
    for path in paths:
        assert site.visit(f"{path}/status").get_json()["state"] in {"storing", "connected"}
    assert sorted(site.installs.rows) == list(range(1, len(paths) + 1))
