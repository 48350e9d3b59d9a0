"""Fixtures of the examples: they run as processes whose database role has `hubspot_reader` and no other right."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tests.examples.downstream_job import Job
from tests.support.deployment import Deployment

_hubs = count(71001)


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Iterator[Deployment]:
    """The shared deployment, with a connected account of the test's own."""
    yield connect_next_account(shared_deployment)
    shared_deployment.simulator.clear_faults()


@pytest.fixture
def job(deployment: Deployment) -> Iterator[Job]:
    """A job with a database role that has the rights that docs/downstream.md grants."""
    with make_job(deployment) as job:
        yield job


@pytest.fixture(scope="module")
def lasting_deployment(shared_deployment: Deployment) -> Deployment:
    """The shared deployment, with a connected account for the tests that do not change it."""
    return connect_next_account(shared_deployment)


@pytest.fixture(scope="module")
def lasting_job(lasting_deployment: Deployment) -> Iterator[Job]:
    with make_job(lasting_deployment) as job:
        yield job


def connect_next_account(shared: Deployment) -> Deployment:
    deployment = Deployment(shared.product, shared.simulator, shared.sql, next(_hubs))
    deployment.connect()
    return deployment


@contextmanager
def make_job(deployment: Deployment) -> Iterator[Job]:
    name, password = f"my_job_{secrets.token_hex(4)}", secrets.token_hex(8)
    deployment.sql.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; GRANT hubspot_reader TO {name}")
    job = Job(name, password, deployment)
    yield job
    job.stop()
    deployment.sql.rows(f"DROP OWNED BY {name}; DROP ROLE {name}")
