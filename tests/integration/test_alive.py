"""The health check of worker and beat, asked as the containers ask it, of real processes that freeze and wait."""

from __future__ import annotations

import signal
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
from worker.liveness import SILENCE

#: Seconds of the silence that is allowed which a test has to wait for.
LEFT = 3.0


class Room:
    """A folder for temporary files, as each container has one, and the question asked in it."""

    def __init__(self, folder: Path, product: Product) -> None:
        self._folder = folder
        product.environment["TMPDIR"] = str(folder)

    def alive(self, node: str) -> bool:
        command = [sys.executable, "-m", "worker.liveness", node]
        environment = {"TMPDIR": str(self._folder)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode == 0

    def beat_seen(self) -> float:
        (file,) = self._folder.glob("tokenkeeper-*/*")
        return float(file.read_text())

    def put_back(self) -> float:
        """As if nearly all the silence that is allowed had passed. The beat that is seen now."""
        (file,) = self._folder.glob("tokenkeeper-*/*")
        seen = self.beat_seen() - SILENCE + LEFT
        file.write_text(f"{seen:020.3f}\n")
        return seen

    def beats_on(self) -> None:
        seen = self.put_back()
        until(lambda: self.beat_seen() > seen)


@pytest.fixture
def room(tmp_path: Path, product: Product) -> Room:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return Room(folder, product)


@contextmanager
def frozen(running: ChildProcess) -> Iterator[None]:
    running.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED)
    yield
    running.send_signal(signal.SIGCONT)


def freezes_and_thaws(room: Room, running: ChildProcess, node: str) -> None:
    until(lambda: room.alive(node))
    with frozen(running):
        room.put_back()
        assert room.alive(node)
        until(lambda: not room.alive(node))
    until(lambda: room.alive(node))
    assert running.stop() == 0
    assert not room.alive(node)


def test_a_worker_that_freezes_is_not_alive(product: Product, room: Room) -> None:
    freezes_and_thaws(room, product.worker("-n", "celery@%h"), "celery")


def test_a_beat_that_freezes_is_not_alive(product: Product, room: Room) -> None:
    freezes_and_thaws(room, product.beat(), "celerybeat")


def test_a_worker_that_waits_for_redis_is_alive(product: Product, room: Room, own_valkey: EmbeddedValkey) -> None:
    """It may hold what HubSpot answered and PostgreSQL has not taken yet: nobody should restart it."""
    worker = product.worker("-n", "celery@%h", REDIS_URL=own_valkey.url())
    room.beats_on()
    kill(own_valkey)
    worker.wait_until(has_printed("Trying to re-establish"))
    room.beats_on()
    own_valkey.start()
    worker.wait_until(lambda running: running.output().count("Connected to") == 2)
    room.beats_on()


def test_one_that_has_been_waiting_for_redis_from_the_start_is_alive(
    product: Product, room: Room, own_valkey: EmbeddedValkey
) -> None:
    url = own_valkey.url()
    own_valkey.stop()
    beat = product.beat(REDIS_URL=url)
    beat.wait_until(has_printed("Connection error"))
    room.beats_on()
    own_valkey.start()
    room.beats_on()


def kill(server: EmbeddedValkey) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait(30)
