"""Fixtures of the journeys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.integration.store_rig import Sql
from tests.journeys.world import World
from tests.servers import Product

#: Short waits, so that a journey takes seconds; the lease stays legal: twice the timeout plus 5.
BRISK = {"SWEEP_SECONDS": "0.5", "HTTP_TIMEOUT_SECONDS": "2", "LEASE_SECONDS": "9"}


@pytest.fixture
def world(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> World:
    product.environment.update(BRISK)
    return World(product, simulator, Sql(connect()))
