"""The fault that holds answers of the simulator back until it is cleared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.polling import until
from tests.support.simulator import HUB, SimulatorFixture, run_simulator


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as simulator:
        yield simulator


def test_held_answers_come_complete_once_the_fault_is_cleared(simulator: SimulatorFixture) -> None:
    tokens = simulator.control.install_many(3)
    simulator.control.add_fault("held", grant="refresh")
    connections = [simulator.send_refresh(token) for token in tokens.values()]
    simulator.wait_until_in_flight(3)
    assert simulator.introspect(tokens[min(tokens)])["active"], "other calls are answered"
    assert simulator.control.get_stats()["in_flight"] == 3
    simulator.control.clear_faults()
    for connection in connections:
        with connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert simulator.control.get_stats()["calls"]["token/refresh"] == {"ok": 3}


def test_a_held_call_ends_as_soon_as_its_client_has_gone(simulator: SimulatorFixture) -> None:
    token = simulator.control.install(HUB)
    simulator.control.add_fault("held")
    simulator.send_refresh(token).close()
    until(lambda: simulator.control.get_stats()["calls"] == {"token/refresh": {"client_gone": 1}})
    assert simulator.control.get_stats()["in_flight"] == 0
