"""Fixtures of the examples: they run as processes whose database role has `hubspot_reader` and no other right."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import count

import pytest

from tests.examples.downstream_job import Job
from tests.support.deployment import Deployment

_hubs = count(71001)


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Iterator[Deployment]:
    """The shared deployment, with a connected account of the test's own."""
    deployment = Deployment(shared_deployment.product, shared_deployment.simulator, shared_deployment.sql, next(_hubs))
    deployment.connect()
    yield deployment
    shared_deployment.simulator.clear_faults()


@pytest.fixture
def job(deployment: Deployment) -> Iterator[Job]:
    """A job with a database role that has the rights that docs/downstream.md grants."""
    name, password = f"my_job_{secrets.token_hex(4)}", secrets.token_hex(8)
    deployment.sql.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; GRANT hubspot_reader TO {name}")
    job = Job(name, password, deployment)
    yield job
    job.stop()
    deployment.sql.rows(f"DROP OWNED BY {name}; DROP ROLE {name}")
