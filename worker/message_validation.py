"""What may come off a queue: messages as shared/dispatch.py, beat and Celery's retries make them, and nothing else.

Whoever can write to Redis can put anything there, and Celery trusts it: a byte that is no JSON ends a worker, and a
message can name tasks to call afterwards. So each is looked at before Celery sees it; what is none of ours is let go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from shared import dispatch
from shared.domain.hub_id import is_hub_id

#: Bytes. No message of ours comes near: the largest holds one sealed grant.
LARGEST = 1024 * 1024

#: In which somebody may want a task done.
YEARS = range(2020, 2200)

Fits = Callable[[Any], bool]


class InvalidMessage(Exception):
    """Why a message is let go, in words that hold nothing of it."""


def validate(raw: bytes) -> bytes:
    """The message without what we do not know. Raises NotOurs."""
    if len(raw) > LARGEST:
        raise InvalidMessage("too large")
    message = _object(_json(raw, "it is no JSON"), "it is no object")
    if (message.get("content-type"), message.get("content-encoding")) != ("application/json", "utf-8"):
        raise InvalidMessage("its content is called something else than JSON")
    headers = _known(message.get("headers"), HEADERS, "headers")
    properties = _known(message.get("properties"), PROPERTIES, "properties")
    _look_into(message.get("body"), TASKS[headers["task"]])
    kept = {name: message[name] for name in ("body", "content-type", "content-encoding")}
    return json.dumps({**kept, "headers": headers, "properties": properties}).encode()


def _look_into(body: object, arguments: Mapping[str, Fits]) -> None:
    """What is more than the arguments known here may be a newer version's: the task leaves it."""
    if not isinstance(body, str):
        raise InvalidMessage("its body is no text")
    try:
        content = _json(base64.b64decode(body, validate=True), "its body is no JSON")
    except ValueError:  # also where it is not even ASCII
        raise InvalidMessage("its body is no base64") from None
    if not isinstance(content, list) or len(content) != 3 or content[0] != []:  # noqa: PLR2004  Celery's protocol 2
        raise InvalidMessage("its body is no task's")
    _, given, afterwards = content
    if any(_object(afterwards, "its body is no task's").values()):
        raise InvalidMessage("it names other tasks to call")
    _known(given, arguments, "arguments")


def _known(found: object, wanted: Mapping[str, Fits], what: str) -> dict[str, Any]:
    """Of `found` what `wanted` names: all that must be there is, and each is as it should be."""
    given = _object(found, f"its {what} are no object")
    for name, fits in wanted.items():
        # What may be missing is what may be null, which is how Celery says it.
        if not fits(given.get(name)):
            raise InvalidMessage(f"its {what} are not as we make them: {name}")
    return {name: given[name] for name in wanted if name in given}


def _json(raw: bytes, why: str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidMessage(why) from None


def _object(found: object, why: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidMessage(why)
    return found


def _text(found: object) -> bool:
    return isinstance(found, str)


def _none_or(fits: Fits) -> Fits:
    return lambda found: found is None or fits(found)


def _empty(found: object) -> bool:
    return not found


def _flag(found: object) -> bool:
    return isinstance(found, bool)


def _count(found: object) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0


def _date(found: object) -> bool:
    """At the ends of the calendar, moving it to another time zone would fail."""
    try:
        return isinstance(found, str) and datetime.fromisoformat(found).year in YEARS
    except ValueError:
        return False


def _uuid(found: object) -> bool:
    try:
        return isinstance(found, str) and bool(UUID(found))
    except ValueError:
        return False


def _where_from(found: object) -> bool:
    return isinstance(found, dict) and _text(found.get("exchange")) and _text(found.get("routing_key"))


TASKS: Mapping[str, Mapping[str, Fits]] = {
    dispatch.STORE_INSTALL: {"install_id": _uuid, "hub_id": is_hub_id, "ciphertext": _text},
    dispatch.DISCONNECT: {"hub_id": is_hub_id},
    dispatch.SWEEP: {},
    dispatch.REFRESH: {},
    dispatch.IDENTIFY: {},
    dispatch.ALERTS: {},
}
HEADERS: Mapping[str, Fits] = {
    "task": lambda found: isinstance(found, str) and found in TASKS,
    "id": _uuid,
    "lang": _none_or(_text),
    "root_id": _none_or(_text),
    "parent_id": _none_or(_text),
    "group": _empty,
    "compression": _empty,
    "eta": _none_or(_date),
    "expires": _none_or(_date),
    "retries": _none_or(_count),
    "timelimit": lambda found: found in (None, [None, None]),
    "argsrepr": _none_or(_text),
    "kwargsrepr": _none_or(_text),
    "origin": _none_or(_text),
    "ignore_result": _none_or(_flag),
    "redelivered": _none_or(_flag),
    "traceparent": _none_or(_text),
    "tracestate": _none_or(_text),
}
PROPERTIES: Mapping[str, Fits] = {
    "body_encoding": lambda found: found == "base64",
    "delivery_tag": _text,
    "delivery_info": _where_from,
    "correlation_id": _none_or(_text),
    "delivery_mode": _none_or(_count),
    "priority": _none_or(_count),
}
