"""The health check of worker and beat, run as the containers run it, against processes that freeze or wait."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from tests.support.environment import ROOT
from tests.support.polling import until
from tests.support.product import Product, has_printed
from worker.liveness import POOL_SUFFIX, STUCK_AFTER_SECONDS

#: A process whose heartbeat is set back by this is alive, by this twice it is not, however long the machine takes.
HALF_SECONDS = STUCK_AFTER_SECONDS / 2


class Container:
    """The product's processes and their health check share a folder for temporary files, as in a container."""

    def __init__(self, folder: Path, product: Product) -> None:
        self._folder = folder
        product.environment["TMPDIR"] = str(folder)

    def is_alive(self, node: str) -> bool:
        command = [sys.executable, "-m", "worker.liveness", node]
        environment = {"TMPDIR": str(self._folder)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode == 0

    def wait_for_file(self) -> Path:
        return self._wait_for_file(is_of_pool=False)

    def wait_for_pool_heartbeat(self) -> None:
        self._wait_for_file(is_of_pool=True)

    def age_pool_heartbeat(self) -> None:
        """Only that of the pool processes: they are stuck at once."""
        aged = self.read_heartbeat() - STUCK_AFTER_SECONDS
        self._wait_for_file(is_of_pool=True).write_text(f"{aged:020.3f}\n")

    def _wait_for_file(self, *, is_of_pool: bool) -> Path:
        def find() -> list[Path]:
            files = [file for file in self._folder.glob("tokenkeeper-*/*") if file.stat().st_size]
            return [file for file in files if file.name.endswith(POOL_SUFFIX) is is_of_pool]

        return until(find)[0]

    def read_heartbeat(self) -> float:
        return float(self.wait_for_file().read_text())

    def age_heartbeat(self) -> float:
        """Set it back by HALF_SECONDS. Returns what it is now."""
        aged = self.read_heartbeat() - HALF_SECONDS
        self.wait_for_file().write_text(f"{aged:020.3f}\n")
        return aged

    def wait_for_heartbeat(self) -> None:
        aged = self.age_heartbeat()
        until(lambda: self.read_heartbeat() > aged)


@pytest.fixture
def container(tmp_path: Path, product: Product) -> Container:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return Container(folder, product)


@contextmanager
def freeze(*processes: psutil.Process) -> Iterator[None]:
    """They write no heartbeat any more: a signal is sent at once and obeyed a little later."""
    for process in processes:
        process.suspend()
        until(lambda each=process: each.status() == psutil.STATUS_STOPPED)  # type: ignore[misc]
    yield
    for process in processes:
        process.resume()


def check_frozen_and_stopped(container: Container, process: ChildProcess, node: str) -> None:
    until(lambda: container.is_alive(node))
    with freeze(psutil.Process(process.pid)):
        container.age_heartbeat()
        assert container.is_alive(node)
        container.age_heartbeat()
        assert not container.is_alive(node)
    until(lambda: container.is_alive(node))
    assert process.stop() == 0
    assert not container.is_alive(node)


def test_a_frozen_worker_is_not_alive(product: Product, container: Container) -> None:
    check_frozen_and_stopped(container, product.worker("-n", "celery@%h"), "celery")


def test_a_worker_whose_pool_processes_are_all_frozen_is_not_alive(product: Product, container: Container) -> None:
    worker = product.worker("-n", "celery@%h")
    container.wait_for_pool_heartbeat()
    with freeze(*psutil.Process(worker.pid).children()):
        container.age_pool_heartbeat()
        assert not container.is_alive("celery")
    until(lambda: container.is_alive("celery"))


def test_a_frozen_beat_is_not_alive(product: Product, container: Container) -> None:
    check_frozen_and_stopped(container, product.beat(), "celerybeat")


def test_a_worker_that_lost_redis_is_alive(product: Product, container: Container, own_valkey: EmbeddedValkey) -> None:
    """It may hold answers of HubSpot that are not saved yet, so it must not be restarted."""
    worker = product.worker("-n", "celery@%h", REDIS_URL=own_valkey.url())
    container.wait_for_heartbeat()
    kill_server(own_valkey)
    worker.wait_until(has_printed("Trying to re-establish"))
    container.wait_for_heartbeat()
    own_valkey.start()
    worker.wait_until(lambda process: process.output().count("Connected to") >= 2)
    container.wait_for_heartbeat()


def test_a_beat_that_was_started_without_redis_is_alive(
    product: Product, container: Container, own_valkey: EmbeddedValkey
) -> None:
    url = own_valkey.url()
    own_valkey.stop()
    beat = product.beat(REDIS_URL=url)
    beat.wait_until(has_printed("Connection error"))
    container.wait_for_heartbeat()
    own_valkey.start()
    container.wait_for_heartbeat()


def kill_server(server: EmbeddedValkey) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait(30)
