"""kombu's Redis transport with validation of every message (worker/messages/validation.py), and no remote control."""

from __future__ import annotations

import json
from contextlib import suppress
from queue import Empty
from typing import Any

import structlog
from celery.worker.control import Panel
from kombu.exceptions import OperationalError
from kombu.transport import redis
from kombu.transport.virtual import QoS
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from shared.boot_clock import boot_seconds
from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE
from shared.redis_transport import CONNECTION_ERRORS, ReconnectingChannelMixin, use_transports
from worker.messages.validation import InvalidMessage, validate

log = structlog.get_logger(__name__)

#: The commands of Celery's remote control that only read: Flower and `celery inspect` use them. Without those that shut
#: down, stop consuming, shrink the pool, change limits or revoke tasks.
READ_ONLY_COMMANDS = frozenset(
    {
        "ping",
        "hello",
        "clock",
        "report",
        "conf",
        "stats",
        "registered",
        "active_queues",
        "active",
        "reserved",
        "scheduled",
        "revoked",
        "heartbeat",
        "enable_events",
    }
)
VALIDATED_QUEUES = frozenset({INTERACTIVE_QUEUE, BACKGROUND_QUEUE})
#: kombu puts this between the name of a queue and a message's priority.
PRIORITY_SEPARATOR = redis.Channel.sep
#: Between two questions for Redis's time.
CLOCK_SECONDS = 10.0
#: Messages of closed channels that Redis has not taken back yet: by delivery tag, with the queue. At most as many as
#: this worker takes at once.
_unreturned: dict[str, tuple[str, dict[str, Any]]] = {}
#: Redis's own failures, after which the worker connects again. Any other exception comes from what a message holds.
REDIS_ERRORS = (OperationalError, RedisError, OSError, Empty)


def install_validating_transport() -> None:
    """Call it before the process connects."""
    use_transports(f"{__name__}:ValidatingTransport", f"{__name__}:ValidatingSentinelTransport")


def disable_remote_control() -> None:
    for name in set(Panel.data) - READ_ONLY_COMMANDS:
        del Panel.data[name]


class RedisClock:
    """Redis's clock, in seconds since 1970, asked every few seconds."""

    def __init__(self) -> None:
        self._anchor: tuple[float, float] | None = None  #: Redis's time, and boot_seconds() at that moment

    def now(self, client: Any) -> float:
        if self._anchor is None or boot_seconds() - self._anchor[1] > CLOCK_SECONDS:
            seconds, microseconds = client.time()
            self._anchor = (seconds + microseconds / 1e6, boot_seconds())
        redis_now, anchor_seconds = self._anchor
        return redis_now + boot_seconds() - anchor_seconds


