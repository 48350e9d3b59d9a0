"""Measures installs as a browser makes them: from the callback's answer until the token can be read by SQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import psycopg2
import requests

from bench.hubspot import make_refresh_token
from bench.testbed import BenchmarkError, Testbed
from sandbox.child_processes import ChildProcess
from sandbox.supervision import WEB_OPTIONS

READ_TOKEN = "SELECT 1 FROM hubspot.tokens WHERE hub_id = %s"  # noqa: S105 a statement
#: Hub ids of installs start here, far above those of the imported connections.
FIRST_HUB_ID = 100_000_001
POLL_SECONDS = 0.001
TIMEOUT_SECONDS = 20.0
WEB_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunningWeb:
    url: str
    process: ChildProcess


@contextmanager
def run_web(testbed: Testbed) -> Iterator[RunningWeb]:
    """Raises ProcessFailed."""
    redirect = urlsplit(testbed.environment["HUBSPOT_REDIRECT_URI"])
    process = testbed.start("web", "gunicorn", "web.wsgi:app", "--bind", f"127.0.0.1:{redirect.port}", *WEB_OPTIONS)
    try:
        process.wait_for_output("Booting worker")
        yield RunningWeb(f"{redirect.scheme}://{redirect.netloc}", process)
        process.check_running()
    finally:
        process.stop(WEB_STOP_SECONDS)


def measure_installs(testbed: Testbed, web_url: str, first_hub_id: int, count: int) -> list[float]:
    """Seconds for each of `count` installs, one after the other. Raises BenchmarkError."""
    with closing(psycopg2.connect(testbed.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            durations = []
            for hub_id in range(first_hub_id, first_hub_id + count):
                answered_at = _install(web_url, hub_id)
                while not _is_readable(cursor, hub_id):
                    if time.monotonic() - answered_at > TIMEOUT_SECONDS:
                        raise BenchmarkError(f"an install was not readable after {TIMEOUT_SECONDS:g} s")
                    time.sleep(POLL_SECONDS)
                durations.append(time.monotonic() - answered_at)
    return durations


def delete_installs(testbed: Testbed) -> None:
    """Leaves the imported connections alone for the next figure."""
    testbed.execute("DELETE FROM tokenkeeper.connections WHERE hub_id >= %s", FIRST_HUB_ID)


def _install(web_url: str, hub_id: int) -> float:
    """The time at which the callback was answered. Raises BenchmarkError."""
    with requests.Session() as browser:
        browser.trust_env = False
        start = browser.get(f"{web_url}/install", allow_redirects=False, timeout=TIMEOUT_SECONDS)
        state = parse_qs(urlsplit(start.headers["Location"]).query)["state"][0]
        parameters = {"code": make_refresh_token(hub_id), "state": state}
        url = f"{web_url}/oauth/callback"
        answer = browser.get(url, params=parameters, allow_redirects=False, timeout=TIMEOUT_SECONDS)
        answered_at = time.monotonic()
    if answer.status_code != requests.codes.see_other:
        raise BenchmarkError(f"the callback answered {answer.status_code}")
    return answered_at


def _is_readable(cursor: psycopg2.extensions.cursor, hub_id: int) -> bool:
    cursor.execute(READ_TOKEN, (hub_id,))
    return cursor.fetchone() is not None
