"""Which messages a worker accepts from a queue: those that shared/dispatch.py, beat and Celery's retries make.

A process with access to Redis can write anything there, and Celery trusts it: bytes that are not JSON end a worker, and
a message can name tasks to call afterwards. So each message is validated before Celery sees it; others are dropped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from shared import dispatch
from shared.domain.hub_id import is_hub_id
from worker.messages.checks import (
    Check,
    is_bool,
    is_count,
    is_delivery_info,
    is_empty,
    is_none_or,
    is_one_of,
    is_text,
    is_uuid,
)

#: The largest message holds one encrypted grant, of a few KB.
MAX_MESSAGE_BYTES = 1024 * 1024

#: The tasks, and their arguments by name.
TASK_ARGUMENTS: Mapping[str, Mapping[str, Check]] = {
    dispatch.STORE_INSTALL: {"install_id": is_uuid, "hub_id": is_hub_id, "ciphertext": is_text},
    dispatch.DISCONNECT: {"connection_id": is_hub_id},  # the ids have the same range
    dispatch.SWEEP: {},
}
#: The headers of Celery's message protocol 2. An absent one is checked as None. `eta` and `expires` are not among them:
#: Celery would compare them with this host's clock.
HEADERS: Mapping[str, Check] = {
    "task": is_one_of(*TASK_ARGUMENTS),
    "id": is_uuid,
    "lang": is_none_or(is_text),
    "root_id": is_none_or(is_text),
    "parent_id": is_none_or(is_text),
    "group": is_empty,
    "compression": is_empty,
    "retries": is_none_or(is_count),
    "timelimit": is_one_of(None, [None, None]),
    "argsrepr": is_none_or(is_text),
    "kwargsrepr": is_none_or(is_text),
    "origin": is_none_or(is_text),
    "ignore_result": is_none_or(is_bool),
    "redelivered": is_none_or(is_bool),
    "traceparent": is_none_or(is_text),
    "tracestate": is_none_or(is_text),
}
#: kombu's properties.
PROPERTIES: Mapping[str, Check] = {
    "body_encoding": is_one_of("base64"),
    "delivery_tag": is_text,
    "delivery_info": is_delivery_info,
    "correlation_id": is_none_or(is_text),
    "delivery_mode": is_none_or(is_count),
    "priority": is_none_or(is_count),
}


class InvalidMessage(Exception):
    """Says why a message is dropped, without anything of its content."""


def validate(raw: bytes) -> bytes:
    """The message, without headers and properties that are not in the tables. Raises InvalidMessage."""
    # 1. The envelope.
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidMessage("too large")
    message = _check_object(_parse_json(raw, "it is not JSON"), "it is not an object")
    if (message.get("content-type"), message.get("content-encoding")) != ("application/json", "utf-8"):
        raise InvalidMessage("its content type is not JSON")
    headers = _check_fields(message.get("headers"), HEADERS, "headers")
    properties = _check_fields(message.get("properties"), PROPERTIES, "properties")

    # 2. The body: base64 of JSON, [positional arguments, arguments by name, what to call afterwards].
    body = message.get("body")
    if not isinstance(body, str):
        raise InvalidMessage("its body is not text")
    try:
        decoded = base64.b64decode(body, validate=True)
    except ValueError:  # also where it is not even ASCII
        raise InvalidMessage("its body is not base64") from None
    content = _parse_json(decoded, "its body is not JSON")
    if not isinstance(content, list) or len(content) != 3 or content[0] != []:  # noqa: PLR2004  Celery's protocol 2
        raise InvalidMessage("its body is not a task's")
    _, arguments, afterwards = content
    if any(_check_object(afterwards, "its body is not a task's").values()):
        raise InvalidMessage("it names other tasks to call")
    # Further arguments may come from a newer version: the task ignores them.
    _check_fields(arguments, TASK_ARGUMENTS[headers["task"]], "arguments")

    checked = {"body": body, "content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({**checked, "headers": headers, "properties": properties}).encode()


def _check_fields(value: object, checks: Mapping[str, Check], what: str) -> dict[str, Any]:
    """The fields of `value` that `checks` names, each of which must pass."""
    fields = _check_object(value, f"its {what} are not an object")
    for name, check in checks.items():
        if not check(fields.get(name)):
            raise InvalidMessage(f"its {what} are not as tokenkeeper makes them: {name}")
    return {name: fields[name] for name in checks if name in fields}


def _check_object(value: object, why: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidMessage(why)
    return value


def _parse_json(raw: bytes, why: str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidMessage(why) from None
