"""No install is lost while Redis, PostgreSQL or both are down or frozen, or after the queue was wiped."""

import time
from contextlib import ExitStack, suppress

import psutil
import pytest
import redis

from tests.support.http_server import serving
from tests.support.polling import until
from tests.support.visitor import Visitor
from web.oauth.install_cookie_jar import STORED_GRANT_SECONDS

HUB = 62515


@pytest.fixture
def settings(environment, migrated_postgres, own_valkey):
    return environment(DATABASE_URL=migrated_postgres.url(), REDIS_URL=own_valkey.url())


@pytest.fixture
def visitor(settings, simulator):
    with serving(settings) as url, Visitor(url, simulator) as visitor:
        visitor.get("/readyz")
        yield visitor


@pytest.fixture
def read_active_hubs(connect, migrated_postgres):
    def read():
        with connect(migrated_postgres.url()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT hub_id FROM hubspot.connections WHERE status = 'active' ORDER BY 1")
            return [row[0] for row in cursor.fetchall()]

    return read


@pytest.fixture
def freeze():
    """A function that suspends a server's processes and returns one that resumes them. All are resumed at the end."""
    with ExitStack() as stack:

        def suspend(server):
            parent = psutil.Process(server.process.pid)
            parent.suspend()  # first: from now on it starts no other process
            resume = ExitStack()
            resume.callback(parent.resume)
            stack.callback(resume.close)
            for child in parent.children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it was about to end
                    child.suspend()
                    resume.callback(child.resume)
            return resume.close

        yield suspend


#: The limits are 3 s for a page and 8 s for the callback; a busy machine may add some.
PAGE_SECONDS, CALLBACK_SECONDS = 30, 40


def measure_seconds(call):
    """The result of the call and how long it took."""
    started_at = time.monotonic()
    result = call()
    return result, time.monotonic() - started_at


def test_with_redis_down_the_install_is_stored_directly_with_its_token(
    visitor, own_valkey, connect, migrated_postgres, read_active_hubs
):
    own_valkey.stop()
    path = visitor.install(HUB)
    assert visitor.wait(path) == {"state": "connected", "hub_id": HUB}
    assert read_active_hubs() == [HUB]
    with connect(migrated_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT access_token FROM hubspot.tokens")
        [[token]] = cursor.fetchall()
    assert visitor.simulator.check_tokens([token])[0].is_live
    assert visitor.seconds_until_expiry("tk_grant_") <= STORED_GRANT_SECONDS


def test_with_postgres_down_the_install_is_queued_and_its_page_answers(visitor, migrated_postgres, own_valkey):
    migrated_postgres.stop()
    path = visitor.install(HUB)
    page, seconds = measure_seconds(lambda: visitor.get(path))
    assert page.status_code == 200
    assert "Connecting" in page.text
    assert seconds < PAGE_SECONDS
    with redis.Redis.from_url(own_valkey.url()) as client:
        # On a busy machine the queue may not take it within its second: the page submits it again.
        assert until(lambda: visitor.get(path) and client.llen("tokenkeeper.interactive")) == 1


def test_with_both_down_the_install_is_in_the_browser_until_postgres_is_back(
    visitor, migrated_postgres, own_valkey, read_active_hubs
):
    migrated_postgres.stop()
    own_valkey.stop()
    path = visitor.install(HUB)
    assert visitor.status(path)["state"] == "storing"
    migrated_postgres.start()
    visitor.wait(path)
    assert read_active_hubs() == [HUB]
    assert visitor.seconds_until_expiry("tk_grant_") <= STORED_GRANT_SECONDS


def test_with_both_down_the_install_is_in_the_browser_until_redis_is_back(visitor, migrated_postgres, own_valkey):
    migrated_postgres.stop()
    own_valkey.stop()
    path = visitor.install(HUB)
    own_valkey.start()
    with redis.Redis.from_url(own_valkey.url()) as client:

        def is_queued():
            visitor.status(path)
            return client.llen("tokenkeeper.interactive")

        assert until(is_queued)
    assert visitor.status(path)["state"] == "storing"


def test_after_a_wiped_queue_the_page_submits_the_install_again(visitor, own_valkey, read_active_hubs):
    path = visitor.install(HUB)
    with redis.Redis.from_url(own_valkey.url()) as client:
        client.flushall()
    visitor.wait(path)
    assert read_active_hubs() == [HUB]


def test_with_both_frozen_every_response_comes_in_time(
    visitor, migrated_postgres, own_valkey, freeze, read_active_hubs
):
    resume_all = [freeze(migrated_postgres), freeze(own_valkey)]
    back = visitor.allow(HUB)
    response, seconds = measure_seconds(lambda: visitor.get(back))
    assert response.status_code == 303
    assert seconds < CALLBACK_SECONDS
    path = response.headers["Location"]
    for _ in range(2):
        page, seconds = measure_seconds(lambda: visitor.get(path))
        assert page.status_code == 200
        assert seconds < PAGE_SECONDS
    for resume in resume_all:
        resume()
    visitor.wait(path)
    assert read_active_hubs() == [HUB]


def test_a_reload_during_an_outage_does_not_exchange_the_code_again(visitor, migrated_postgres, own_valkey):
    migrated_postgres.stop()
    own_valkey.stop()
    back = visitor.allow(HUB)
    first, again = visitor.get(back), visitor.get(back)
    assert again.headers["Location"] == first.headers["Location"]
    assert visitor.simulator.get_stats()["by_hub"][str(HUB)]["exchanges"] == 1


def test_with_a_table_missing_the_install_waits_until_it_is_back(visitor, connect, migrated_postgres, own_valkey):
    with connect(migrated_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.installs RENAME TO installs_renamed")
    path = visitor.install(HUB)
    assert visitor.status(path)["state"] == "storing"
    with connect(migrated_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.installs_renamed RENAME TO installs")
    visitor.wait(path)


def test_web_uses_postgres_and_redis_again_after_their_restart(
    visitor, migrated_postgres, own_valkey, read_active_hubs
):
    visitor.wait(visitor.install(1))
    for server in (migrated_postgres, own_valkey):
        server.stop()
        server.start()
    with redis.Redis.from_url(own_valkey.url()) as client:
        # On a busy machine the queue may not take it within its second: then PostgreSQL does.
        assert until(lambda: visitor.wait(visitor.install(2)) and client.llen("tokenkeeper.interactive")) == 1
    assert read_active_hubs() == [1, 2]
