"""kombu's Redis transport, in which every error of Redis means "connect again".

kombu takes only some of them for a lost connection, and stays connected to a server that refuses each command: a
primary that became a replica (READONLY), a full one (OOM), one whose permissions were changed (NOPERM). After a
failover the name of the server leads to another one, so only a new connection can help.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

CONNECTION_ERRORS = (*redis.Transport.connection_errors, RedisError)


def use_transports(single: str, sentinel: str) -> None:
    """Let kombu use these classes ("module:class"). Call it before the process connects."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = single
    TRANSPORT_ALIASES["sentinel"] = sentinel


def use_reconnecting_transports() -> None:
    use_transports(f"{__name__}:ReconnectingTransport", f"{__name__}:ReconnectingSentinelTransport")


class ReconnectingChannelMixin:
    def _connparams(self, asynchronous: bool = False) -> Any:
        """The channels of a lost connection are closed twice by kombu, the second time without the connection."""
        if getattr(self.connection, "client", None) is None:  # type: ignore[attr-defined]  # of kombu's channels
            raise RedisConnectionError("the connection to the broker is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One for each pool. kombu makes one for each command, of which each fills a table of 170 callbacks."""
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[misc]
        client: Any = getattr(self, "_known_client", None)
        if client is None or client.connection_pool is not self.pool:  # type: ignore[attr-defined]
            client = self._known_client = super()._create_client()  # type: ignore[misc]
        return client

    def close(self) -> None:
        """Never raises. kombu deletes temporary queues at Redis, and stops half-way where that is refused."""
        try:
            super().close()  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001  whatever a broken connection makes kombu raise
            log.debug("a channel could not be closed in order", why=type(error).__name__)
            self.auto_delete_queues: set[str] = set()
            with suppress(Exception):
                super().close()  # type: ignore[misc]


class ReconnectingChannel(ReconnectingChannelMixin, redis.Channel):  # type: ignore[misc]  # kombu has no types
    pass


class ReconnectingTransport(redis.Transport):  # type: ignore[misc]  # kombu has no types
    Channel = ReconnectingChannel
    connection_errors = CONNECTION_ERRORS


class ReconnectingSentinelChannel(ReconnectingChannelMixin, redis.SentinelChannel):  # type: ignore[misc]  # no types
    pass


class ReconnectingSentinelTransport(redis.SentinelTransport):  # type: ignore[misc]  # kombu has no types
    Channel = ReconnectingSentinelChannel
    connection_errors = CONNECTION_ERRORS
