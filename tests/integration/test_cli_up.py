"""`tokenkeeper up` with a database that it has not made: it asks before it creates tables there."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Command


@pytest.fixture(autouse=True)
def keep_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_up_uses_a_database_of_others_with_yes_alone(
    empty_database_url: str, environment: Callable[..., dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenkeeper = Command(environment(DATABASE_URL=empty_database_url, WEB_PORT="none"))
    asked = tokenkeeper("up")
    assert asked.status == 2
    assert "which tokenkeeper has not made: add --yes to create tokenkeeper's tables in it" in asked.err
    assert tokenkeeper("up", "--yes").err == "tokenkeeper: WEB_PORT is malformed (a port, such as 5000)\n"
