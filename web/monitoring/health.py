"""GET /healthz: whether the process runs. GET /readyz: whether the servers that it needs answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from flask import Response, jsonify
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import ReadOnlyError, RedisError
from sqlalchemy import Engine

from shared.db.core.errors import SchemaError, StatementRejected, StoreReadOnly, StoreUnavailable
from shared.db.schema.migrate import check_schema
from shared.dispatch import build_broker_config
from web.server.timeouts import run_in_thread

#: For all checks together. Less than CONNECT_TIMEOUT_SECONDS: a server that accepts and does not answer is not "down".
READY_TIMEOUT_SECONDS = 1.8
#: Requests at once that wait for the checks; the others get the latest result.
MAX_WAITING_REQUESTS = 2
#: No such key exists, and LPUSHX creates none.
READY_KEY = "tokenkeeper.readyz"

Check = Callable[[], None]


class NotReady(Exception):
    """The text, of one or two words, is shown to anyone who asks."""


def healthz() -> Response:
    return Response("ok\n", mimetype="text/plain")


class Readiness:
    """`GET /readyz`. Anyone may ask, so the checks run once at a time, and requests meanwhile share the result."""

    def __init__(self, checks: Mapping[str, Check], seconds: float | None = None) -> None:
        """`seconds`: limit for all checks together; None: READY_TIMEOUT_SECONDS."""
        self._checks = checks
        self._seconds = seconds or READY_TIMEOUT_SECONDS
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING_REQUESTS)
        self._run: Future[dict[str, str]] | None = None
        self._latest = dict.fromkeys(checks, "no answer")

    def page(self) -> Response:
        states = self._latest
        if self._waiting.acquire(blocking=False):
            try:
                states = self._read_states()
            finally:
                self._waiting.release()
        response = jsonify(states)
        response.status_code = 200 if set(states.values()) == {"ok"} else 503
        return response

    def _read_states(self) -> dict[str, str]:
        with self._lock:
            run = self._run or Future()
            is_own = run is not self._run
            self._run = run
        if is_own:
            try:
                self._latest = _run_checks(self._checks, self._seconds)
            finally:
                self._run = None
                run.set_result(self._latest)
        return run.result()


def _run_checks(checks: Mapping[str, Check], seconds: float) -> dict[str, str]:
    """Runs all checks at the same time, so that two servers that hang take no longer than one."""
    deadline = time.monotonic() + seconds
    pending = {name: run_in_thread(check) for name, check in checks.items()}
    states = {}
    for name, result in pending.items():
        try:
            result.result(max(0.0, deadline - time.monotonic()))
            states[name] = "ok"
        except TimeoutError:
            states[name] = "no answer"
        except NotReady as error:
            states[name] = str(error)
    return states


def readiness_checks(engine: Engine, redis_url: str) -> dict[str, Check]:
    return {"postgres": partial(_check_postgres, engine), "redis": partial(_check_redis, redis_url)}


def _check_postgres(engine: Engine) -> None:
    try:
        check_schema(engine)
    except SchemaError:
        raise NotReady("not migrated") from None
    except StoreReadOnly:
        raise NotReady("read-only") from None
    except (StoreUnavailable, StatementRejected):
        raise NotReady("down") from None


def _check_redis(redis_url: str) -> None:
    """By a write that changes nothing: a replica, and a Redis without memory, answer everything else."""
    url, options = build_broker_config(redis_url, {"socket_connect_timeout": 1, "socket_timeout": 1})
    try:
        with Connection(url, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=READY_TIMEOUT_SECONDS)
            connection.default_channel.client.lpushx(READY_KEY, "")
    except ReadOnlyError:
        raise NotReady("read-only") from None
    except (OperationalError, RedisError, OSError):
        raise NotReady("down") from None
