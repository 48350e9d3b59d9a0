"""Refreshes that stay in flight for as long as a test needs, and limits of the product that no busy machine reaches."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from sandbox.child_processes import ChildProcess
from tests.support.fault_deployment import FaultDeployment

#: For tests that count calls or failures, or in which HubSpot ends a refresh token as soon as it is used: there a call
#: that only the machine makes too slow would count, or end its connection.
PATIENT = {"HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "60"}
SIGNAL_SECONDS = 0.2
END_LEASES_IN = """
UPDATE tokenkeeper.connections SET lease_until = now() + make_interval(secs => %s) WHERE lease_until > now()
"""


@contextmanager
def holding_refreshes(
    deployment: FaultDeployment, *hub_ids: int, at_least: int | None = None
) -> Iterator[dict[int, str]]:
    """Let a refresh of these accounts be due, and HubSpot answer none before the end of the block: the tokens before.

    `at_least`: how many are in flight when the block begins; None: all.
    """
    fault = deployment.simulator.add_fault("held", grant="refresh")
    try:
        wanted = len(hub_ids or deployment.default_hub_ids()) if at_least is None else at_least
        yield deployment.make_due_and_await_calls(*hub_ids, at_least=wanted)
    finally:
        deployment.simulator.clear_faults(fault)


def terminate(process: ChildProcess | psutil.Process) -> None:
    """Send SIGTERM, and let the process handle it before HubSpot answers, as far as the machine is quick enough."""
    process.send_signal(signal.SIGTERM)
    time.sleep(SIGNAL_SECONDS)


def end_leases_in(deployment: FaultDeployment, seconds: float) -> None:
    """Of all rows that are leased now, as if they had been claimed that much earlier."""
    deployment.sql.rows(END_LEASES_IN, seconds)
