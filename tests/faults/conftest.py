"""Fixtures of the fault suite: a product on servers of its own for each file, with a token watcher in every test."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from sandbox.child_processes import ChildProcess
from tests.support.fault_deployment import HUBS, FaultDeployment, start_fault_deployment
from tests.support.polling import until


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultDeployment]:
    """All processes run. A file may change the product's settings with a dictionary named SETTINGS."""
    logs = tmp_path_factory.mktemp("product")
    with start_fault_deployment(logs, simulator_process.url, getattr(request.module, "SETTINGS", {})) as deployment:
        deployment.start()
        yield deployment


@pytest.fixture(scope="module")
def connected_deployment(started_deployment: FaultDeployment) -> FaultDeployment:
    """With connections that all have a token."""
    started_deployment.import_connections()
    until(lambda: len(started_deployment.tokens()) == HUBS)
    return started_deployment


@pytest.fixture
def deployment(connected_deployment: FaultDeployment) -> Iterator[FaultDeployment]:
    """With a token watcher that runs during the test."""
    connected_deployment.simulator.change_settings(rotation=None, latency=0)
    with connected_deployment.new_watcher() as connected_deployment.watcher:
        yield connected_deployment
    connected_deployment.simulator.clear_faults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the output of the product's processes."""
    report = yield
    deployment = getattr(item, "funcargs", {}).get("deployment")
    if report.failed and isinstance(deployment, FaultDeployment):
        report.sections.extend(deployment.product.output_tails())
    return report
