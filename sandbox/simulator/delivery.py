"""From a request to its answer: count the call, apply a fault, do the work, wait, and send, or fail to."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from sandbox.simulator.answers import Answer, Refused, make_refusal
from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.connection import CONNECTION_KEY, ClientConnection
from sandbox.simulator.faults import Call, Fault, Faults, corrupt, make_replacement

if TYPE_CHECKING:
    from sandbox.simulator.simulation import Simulation

#: Between two looks whether a fault that holds answers back is cleared.
HELD_POLL_SECONDS = 0.01
_RELATIVE_RETRY_AFTER = re.compile(r"\+[0-9]{1,6}")


class ConnectionEnded(Exception):
    """There is nothing more to send: the server closes the connection."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    """How a call ends: with the whole answer, or with `last_bytes` and the end of the connection."""

    outcome: str
    is_complete: bool = False
    last_bytes: bytes = b""  #: sent after the call has been counted as finished


def deliver(sim: Simulation, call: Call, work: Callable[[], Answer]) -> Response:
    """The answer to one call. Raises ConnectionEnded where none is sent.

    `work` is done when the request arrives; latency and faults only delay or change the answer. So a client that
    does not wait for the answer has consumed its code all the same, and the token's life has begun.
    """
    connection: ClientConnection = request.environ[CONNECTION_KEY]
    behaviour = sim.behaviour.find(call.client_id, call.hub_id)
    # 1. count it
    pending = sim.counters.start_call(call, connection)
    try:
        # 2. do the work, and let a fault replace or change the answer
        fault = sim.faults.take(call)
        answer = _add_dates(_make_answer(fault, behaviour, work), sim.clock() + behaviour.clock_error)
        # 3. wait, and send all but the last bytes
        latency = behaviour.latency
        seconds = random.uniform(*latency) if isinstance(latency, tuple) else latency
        delivery = _Delivery("client_gone")
        if connection.wait(seconds + (fault.delay_seconds if fault else 0.0)) and _wait_until_cleared(
            sim.faults, fault, connection
        ):
            delivery = _begin_delivery(fault, answer, connection)
        # 4. it is finished before its last bytes are sent: the client's next call is no overlap
        sim.counters.finish_call(pending, delivery.outcome)
    finally:
        sim.counters.finish_call(pending, "simulator_error")
    if delivery.is_complete:
        return Response(answer.body, answer.status, make_headers(answer))
    connection.send(delivery.last_bytes)
    raise ConnectionEnded


def make_headers(answer: Answer) -> list[tuple[str, str]]:
    return [("Content-Type", answer.content_type), *answer.headers]


def _make_answer(fault: Fault | None, behaviour: Behaviour, work: Callable[[], Answer]) -> Answer:
    if fault:
        replacement = make_replacement(fault, behaviour)
        if replacement is not None or fault.kind == "reset":
            return replacement or Answer(500)
    try:
        answer = work()
    except Refused as refused:
        answer = make_refusal(
            refused.status, legacy=behaviour.legacy_errors, bad_client_id_error=behaviour.bad_client_id_error
        )
    return corrupt(fault, answer) if fault else answer


def _add_dates(answer: Answer, now: float) -> Answer:
    """Adds the Date of the simulator's clock; a Retry-After of +3 becomes the date three seconds later."""
    headers = [
        (name, _format_date(now + int(value[1:])))
        if name == "Retry-After" and _RELATIVE_RETRY_AFTER.fullmatch(value)
        else (name, value)
        for name, value in answer.headers
    ]
    return replace(answer, headers=(*headers, ("Date", _format_date(now))))


def _format_date(instant: float) -> str:
    return formatdate(instant, usegmt=True)


def _wait_until_cleared(faults: Faults, fault: Fault | None, connection: ClientConnection) -> bool:
    """A held answer waits until its fault is cleared. False as soon as the client has closed the connection."""
    while fault and fault.kind == "held" and faults.is_requested(fault.id):
        if not connection.wait(HELD_POLL_SECONDS):
            return False
    return True


def _begin_delivery(fault: Fault | None, answer: Answer, connection: ClientConnection) -> _Delivery:
    kind = fault.kind if fault else ""
    if fault and kind == "drip":
        data = _encode(answer)
        for index in range(len(data) - 1):
            if not (connection.send(data[index : index + 1]) and connection.wait(fault.gap_seconds)):
                return _Delivery("client_gone")
        return _Delivery("drip", last_bytes=data[-1:])
    if kind == "cut":
        return _Delivery("cut", last_bytes=_encode(answer)[: -max(1, len(answer.body) // 2)])
    if kind == "reset":
        connection.reset_at_close()
    if kind in {"reset", "lost"}:
        return _Delivery(kind)
    return _Delivery(answer.outcome, is_complete=True)


def _encode(answer: Answer) -> bytes:
    """The answer as it is sent, status line and headers included."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [
        f"HTTP/1.1 {answer.status} {phrase}",
        *(f"{name}: {value}" for name, value in make_headers(answer)),
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
