"""What comes off a queue is ours, or it is refused; nothing else happens, whatever it is."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import dispatch
from worker.message_validation import HEADERS, LARGEST, PROPERTIES, TASKS, InvalidMessage, validate

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def body(*content: Any) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def message(**but: Any) -> dict[str, Any]:
    return {
        "body": body([], {"hub_id": 1}, NOTHING),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": dispatch.DISCONNECT, "id": str(uuid4()), "timelimit": [None, None]},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": ""},
        },
        **but,
    }


def passed(found: Any) -> dict[str, Any] | None:
    """None where it is refused."""
    try:
        taken: dict[str, Any] = json.loads(validate(json.dumps(found).encode()))
    except InvalidMessage:
        return None
    return taken


@given(st.binary())
@example(b"[" * 100_000)
@example(b"\xff")
def test_no_bytes_do_more_than_to_be_refused(raw: bytes) -> None:
    with pytest.raises(InvalidMessage):
        validate(raw)


@given(st.sampled_from(sorted(message())), ANYTHING)
def test_nothing_in_the_place_of_a_part_passes_but_what_is_like_it(part: str, anything: Any) -> None:
    assert passed(message(**{part: anything})) in (None, message(**{part: anything}))


@given(st.sampled_from(sorted(HEADERS)), ANYTHING)
def test_a_header_that_passes_is_of_its_kind(name: str, anything: Any) -> None:
    ours = message()
    taken = passed({**ours, "headers": {**ours["headers"], name: anything}})
    assert taken is None or HEADERS[name](taken["headers"].get(name))


@given(st.dictionaries(st.text(), ANYTHING))
def test_headers_and_properties_that_nobody_knows_are_left_out(more: dict[str, Any]) -> None:
    ours = message()
    unknown = {name: value for name, value in more.items() if name not in {*HEADERS, *PROPERTIES}}
    both = {part: {**ours[part], **unknown} for part in ("headers", "properties")}
    assert passed({**ours, **both}) == ours


@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_body_that_passes_calls_one_task_of_ours_and_nothing_afterwards(one: Any, two: Any, three: Any) -> None:
    for content in ((one, two, three), ([], {"hub_id": one}, NOTHING), ([], {"hub_id": 1}, {"chain": two})):
        taken = passed(message(body=body(*content)))
        if taken is not None:
            places, by_name, afterwards = json.loads(base64.b64decode(taken["body"]))
            assert places == []
            assert not any(afterwards.values())
            assert TASKS[dispatch.DISCONNECT]["hub_id"](by_name["hub_id"])


def test_arguments_of_a_newer_version_pass() -> None:
    newer = message(body=body([], {"hub_id": 1, "reason": "asked"}, NOTHING))
    assert passed(newer) == newer


def test_every_task_of_ours_has_its_place() -> None:
    assert set(TASKS) == set(dispatch.ROUTES)


def test_what_is_too_large_is_not_even_read() -> None:
    assert len(validate(json.dumps(message()).encode())) < LARGEST
    with pytest.raises(InvalidMessage, match="too large"):
        validate(json.dumps(message()).encode().ljust(LARGEST + 1))
