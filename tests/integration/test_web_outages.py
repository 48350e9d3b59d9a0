"""No install is lost: with Redis, PostgreSQL or both out of order, frozen, or the queue wiped."""

import time
from contextlib import ExitStack

import psutil
import pytest
import redis

from shared.db.schema.migrate import migrate
from tests.support.http_server import serving
from tests.support.visitor import Visitor

HUB = 62515


@pytest.fixture
def settings(environment, own_postgres, own_valkey):
    migrate(own_postgres.url())
    return environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url())


@pytest.fixture
def visitor(settings, simulator):
    with serving(settings) as url, Visitor(url, simulator) as visitor:
        visitor.get("/readyz")
        yield visitor


@pytest.fixture
def rows(connect, own_postgres):
    def read():
        with connect(own_postgres.url()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT hub_id FROM hubspot.connections WHERE status = 'active' ORDER BY 1")
            return [row[0] for row in cursor.fetchall()]

    return read


@pytest.fixture
def freeze():
    """Stops a server's processes as they stand, until the test ends or the server is thawed."""
    with ExitStack() as frozen:

        def stop(server):
            parent = psutil.Process(server.process.pid)
            processes = [parent, *parent.children(recursive=True)]
            for process in processes:
                process.suspend()
            thaw = ExitStack()
            for process in processes:
                thaw.callback(process.resume)
            frozen.callback(thaw.close)
            return thaw.close

        yield stop


def timed(call):
    began = time.monotonic()
    result = call()
    return result, time.monotonic() - began


def test_with_redis_down_the_install_is_stored_directly_with_its_token(
    visitor, own_valkey, connect, own_postgres, rows
):
    own_valkey.stop()
    path = visitor.install(HUB)
    assert visitor.status(path) == {"state": "connected", "hub_id": HUB}
    assert rows() == [HUB]
    with connect(own_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT access_token FROM hubspot.tokens")
        [[token]] = cursor.fetchall()
    assert visitor.simulator.check_tokens([token])[0].is_live
    assert visitor.cookie("tk_grant") is None


def test_with_postgres_down_the_queue_keeps_it_and_the_page_answers(visitor, own_postgres, own_valkey):
    own_postgres.stop()
    path = visitor.install(HUB)
    page, seconds = timed(lambda: visitor.get(path))
    assert page.status_code == 200
    assert "Connecting" in page.text
    assert seconds < 3
    with redis.Redis.from_url(own_valkey.url()) as client:
        assert client.llen("tokenkeeper.interactive") == 1


def test_with_both_down_the_browser_keeps_it_until_postgres_is_back(visitor, own_postgres, own_valkey, rows):
    own_postgres.stop()
    own_valkey.stop()
    path = visitor.install(HUB)
    assert visitor.status(path)["state"] == "storing"
    own_postgres.start()
    visitor.wait(path, seconds=10)
    assert rows() == [HUB]
    assert visitor.cookie("tk_grant") is None


def test_with_both_down_the_browser_keeps_it_until_redis_is_back(visitor, own_postgres, own_valkey):
    own_postgres.stop()
    own_valkey.stop()
    path = visitor.install(HUB)
    own_valkey.start()
    deadline = time.monotonic() + 10
    with redis.Redis.from_url(own_valkey.url()) as client:
        while not client.llen("tokenkeeper.interactive"):
            assert time.monotonic() < deadline
            visitor.status(path)
            time.sleep(0.2)
    assert visitor.status(path)["state"] == "storing"


def test_a_wiped_queue_is_made_good_by_the_page(visitor, own_valkey, rows):
    path = visitor.install(HUB)
    with redis.Redis.from_url(own_valkey.url()) as client:
        client.flushall()
    visitor.wait(path, seconds=10)
    assert rows() == [HUB]


def test_with_both_frozen_every_answer_still_comes_in_time(visitor, own_postgres, own_valkey, freeze, rows):
    thaw = [freeze(own_postgres), freeze(own_valkey)]
    back = visitor.allow(HUB)
    answer, seconds = timed(lambda: visitor.get(back))
    assert answer.status_code == 303
    assert seconds < 8
    path = answer.headers["Location"]
    for _ in range(2):
        page, seconds = timed(lambda: visitor.get(path))
        assert page.status_code == 200
        assert seconds < 3
    for server in thaw:
        server()
    visitor.wait(path, seconds=15)
    assert rows() == [HUB]


def test_a_reload_during_the_outage_does_not_exchange_again(visitor, own_postgres, own_valkey):
    own_postgres.stop()
    own_valkey.stop()
    back = visitor.allow(HUB)
    first, again = visitor.get(back), visitor.get(back)
    assert again.headers["Location"] == first.headers["Location"]
    assert visitor.simulator.get_stats()["by_hub"][str(HUB)]["exchanges"] == 1


def test_a_database_that_loses_its_schema_keeps_nobody_from_installing(visitor, connect, own_postgres, own_valkey):
    with connect(own_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.installs RENAME TO gone")
    path = visitor.install(HUB)
    assert visitor.status(path)["state"] == "storing"
    with connect(own_postgres.url()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.gone RENAME TO installs")
    visitor.wait(path, seconds=10)


def test_servers_that_were_restarted_are_used_again(visitor, own_postgres, own_valkey, rows):
    visitor.wait(visitor.install(1))
    for server in (own_postgres, own_valkey):
        server.stop()
        server.start()
    visitor.wait(visitor.install(2))
    assert rows() == [1, 2]
    with redis.Redis.from_url(own_valkey.url()) as client:
        assert client.llen("tokenkeeper.interactive") == 1
