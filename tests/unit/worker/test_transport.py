"""kombu's channels and their messages in work where Redis fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from shared.redis_transport import ReconnectingChannel
from worker.messages.transport import ValidatingQoS


class FailingRedis:
    """Each command raises the error."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.commands = 0

    def __getattr__(self, _: str) -> Callable[..., None]:
        def execute(*_: object, **_options: object) -> None:
            self.commands += 1
            raise self._error

        return execute


class Channel:
    """As kombu's, with a connection to this Redis."""

    unacked_key = unacked_index_key = unacked_mutex_key = "key"
    unacked_mutex_expire = visibility_timeout = 1
    do_restore = False

    def __init__(self, redis: FailingRedis) -> None:
        self._redis = redis

    @contextmanager
    def conn_or_acquire(self, _client: FailingRedis | None = None) -> Iterator[FailingRedis]:
        yield self._redis


def test_messages_are_looked_for_each_tenth_time_and_a_full_redis_is_no_error() -> None:
    redis = FailingRedis(OutOfMemoryError())
    messages = ValidatingQoS(Channel(redis))
    for _ in range(11):
        messages.restore_visible()
    assert redis.commands == 2


def test_a_message_is_not_dropped_because_redis_fails_as_it_is_put_back() -> None:
    messages = ValidatingQoS(Channel(FailingRedis(RedisConnectionError())))
    with pytest.raises(RedisConnectionError):
        messages.restore_by_tag("a-tag")


def test_a_channel_whose_connection_is_closed_makes_no_new_one() -> None:
    channel = object.__new__(ReconnectingChannel)
    channel.connection = SimpleNamespace(client=None)
    with pytest.raises(RedisConnectionError, match="is closed"):
        channel._connparams()
