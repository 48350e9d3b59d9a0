"""Waits until the product works: servers answer, and a sweep went from beat through Redis and a worker to Postgres."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

import requests

from shared.db.core.engine import make_engine
from shared.db.core.errors import StoreError
from shared.db.reports.connections import ConnectionReports

POLL_SECONDS = 0.2
REMINDER_SECONDS = 30.0
REQUEST_TIMEOUT_SECONDS = 5.0

Check = Callable[[], bool]


def wait_for(checks: Mapping[str, Check], say: Callable[[str], None]) -> None:
    """Returns when each check has been true once. Every REMINDER_SECONDS it says which have not."""
    pending = dict(checks)
    last_reminder = time.monotonic()
    while pending := {name: check for name, check in pending.items() if not check()}:
        if time.monotonic() - last_reminder > REMINDER_SECONDS:
            last_reminder = time.monotonic()
            say(f"still waiting for {', '.join(pending)}: the lines above may say why")
        time.sleep(POLL_SECONDS)


def make_http_check(url: str) -> Check:
    """True while a GET of `url` answers with a status below 400."""
    session = requests.Session()
    session.trust_env = False  # a proxy must not see loopback traffic

    def check() -> bool:
        try:
            return session.get(url, timeout=REQUEST_TIMEOUT_SECONDS).ok
        except requests.RequestException:
            return False

    return check


def make_sweep_check(database_url: str) -> Check:
    """True once a sweep was made after this call. Raises StoreError."""
    reports = ConnectionReports(make_engine(database_url, pool_size=1))

    def read_last_sweep() -> datetime | None:
        return reports.read_overview().swept_at

    previous = read_last_sweep()

    def check() -> bool:
        try:
            return read_last_sweep() != previous
        except StoreError:
            return False

    return check
