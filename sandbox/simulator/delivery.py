"""From a request to its answer: count it, let a fault at it, do the work, wait, and send, or fail to."""

from __future__ import annotations

import random
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from sandbox.simulator.answers import Answer, Refused, refusal
from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.faults import Call, Fault, instead, spoiled

if TYPE_CHECKING:
    from sandbox.simulator.simulation import Simulation

#: Where the server leaves the connection for us, in the WSGI environment.
WIRE = "simulator.wire"
_LATER = re.compile(r"\+[0-9]{1,6}")


class HungUp(Exception):
    """The connection is over and there is nothing more to send: the server closes it."""


class Wire:
    """The connection by which a request came; it can tell whether the client is still there, and be cruel."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def gone(self) -> bool:
        """Whether the client has closed or reset the connection. Safe from any thread, never waits."""
        try:
            poller = select.poll()
            poller.register(self._connection, select.POLLIN)
            # nothing to read: it is there. Something: the next request, or the end
            return bool(poller.poll(0)) and not self._connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def wait(self, seconds: float) -> bool:
        """Waits so long; False as soon as the client is gone."""
        if seconds <= 0:
            return True
        end = time.monotonic() + seconds
        poller = select.poll()
        try:
            poller.register(self._connection, select.POLLIN)
        except ValueError:
            return False
        if not poller.poll(seconds * 1000):
            return True
        if self.gone():
            return False
        # a client that sends its next request already: nothing to watch but the clock
        time.sleep(max(0.0, end - time.monotonic()))
        return not self.gone()

    def send(self, piece: bytes) -> bool:
        """False if the client is gone."""
        try:
            self._connection.sendall(piece)
        except OSError:
            return False
        return True

    def reset_at_close(self) -> None:
        """The client will see 'connection reset by peer' instead of an orderly end."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answered(sim: Simulation, call: Call, work: Callable[[], Answer]) -> Response:
    """The answer to one call of HubSpot's. Raises HungUp where there is none.

    The work is done when the request arrives, latency and faults only delay or spoil the answer: a client that
    does not wait for it has used its code all the same, and its token's life has begun.
    """
    wire: Wire = request.environ[WIRE]
    knobs = sim.knobs.of(call.hub_id)
    flight = sim.counters.took_off(call, wire)
    try:
        fault = sim.faults.take(call)
        answer = _dated(_worked(fault, knobs, work), sim.clock() + knobs.clock_error)
        ending = _Ending("client_gone")
        if wire.wait(_latency(knobs) + (fault.delay if fault else 0.0)):
            ending = _ended(fault, answer, wire)
        sim.counters.landed(flight, ending.outcome)
    finally:
        sim.counters.landed(flight, "simulator_error")
    if ending.in_order:
        return Response(answer.body, answer.status, headers(answer))
    wire.send(ending.last_piece)
    raise HungUp


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a call ends. `last_piece` waits until the call has been counted as answered."""

    outcome: str
    in_order: bool = False
    last_piece: bytes = b""


def _dated(answer: Answer, now: float) -> Answer:
    """With the date that the simulator believes in; a Retry-After of +3 is the date three seconds later."""
    kept = [
        (name, _http_date(now + int(value[1:])) if name == "Retry-After" and _LATER.fullmatch(value) else value)
        for name, value in answer.headers
    ]
    return replace(answer, headers=(*kept, ("Date", _http_date(now))))


def _http_date(instant: float) -> str:
    return formatdate(instant, usegmt=True)


def headers(answer: Answer) -> list[tuple[str, str]]:
    return [("Content-Type", answer.content_type), *answer.headers]


def _worked(fault: Fault | None, knobs: Behaviour, work: Callable[[], Answer]) -> Answer:
    if fault is None:
        return _refused_or(work, knobs)
    early = instead(fault, knobs)
    if early is not None or fault.kind == "reset":
        return early or Answer(500)
    return spoiled(fault, _refused_or(work, knobs))


def _refused_or(work: Callable[[], Answer], knobs: Behaviour) -> Answer:
    try:
        return work()
    except Refused as refused:
        return refusal(refused.status, legacy=knobs.legacy_errors, bad_client_id_error=knobs.bad_client_id_error)


def _latency(knobs: Behaviour) -> float:
    latency = knobs.latency
    return random.uniform(*latency) if isinstance(latency, tuple) else latency


def _ended(fault: Fault | None, answer: Answer, wire: Wire) -> _Ending:
    kind = fault.kind if fault else ""
    if fault and kind == "drip":
        return _drip(_payload(answer), fault.gap, wire)
    if kind == "reset":
        wire.reset_at_close()
    elif kind == "cut":
        return _Ending(kind, last_piece=_payload(answer)[: -max(1, len(answer.body) // 2)])
    elif kind != "lost":
        return _Ending(answer.outcome, in_order=True)
    return _Ending(kind)


def _drip(payload: bytes, gap: float, wire: Wire) -> _Ending:
    for place in range(len(payload) - 1):
        if not (wire.send(payload[place : place + 1]) and wire.wait(gap)):
            return _Ending("client_gone")
    return _Ending("drip", last_piece=payload[-1:])


def _payload(answer: Answer) -> bytes:
    """The answer as it goes over the wire, headers and all."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [
        f"HTTP/1.1 {answer.status} {phrase}",
        *(f"{name}: {value}" for name, value in headers(answer)),
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
