"""The threads that read HubSpot's journals: one for each app, which no failure ends."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from shared.db.core.errors import StoreUnavailable
from tests.support.polling import until
from worker.journal.reader import Turn
from worker.journal.threads import JournalThreads


class FakeReader:
    """Takes turns as the test says: `failures` are raised first, and `gate` holds each turn up."""

    def __init__(self, *failures: Exception, due: int = 0) -> None:
        self.turns = 0
        self.gate = threading.Event()
        self.gate.set()
        self._failures = list(failures)
        self._due = due

    def take_turn(self) -> Turn:
        self.gate.wait(30)
        self.turns += 1
        if self._failures:
            raise self._failures.pop()
        return Turn(self._due, is_more=True)


def start_threads(**readers: FakeReader) -> tuple[JournalThreads, Counter[str]]:
    """And how often the refresh loop of each app was activated."""
    activations: Counter[str] = Counter()
    apps = {
        name: SimpleNamespace(journal_reader=reader, activate_refresh_loop=lambda name=name: activations.update([name]))
        for name, reader in readers.items()
    }
    services: Any = SimpleNamespace(apps=apps)
    return JournalThreads(lambda: services, readers, 0.01), activations


@pytest.mark.parametrize("failure", [StoreUnavailable("down"), ValueError("a bug")])
def test_a_failure_ends_no_thread(failure: Exception) -> None:
    reader = FakeReader(failure)
    threads, _ = start_threads(default=reader)
    until(lambda: reader.turns >= 3)
    threads.stop()


def test_an_app_whose_turn_hangs_does_not_hold_up_another() -> None:
    hanging, other = FakeReader(), FakeReader()
    hanging.gate.clear()
    threads, _ = start_threads(hanging=hanging, other=other)
    until(lambda: other.turns >= 3)
    assert hanging.turns == 0
    threads.stop()
    hanging.gate.set()


def test_what_a_turn_makes_due_is_refreshed_at_once() -> None:
    threads, activations = start_threads(busy=FakeReader(due=1), idle=(idle := FakeReader()))
    until(lambda: activations["busy"] and idle.turns >= 2)
    threads.stop()
    assert not activations["idle"]
