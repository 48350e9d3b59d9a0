"""A message from a queue is one that tokenkeeper makes, or it is refused; whatever it holds, nothing else happens."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import dispatch
from worker.messages.validation import HEADERS, MAX_MESSAGE_BYTES, PROPERTIES, TASK_ARGUMENTS, InvalidMessage, validate

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NO_FURTHER_TASKS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def encode_body(*content: Any) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def make_message(**changes: Any) -> dict[str, Any]:
    """A valid message, with `changes` to its parts."""
    return {
        "body": encode_body([], {"connection_id": 1}, NO_FURTHER_TASKS),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": dispatch.DISCONNECT, "id": str(uuid4()), "timelimit": [None, None]},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": ""},
        },
        **changes,
    }


def validate_or_none(message: Any) -> dict[str, Any] | None:
    """What passes the validation of `message`; None where it is refused."""
    try:
        accepted: dict[str, Any] = json.loads(validate(json.dumps(message).encode()))
    except InvalidMessage:
        return None
    return accepted


@given(st.binary())
@example(b"[" * 100_000)
@example(b"\xff")
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidMessage):
        validate(raw)


@given(st.sampled_from(sorted(make_message())), JSON_VALUES)
def test_an_arbitrary_value_of_a_part_is_refused_unless_it_is_valid(part: str, value: Any) -> None:
    message = make_message(**{part: value})
    assert validate_or_none(message) in (None, message)


@given(st.sampled_from(sorted(HEADERS)), JSON_VALUES)
def test_a_header_that_is_accepted_passes_its_check(name: str, value: Any) -> None:
    message = make_message()
    accepted = validate_or_none({**message, "headers": {**message["headers"], name: value}})
    assert accepted is None or HEADERS[name](accepted["headers"].get(name))


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_unknown_headers_and_properties_are_removed(fields: dict[str, Any]) -> None:
    message = make_message()
    unknown = {name: value for name, value in fields.items() if name not in {*HEADERS, *PROPERTIES}}
    extended = {part: {**message[part], **unknown} for part in ("headers", "properties")}
    assert validate_or_none({**message, **extended}) == message


@given(JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_a_body_that_is_accepted_calls_one_known_task_and_nothing_afterwards(one: Any, two: Any, three: Any) -> None:
    for content in (
        (one, two, three),
        ([], {"connection_id": one}, NO_FURTHER_TASKS),
        ([], {"connection_id": 1}, {"chain": two}),
    ):
        accepted = validate_or_none(make_message(body=encode_body(*content)))
        if accepted is not None:
            positional, by_name, afterwards = json.loads(base64.b64decode(accepted["body"]))
            assert positional == []
            assert not any(afterwards.values())
            assert TASK_ARGUMENTS[dispatch.DISCONNECT]["connection_id"](by_name["connection_id"])


def test_arguments_of_a_newer_version_are_accepted() -> None:
    newer = make_message(body=encode_body([], {"connection_id": 1, "reason": "asked"}, NO_FURTHER_TASKS))
    assert validate_or_none(newer) == newer


@pytest.mark.parametrize("body", ["not base64!", "Ä", "====", encode_body()[:-1]])
def test_a_body_that_is_not_base64_is_refused(body: str) -> None:
    assert validate_or_none(make_message()) is not None
    with pytest.raises(InvalidMessage, match="its body is not base64"):
        validate(json.dumps(make_message(body=body)).encode())


@pytest.mark.parametrize("task_id", ["not-a-uuid", "", 7, None])
def test_a_task_id_that_is_not_a_uuid_is_refused(task_id: object) -> None:
    headers = make_message()["headers"] | {"id": task_id}
    assert validate_or_none(make_message(headers=headers)) is None


def test_the_table_has_every_task() -> None:
    assert set(TASK_ARGUMENTS) == set(dispatch.TASK_ROUTES)


def test_a_message_that_is_too_large_is_refused_unread() -> None:
    message = json.dumps(make_message()).encode()
    assert len(validate(message)) < MAX_MESSAGE_BYTES
    with pytest.raises(InvalidMessage, match="too large"):
        validate(message.ljust(MAX_MESSAGE_BYTES + 1))
