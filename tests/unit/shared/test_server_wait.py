"""How long psycopg2 waits for PostgreSQL: as long as the server is silent, and not while this process stands still."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import cast

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_READY
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  as in shared/db/core/engine.py

from shared.db.core.connection_errors import TIMED_OUT
from shared.db.core.engine import wait_for_server

LIMIT_SECONDS = 0.05


class FakeConnection:
    """To a server that answers three times, or never. This process stands still before each wait for an answer."""

    status = STATUS_READY
    statement_seconds = LIMIT_SECONDS

    def __init__(self, is_silent: bool, standstill_seconds: float) -> None:
        self._ours, self._servers = socket.socketpair()
        self._is_silent, self._standstill_seconds = is_silent, standstill_seconds
        self.polls = 0

    def poll(self) -> int:
        self.polls += 1
        if self._is_silent:
            return POLL_READ
        if self.polls > 3:
            return POLL_OK
        self._servers.send(b"answer")
        time.sleep(self._standstill_seconds)
        return POLL_READ

    def fileno(self) -> int:
        return self._ours.fileno()

    def close(self) -> None:
        self._ours.close()
        self._servers.close()


def wait_for(fake: FakeConnection) -> None:
    wait_for_server(cast(Psycopg2Connection, fake))


@pytest.fixture
def slow_process() -> Iterator[FakeConnection]:
    fake = FakeConnection(is_silent=False, standstill_seconds=2 * LIMIT_SECONDS)
    yield fake
    fake.close()


@pytest.fixture
def silent_server() -> Iterator[FakeConnection]:
    fake = FakeConnection(is_silent=True, standstill_seconds=0.0)
    yield fake
    fake.close()


def test_a_standstill_of_this_process_is_no_silence_of_the_server(slow_process: FakeConnection) -> None:
    wait_for(slow_process)
    assert slow_process.polls == 4


def test_a_silent_server_is_given_up_after_the_limit(silent_server: FakeConnection) -> None:
    started_at = time.monotonic()
    with pytest.raises(psycopg2.OperationalError, match=TIMED_OUT):
        wait_for(silent_server)
    assert time.monotonic() - started_at >= LIMIT_SECONDS
