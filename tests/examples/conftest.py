"""The examples of docs/downstream.md as jobs run them: processes, logged in with `hubspot_reader` and no more."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from itertools import count

import psycopg2
import pytest

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import SimulatorControl
from tests.examples.job import Job
from tests.journeys.world import World
from tests.support.databases import Databases
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.product import Product
from tests.support.stores import SqlFixture

_hubs = count(71001)


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
def world(standing: World) -> Iterator[World]:
    """The standing world, with an account of the test's own that is connected."""
    world = World(standing.product, standing.simulator, standing.sql, next(_hubs))
    world.connected()
    yield world
    standing.simulator.clear_faults()


@pytest.fixture
def job(world: World) -> Iterator[Job]:
    """A role that may do what docs/downstream.md grants, and its environment."""
    name, password = f"my_job_{secrets.token_hex(4)}", secrets.token_hex(8)
    world.sql.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; GRANT hubspot_reader TO {name}")
    made = Job(name, password, world)
    yield made
    made.stop()
    world.sql.rows(f"DROP OWNED BY {name}; DROP ROLE {name}")
