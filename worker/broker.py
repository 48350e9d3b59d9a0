"""kombu's transport for Redis, with validation of every message (worker/message_validation.py) no remote control."""

from __future__ import annotations

from queue import Empty
from typing import Any

import structlog
from celery.worker.control import Panel
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import RedisError

from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE
from worker.message_validation import InvalidMessage, validate

log = structlog.get_logger(__name__)

#: Of Celery's remote control what looks and changes nothing: Flower's pages ask it, and `celery inspect`. Not among
#: them: shut down, stop consuming, shrink the pool, change limits, revoke tasks.
INSPECTION = frozenset(
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
GUARDED = frozenset({INTERACTIVE_QUEUE, BACKGROUND_QUEUE})
#: What kombu puts between the name of a queue and a message's priority.
PRIORITY = redis.Channel.sep
#: What Redis's own trouble raises: the worker connects anew.
TROUBLE = (OperationalError, RedisError, OSError, Empty)


def install_validating_transport() -> None:
    """To be called before the process connects."""
    for name in ("redis", "rediss", "unix"):
        if name in TRANSPORT_ALIASES:
            TRANSPORT_ALIASES[name] = "worker.broker:Transport"
    TRANSPORT_ALIASES["sentinel"] = "worker.broker:SentinelTransport"


def disable_remote_control() -> None:
    for name in set(Panel.data) - INSPECTION:
        del Panel.data[name]


class QoS(redis.QoS):  # type: ignore[misc]  # kombu has no types
    """Messages that were taken and not acknowledged lie in Redis too, for anybody to write to."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except TROUBLE:
            raise
        except Exception:  # noqa: BLE001  whatever kombu stumbles over
            _drop("unacked", "it cannot be read")
            self._remove_from_indices(tag).execute()


class _Guarded:
    """Of a channel: everything that it reads is somebody's writing."""

    QoS = QoS

    def _create_client(self, *arguments: Any, **options: Any) -> Any:
        client = super()._create_client(*arguments, **options)  # type: ignore[misc]  # of kombu's channels
        client.set_response_callback("BRPOP", _taken)
        return client

    def _receive_one(self, client: Any) -> Any:
        """From the channels of the remote control and of events: nobody's installs."""
        try:
            return super()._receive_one(client)  # type: ignore[misc]  # of kombu's channels
        except TROUBLE:
            raise
        except Exception:  # noqa: BLE001  whatever kombu stumbles over
            _drop("remote control", "it cannot be read")
            raise Empty from None


class Channel(_Guarded, redis.Channel):  # type: ignore[misc]  # kombu has no types
    pass


class Transport(redis.Transport):  # type: ignore[misc]  # kombu has no types
    Channel = Channel


class SentinelChannel(_Guarded, redis.SentinelChannel):  # type: ignore[misc]  # kombu has no types
    pass


class SentinelTransport(redis.SentinelTransport):  # type: ignore[misc]  # kombu has no types
    Channel = SentinelChannel


def _taken(reply: list[bytes] | None, **_options: Any) -> tuple[bytes, bytes] | None:
    """What BRPOP brought; None, as where nothing came in time, for what is none of ours.

    Who asks by remote control (Flower, `celery inspect`) loads this too, and reads the answers from a list of its own.
    """
    if not reply:
        return None
    queue, raw = reply
    if queue.decode(errors="replace").partition(PRIORITY)[0] not in GUARDED:
        return queue, raw
    try:
        return queue, validate(raw)
    except InvalidMessage as error:
        why = str(error)
    except Exception:  # noqa: BLE001  a slip of ours must not be the end of a worker either
        why = "it cannot be read"
    _drop(queue.decode(errors="replace"), why, size=len(raw))
    return None


def _drop(queue: str, why: str, **more: int) -> None:
    log.warning("dropped a message that is none of ours", queue=queue, why=why, **more)
