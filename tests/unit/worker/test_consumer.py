"""The consumer of messages where Celery itself fails."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.concurrency.solo import TaskPool
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE, EX_OK
from celery.worker import state
from structlog.testing import capture_logs

from worker.messages.consumer import ReconnectingConsumer


class LoopWithoutPool(ReconnectingConsumer):
    def loop(self, *_: Any) -> None:
        raise WorkerLostError("the pool processes do not start")


@pytest.fixture
def consumer() -> LoopWithoutPool:
    app = Celery("test", broker="memory://", set_as_current=False)
    controller = SimpleNamespace(use_eventloop=False)
    return LoopWithoutPool(lambda *_: None, app=app, hostname="test", pool=TaskPool(1), controller=controller)


@pytest.fixture
def stopping() -> Iterator[None]:
    """Otherwise the consumer would wait before it connects again."""
    state.should_stop = EX_OK
    yield
    state.should_stop = None


@pytest.mark.usefixtures("stopping")
def test_an_error_of_celery_as_it_closes_a_broken_connection_is_logged_and_a_new_one_is_made(
    consumer: LoopWithoutPool,
) -> None:
    consumer.connection = object()  # Celery calls its methods
    with capture_logs() as log, pytest.raises(WorkerShutdown):
        consumer.on_connection_error_after_connected(ConnectionResetError())
    assert [line["event"] for line in log] == [
        "a broken connection to the broker could not be closed",
        "the broker failed; the worker connects again",
    ]
    assert consumer.connection is None


def test_a_worker_whose_pool_processes_do_not_start_ends_with_a_status(consumer: LoopWithoutPool) -> None:
    with capture_logs() as log, pytest.raises(WorkerShutdown) as ended:
        consumer.loop()
    assert ended.value.code == EX_FAILURE
    assert [line["event"] for line in log] == ["the pool processes do not start"]
