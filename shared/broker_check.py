"""Whether the broker at REDIS_URL can be used: it answers, takes our login, and lets us run what kombu sends it.

The commands are tried inside MULTI and then discarded: Redis checks the rights to each command, key and channel before
it queues it, and executes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kombu import Connection
from kombu.exceptions import OperationalError
from redis import exceptions

from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE, build_broker_config

TIMEOUT_SECONDS = 2.0
CONNECT_ERRORS = (OperationalError, exceptions.RedisError, OSError)
#: What kombu and we send: by kombu's source, queues are lists, bindings sets, messages in work a hash with a sorted set
#: as index, the lock of their return a string with a script, remote control and events publish and subscribe.
COMMANDS = (
    *(f"{command} {queue}" for queue in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE) for command in ("RPOP", "LLEN", "DEL")),
    *(f"{command} {queue} x" for queue in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE) for command in ("LPUSH", "RPUSH")),
    *(f"BRPOP {queue} 1" for queue in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE)),
    f"SADD _kombu.binding.{BACKGROUND_QUEUE} x",
    f"SREM _kombu.binding.{BACKGROUND_QUEUE} x",
    "SMEMBERS _kombu.binding.celery.pidbox",
    "HSET unacked x y",
    "HGET unacked x",
    "HDEL unacked x",
    "ZADD unacked_index 1 x",
    "ZREM unacked_index x",
    "ZRANGE unacked_index 0 1",
    "ZREVRANGEBYSCORE unacked_index 1 0",
    "SET unacked_mutex x NX PX 1",
    "GET unacked_mutex",
    "EVALSHA x 1 unacked_mutex",
    "SCRIPT LOAD return",
    "PUBLISH /0.celeryev/worker.heartbeat x",
    "SUBSCRIBE /0.celery.pidbox",
    "TIME",  # worker/messages/transport.py
    "PING",
    "PSUBSCRIBE /0.celery.pidbox",
)
#: Two keys in one command: a cluster refuses them, also one of a single server.
TWO_KEYS = f"EXISTS {INTERACTIVE_QUEUE} {BACKGROUND_QUEUE}"
#: Errors that end by themselves, or with a failover.
TEMPORARY_ERRORS = (
    exceptions.BusyLoadingError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)
TEMPORARY_CODES = ("MISCONF", "NOREPLICAS", "BUSY")
#: Of redis-py where nothing listens on a Unix socket: the server may not have started yet.
NO_SOCKET = "connecting to unix"
CLUSTER_ERRORS = (
    exceptions.AskError,  # MovedError is one
    exceptions.ClusterCrossSlotError,
    exceptions.ClusterDownError,
)
CLUSTER = (
    "is in cluster mode, and Celery's queues need one server: turn cluster mode off, or use another Redis "
    "(ElastiCache: a cache with cluster mode disabled, not Serverless)"
)
NO_TLS = "has no TLS at this port, which rediss:// demands"
#: What does not end by itself: an error's class and a part of its text, and what to tell people. The first that fits
#: counts.
PERMANENT_ERRORS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (CLUSTER_ERRORS, "", CLUSTER),
    (exceptions.ResponseError, "cluster mode", CLUSTER),
    (exceptions.AuthenticationError, "", "refuses our login: correct user and password in REDIS_URL"),
    (
        exceptions.NoPermissionError,
        "",
        "does not let our user select its database: have an administrator run: ACL SETUSER … +@connection",
    ),
    (exceptions.ResponseError, "", "refuses us: is the number of the database in REDIS_URL right?"),
    (
        exceptions.ConnectionError,
        "CERTIFICATE_VERIFY_FAILED",
        "has a certificate that is not trusted, or is another host's: correct the name, or add ?ssl_ca_certs=/path",
    ),
    (exceptions.ConnectionError, "WRONG_VERSION_NUMBER", NO_TLS),
    # redis-py says so of a certificate's file; of a Unix socket, see NO_SOCKET
    (exceptions.ConnectionError, "No such file", "needs a file that REDIS_URL names: correct its path"),
    (exceptions.ConnectionError, "Permission denied", "needs a file that this user may not read: correct its mode"),
)


class BrokerUnavailable(Exception):
    """The broker does not answer, or not now. The message is a few words."""


class BrokerUnusable(Exception):
    """Waiting does not help. The message says what is wrong and what to do, without a value of REDIS_URL."""


def check_broker(redis_url: str, max_retries: int = 1) -> None:
    """Raises BrokerUnavailable or BrokerUnusable, after some seconds at most."""
    timeouts = {"socket_connect_timeout": TIMEOUT_SECONDS, "socket_timeout": TIMEOUT_SECONDS}
    url, options = build_broker_config(redis_url, timeouts)
    try:
        with Connection(url, transport_options=options) as connection:
            connection.ensure_connection(
                lambda error, _: _raise_if_permanent(connection, error),
                max_retries=max_retries,
                interval_start=0.2,
                interval_step=0.5,
                timeout=5,
            )
            refused = _find_refused_commands(connection.default_channel.client)
    except CONNECT_ERRORS as error:
        _raise_if_permanent(connection, error)
        raise _unavailable(error) from None
    if refused:
        raise BrokerUnusable(
            f"the user of REDIS_URL may not run {', '.join(refused)} at the broker: have an administrator run: "
            "ACL SETUSER … ~* &* +@all -@admin -@dangerous"
        )


def _find_refused_commands(client: Any) -> list[str]:
    """Raises an error of Redis where it refuses a command for another reason than a missing right."""
    connection = client.connection_pool.get_connection()
    try:
        return list(dict.fromkeys(_try_commands(connection)))
    finally:
        connection.disconnect()  # it may be in the middle of a transaction
        client.connection_pool.release(connection)


def _try_commands(connection: Any) -> Iterator[str]:
    for command in ("WATCH unacked", "UNWATCH", "MULTI"):
        connection.send_command(*command.split())
        if refused := _read_refusal(connection, command):
            yield refused
            if command == "MULTI":
                return  # the next ones would be executed
    # Together: a distant Redis takes a tenth of a second for each answer.
    commands = (*COMMANDS, "DISCARD", TWO_KEYS)
    connection.send_packed_command(connection.pack_commands([command.split() for command in commands]))
    yield from filter(None, (_read_refusal(connection, command) for command in commands))


def _read_refusal(connection: Any, command: str) -> str:
    """The command's name where the user may not run it, else empty."""
    try:
        connection.read_response()
    except exceptions.NoPermissionError:
        words = command.split()
        return " ".join(words[:2]) if words[0] == "SCRIPT" else words[0]
    return ""


