"""Fixtures of the journeys: a product of the test's own, or the one that stands for all tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import psycopg2
import pytest

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import SimulatorControl
from tests.journeys.world import World
from tests.support.databases import Databases
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.product import Product
from tests.support.stores import SqlFixture

_hubs = count(62515)


@pytest.fixture
def world(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> World:
    """A world of the test's own, in which nothing runs yet."""
    product.environment.update(SHORT_WAITS)
    return World(product, simulator, SqlFixture(connect()))


@pytest.fixture(scope="module")
def standing(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world in which web, worker and beat run for all tests of a file: starting them takes seconds."""
    with databases.migrated() as database_url, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(database_url),
            redis_server(15),
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(database_url),
            **SHORT_WAITS,
        )
        product = Product(environment, tmp_path_factory.mktemp("standing"))
        connection = psycopg2.connect(database_url)
        connection.autocommit = True
        try:
            yield World(product, simulator, SqlFixture(connection)).started()
        finally:
            product.stop()
            connection.close()


@pytest.fixture
def visit(standing: World) -> Iterator[World]:
    """The standing world, with an account of the test's own."""
    yield World(standing.product, standing.simulator, standing.sql, next(_hubs))
    standing.simulator.clear_faults()