class ValidatingQoS(redis.QoS):  # type: ignore[misc]  # kombu has no types
    """Messages that were taken and not acknowledged are in Redis too, where others could change them.

    kombu dates them by the clock of the host that takes them, and compares that with the clock of the host that looks
    for old ones. Here both dates are Redis's.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = RedisClock()

    def append(self, message: Any, delivery_tag: Any) -> None:
        """BRPOP has removed the message from its queue: where Redis does not keep a copy, it is executed all the same.

        A full Redis refuses the copy (OOM), a lost connection cannot make it. Without the message an install would be
        lost; with it, only one whose worker dies before it is stored.
        """
        info = message.delivery_info
        copy = json.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001  as kombu does
        try:
            with self.channel.conn_or_acquire() as client:
                pipe = client.pipeline()
                pipe.zadd(self.unacked_index_key, {delivery_tag: self._clock.now(client)})
                pipe.hset(self.unacked_key, delivery_tag, copy).execute()
        except REDIS_ERRORS as error:
            log.warning("Redis does not keep a copy of a message in work", why=f"{type(error).__name__}: {error}")
        QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: Any) -> None:
        _unreturned.pop(delivery_tag, None)  # it was executed after its connection had been lost
        try:
            super().ack(delivery_tag)
        except REDIS_ERRORS as error:
            # Redis keeps its copy: it is executed again when that is old. Celery would log a traceback, and never take
            # another message in its place.
            log.warning("Redis does not take an acknowledgement", why=f"{type(error).__name__}: {error}")
            QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Called as the channel is closed. Put the messages in work back, for Celery forgets them.

        They come from this process's memory, because Redis may have lost its copies, or have none. Where it does not
        answer, the next connection puts them back. One that a pool process executes meanwhile is executed twice, which
        all tasks allow.
        """
        for tag, message in self._delivered.items():
            queue = message.delivery_info["routing_key"]
            if queue in VALIDATED_QUEUES:
                _unreturned[tag] = (queue, message._raw)  # noqa: SLF001  as kombu does
        self._delivered.clear()
        self.return_messages(client)

    def return_messages(self, client: Any = None) -> None:
        with self.channel.conn_or_acquire(client) as connected:
            for tag, (queue, raw) in tuple(_unreturned.items()):
                raw["headers"]["redelivered"] = raw["properties"]["delivery_info"]["redelivered"] = True
                priority = self.channel._get_message_priority(raw, reverse=False)  # noqa: SLF001  as kombu does
                pipe = connected.pipeline()
                self._remove_from_indices(tag, pipe)
                pipe.rpush(self.channel._q_for_pri(queue, priority), json.dumps(raw)).execute()  # noqa: SLF001
                _unreturned.pop(tag, None)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put messages back that were taken longer ago than the visibility timeout, or whose channel was closed.

        One process does it at a time, and none while Redis is full: it refuses the lock and the message.
        """
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client, suppress(redis.MutexHeld, OutOfMemoryError):
            self.return_messages(client)
            latest = self._clock.now(client) - self.visibility_timeout
            with redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                for tag in client.zrange(
                    self.unacked_index_key, latest, 0, desc=True, byscore=True, offset=num and start, num=num
                ):
                    self.restore_by_tag(tag, client)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except REDIS_ERRORS:
            raise
        except Exception:  # noqa: BLE001  kombu raises anything for a malformed entry
            _log_dropped("unacked", "it cannot be read")
            self._remove_from_indices(tag).execute()


class _ValidatingChannelMixin(ReconnectingChannelMixin):
    QoS = ValidatingQoS

    def _create_client(self, *arguments: Any, **options: Any) -> Any:
        client = super()._create_client(*arguments, **options)
        client.set_response_callback("BRPOP", _validate_brpop_reply)
        return client

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """A full Redis gives messages away, but lets no worker announce itself: so it connects without, where it can.

        Queues of remote control may stay unannounced; those of tasks must have been announced by an earlier process.
        """
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except OutOfMemoryError:
            if queue in VALIDATED_QUEUES and not self.get_table(exchange):  # type: ignore[attr-defined]
                raise

    def basic_consume(self, queue: str, *arguments: Any, **options: Any) -> None:
        super().basic_consume(queue, *arguments, **options)  # type: ignore[misc]
        if queue in VALIDATED_QUEUES:
            with suppress(ResponseError):  # Redis answers, and takes nothing back now: restore_visible() tries again
                self.qos.return_messages()  # type: ignore[attr-defined]

    def _receive_one(self, client: Any) -> Any:
        """Reads the pub/sub channels of remote control and events, which carry no installs."""
        try:
            return super()._receive_one(client)  # type: ignore[misc]  # of kombu's channels
        except REDIS_ERRORS:
            raise
        except Exception:  # noqa: BLE001  kombu raises anything for a malformed message
            _log_dropped("remote control", "it cannot be read")
            raise Empty from None


class ValidatingChannel(_ValidatingChannelMixin, redis.Channel):  # type: ignore[misc]  # kombu has no types
    pass


class ValidatingTransport(redis.Transport):  # type: ignore[misc]  # kombu has no types
    Channel = ValidatingChannel
    connection_errors = CONNECTION_ERRORS


class ValidatingSentinelChannel(_ValidatingChannelMixin, redis.SentinelChannel):  # type: ignore[misc]  # no types
    pass


class ValidatingSentinelTransport(redis.SentinelTransport):  # type: ignore[misc]  # kombu has no types
    Channel = ValidatingSentinelChannel
    connection_errors = CONNECTION_ERRORS


def _validate_brpop_reply(reply: list[bytes] | None, **_options: Any) -> tuple[bytes, bytes] | None:
    """The queue and the message; None for an invalid one, as kombu knows it from a BRPOP that timed out.

    A process that uses remote control (Flower, `celery inspect`) loads this too; the replies to it come in a list of
    its own, which is not validated.
    """
    if not reply:
        return None
    queue, message = reply
    name = queue.decode(errors="replace")
    if name.partition(PRIORITY_SEPARATOR)[0] not in VALIDATED_QUEUES:
        return queue, message
    try:
        return queue, validate(message)
    except InvalidMessage as error:
        _log_dropped(name, str(error), size=len(message))
        return None


def _log_dropped(queue: str, why: str, **fields: int) -> None:
    log.warning("dropped an invalid message", queue=queue, why=why, **fields)
