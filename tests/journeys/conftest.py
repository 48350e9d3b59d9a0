"""Fixtures of the journeys: a product of the test's own, or one that all tests of a file share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.support.deployment import Deployment
from tests.support.environment import SHORT_WAITS
from tests.support.product import Product
from tests.support.stores import SqlFixture

_hubs = count(62515)


@pytest.fixture
def idle_deployment(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> Deployment:
    """A deployment of the test's own, of which no process runs yet."""
    product.environment.update(SHORT_WAITS)
    return Deployment(product, simulator, SqlFixture(connect()))


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Iterator[Deployment]:
    """The shared deployment, with an account of the test's own."""
    yield Deployment(shared_deployment.product, shared_deployment.simulator, shared_deployment.sql, next(_hubs))
    shared_deployment.simulator.clear_faults()
