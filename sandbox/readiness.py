"""Tells when everything works: servers answer, and a sweep went from beat through Redis and a worker to Postgres."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

import requests

from shared.db.core.engine import make_engine
from shared.db.core.errors import StoreError
from shared.db.reports.connections import ConnectionReports

POLL = 0.2
TELL_EVERY = 30.0  #: seconds between two lines about what is still awaited

Check = Callable[[], bool]


def wait_for(checks: Mapping[str, Check], say: Callable[[str], None]) -> None:
    """Returns when each of them was true once. Now and then says which are not."""
    waiting = dict(checks)
    told = time.monotonic()
    while waiting := {name: check for name, check in waiting.items() if not check()}:
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            say(f"still waiting for {', '.join(waiting)}: the lines above may say why")
        time.sleep(POLL)


def answers(url: str) -> Check:
    session = requests.Session()
    session.trust_env = False  # no proxy on the way to ourselves

    def check() -> bool:
        try:
            return session.get(url, timeout=5).ok
        except requests.RequestException:
            return False

    return check


class Swept:
    """True once a sweep was made after this was."""

    def __init__(self, database_url: str) -> None:
        self._roster = ConnectionReports(make_engine(database_url, pool_size=1))
        self._before = self._swept_at()

    def __call__(self) -> bool:
        try:
            return self._swept_at() != self._before
        except StoreError:
            return False

    def _swept_at(self) -> datetime | None:
        return self._roster.read_overview().swept_at