def _raise_if_permanent(connection: Connection, error: BaseException) -> None:
    """Raises BrokerUnusable."""
    if reason := _explain(error.__cause__ or error) or _explain_no_handshake(connection, error):
        raise BrokerUnusable(f"the broker at REDIS_URL {reason}") from None


def _explain(error: BaseException) -> str:
    """What is wrong and does not end by itself; empty for anything else."""
    text = str(error)
    if isinstance(error, TEMPORARY_ERRORS) or text.startswith(TEMPORARY_CODES) or NO_SOCKET in text:
        return ""
    return next((reason for kind, part, reason in PERMANENT_ERRORS if isinstance(error, kind) and part in text), "")


def _explain_no_handshake(connection: Connection, error: BaseException) -> str:
    """A Redis without TLS waits for the end of a line, of which there is none in a handshake."""
    return NO_TLS if _had_no_handshake(error) and _answers_in_clear(connection.hostname, connection.port) else ""


def _answers_in_clear(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), TIMEOUT_SECONDS) as plain:
        plain.sendall(b"PING\r\n")
        return plain.recv(1) in {b"+", b"-"}
    return False


def _had_no_handshake(error: BaseException) -> bool:
    cause = error.__cause__ or error
    return "handshake" in str(cause.__cause__ or cause.__context__ or cause)


def _unavailable(error: BaseException) -> BrokerUnavailable:
    if _had_no_handshake(error):
        return BrokerUnavailable("no answer to TLS: has it TLS at this port?")
    return BrokerUnavailable(type(error.__cause__ or error).__name__)
