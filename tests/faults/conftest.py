"""Fixtures of the fault suite: a product on servers of its own for each file, watched in every test."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from sandbox.child_processes import ChildProcess
from tests.support.fleet import HUBS, Fleet, servers_and_product
from tests.support.polling import until


@pytest.fixture(scope="module")
def grounds(
    simulator_process: ChildProcess, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A file's own `SETTINGS` change those of the product."""
    logs = tmp_path_factory.mktemp("product")
    with servers_and_product(logs, simulator_process.url, getattr(request.module, "SETTINGS", {})) as fleet:
        fleet.world.started()
        yield fleet


@pytest.fixture(scope="module")
def crew(grounds: Fleet) -> Fleet:
    """With connections that all have a token."""
    grounds.imported()
    until(lambda: len(grounds.world.tokens()) == HUBS)
    return grounds


@pytest.fixture
def fleet(crew: Fleet) -> Iterator[Fleet]:
    """Watched from here on; after the test all must be well again."""
    crew.simulator.change_settings(rotation=None, latency=0)
    with crew.watching() as crew.watch:
        yield crew
    crew.simulator.clear_faults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the product's processes said."""
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and isinstance(fleet, Fleet):
        report.sections.extend(fleet.world.product.output_tails())
    return report
