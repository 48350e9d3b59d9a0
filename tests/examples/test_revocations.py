"""The listening example reports every revocation, also after an interruption or a restart, or if committed late."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

from tests.examples.downstream_job import Job
from tests.support.deployment import Deployment
from tests.support.polling import until

#: It has read the history, which it does once it listens.
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND query LIKE '%%event = ''revoked''%%'"
CUT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
#: The row of a revocation as the worker may write it, and one at any time.
REVOKED_NOW = "INSERT INTO tokenkeeper.history (hub_id, event, status) VALUES (%s, 'revoked', 'revoked')"
REVOKED = "INSERT INTO tokenkeeper.history (hub_id, event, status, at) VALUES (%s, 'revoked', 'revoked', %s)"


class Listener:
    """The running example and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def count_lines(self, hub_id: int) -> int:
        """The number of lines about this hub."""
        return [int(line.split()[1]) for line in self.lines].count(hub_id)

    def stop(self) -> None:
        self.process.terminate()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(iter(self.process.stdout.readline, ""))


@pytest.fixture
def listen(job: Job, deployment: Deployment, request: pytest.FixtureRequest) -> Callable[..., Listener]:
    """Starts the example and waits until it listens."""

    def start(*since: str) -> Listener:
        listener = Listener(job.start("python/revocations.py", *since))
        request.addfinalizer(listener.stop)
        until(lambda: deployment.sql.value(LISTENING, job.role) == 1)
        return listener

    return start


def revoke(deployment: Deployment, hub_id: int) -> None:
    deployment.simulator.uninstall(hub_id)
    deployment.sql.set("due_at = now()", hub_id)
    until(lambda: deployment.status(hub_id) == "revoked")


def test_the_listening_example_reports_a_revocation_at_once(
    deployment: Deployment, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    revoke(deployment, deployment.hub)
    until(lambda: listener.count_lines(deployment.hub) == 1)
    assert "BAD_REFRESH_TOKEN" in listener.lines[-1]


def test_a_revocation_during_an_interruption_is_reported_once_afterwards(
    deployment: Deployment, job: Job, listen: Callable[..., Listener]
) -> None:
    before, other = deployment.hub, deployment.hub + 500
    deployment.connect(other)
    listener = listen()
    revoke(deployment, before)
    until(lambda: listener.count_lines(before) == 1)
    deployment.sql.rows(f"ALTER ROLE {job.role} NOLOGIN")
    deployment.sql.rows(CUT, job.role)
    revoke(deployment, other)
    assert listener.count_lines(other) == 0
    deployment.sql.rows(f"ALTER ROLE {job.role} LOGIN")
    until(lambda: listener.count_lines(other) == 1)
    assert listener.count_lines(before) == 1


def test_the_listening_example_continues_after_a_restart(
    deployment: Deployment, job: Job, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    revoke(deployment, deployment.hub)
    until(lambda: listener.count_lines(deployment.hub) == 1)
    since = listener.lines[-1].split()[0]
    listener.stop()
    other = deployment.hub + 500
    deployment.connect(other)
    revoke(deployment, other)
    again = listen(since)
    until(lambda: again.count_lines(other) == 1)


def test_a_revocation_that_is_committed_late_is_reported_too(
    deployment: Deployment, listen: Callable[..., Listener], connect: Callable[..., Any]
) -> None:
    """The transaction that began first ends last."""
    first, second = deployment.hub + 600, deployment.hub + 700
    slow: Any = psycopg2.connect(deployment.product.environment["DATABASE_URL"])
    listener = listen()
    with slow, slow.cursor() as cursor:
        cursor.execute(REVOKED_NOW, (first,))
        deployment.sql.rows(REVOKED, second, deployment.sql.now())
        until(lambda: listener.count_lines(second) == 1)
        assert listener.count_lines(first) == 0
    until(lambda: listener.count_lines(first) == 1)
    slow.close()
    assert listener.count_lines(second) == 1
