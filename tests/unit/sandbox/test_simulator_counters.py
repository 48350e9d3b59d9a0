"""A test of a process of the product finds no call of an earlier one in the simulator's statistics."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sandbox.simulator.connection import ClientConnection
from sandbox.simulator.counters import Counters
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Installation

REFRESH = Call("token", "refresh", "app", Installation(62515, "app"))


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a connection, and the simulator's."""
    client, server = socket.socketpair()
    with client, server:
        yield client, server


def test_a_call_that_began_before_a_reset_is_in_flight_and_its_outcome_is_not_counted(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    counters = Counters(lambda: 0.0)
    pending = counters.start_call(REFRESH, ClientConnection(sockets[1]))
    counters.reset()
    stats = counters.to_json()
    assert (stats["in_flight"], stats["most_in_flight"], stats["by_hub"]["62515"]["in_flight"]) == (1, 1, 1)
    counters.finish_call(pending, "ok")
    stats = counters.to_json()
    assert (stats["in_flight"], stats["calls"], stats["calls_by_app"]) == (0, {}, {})


def test_a_reset_forgets_a_call_whose_client_has_gone(sockets: tuple[socket.socket, socket.socket]) -> None:
    counters = Counters(lambda: 0.0)
    pending = counters.start_call(REFRESH, ClientConnection(sockets[1]))
    sockets[0].close()
    counters.reset()
    counters.finish_call(pending, "client_gone")
    stats = counters.to_json()
    assert (stats["in_flight"], stats["most_in_flight"], stats["calls"], stats["by_hub"]) == (0, 0, {}, {})
