"""Whether this process lives, and whether it can do its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from flask import Response, jsonify
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.db.core.errors import SchemaError, StoreBroken, StoreUnavailable
from shared.db.schema.migrate import check_schema
from shared.dispatch import broker
from web.server.timeouts import run_in_thread

#: Seconds that each server is given.
PATIENCE = 2.0

Check = Callable[[], None]


class NotReady(Exception):
    """In one or two words, for anybody to read."""


def healthz() -> Response:
    return Response("ok\n", mimetype="text/plain")


def readyz(checks: Mapping[str, Check]) -> Response:
    """All are asked at the same time: two that hang take no longer than one."""
    deadline = time.monotonic() + PATIENCE
    asked = {name: run_in_thread(check_schema) for name, check_schema in checks.items()}
    found = {name: _state(answer, deadline) for name, answer in asked.items()}
    response = jsonify(found)
    response.status_code = 200 if set(found.values()) == {"ok"} else 503
    return response


def checks(engine: Engine, redis_url: str) -> dict[str, Check]:
    return {"postgres": partial(_postgres, engine), "redis": partial(_redis, redis_url)}


def _state(answer: Future[None], deadline: float) -> str:
    try:
        answer.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return "no answer"
    except NotReady as error:
        return str(error)
    return "ok"


def _postgres(engine: Engine) -> None:
    try:
        check_schema(engine)
    except SchemaError:
        raise NotReady("not migrated") from None
    except (StoreUnavailable, StoreBroken):
        raise NotReady("down") from None


def _redis(redis_url: str) -> None:
    url, options = broker(redis_url, {"socket_connect_timeout": 1, "socket_timeout": 1})
    try:
        with Connection(url, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=PATIENCE)
    except (OperationalError, RedisError, OSError):
        raise NotReady("down") from None
