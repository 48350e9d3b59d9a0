"""Installs as a browser makes them: from the callback's answer until the token can be read in SQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import parse_qs, urlsplit

import psycopg2
import requests

from bench.hubspot import code
from bench.processes import Failed, Process
from bench.world import World
from sandbox.supervision import WEB_OPTIONS

READ = "SELECT 1 FROM hubspot.tokens WHERE hub_id = %s"
#: Hubs that install are numbered from here on: far from those that were imported.
FIRST = 100_000_001
#: Seconds between two looks at the table.
LOOK = 0.001
PATIENCE = 20.0
SEE_OTHER = 303


@contextmanager
def web(world: World) -> Iterator[str]:
    """Where it is reached."""
    redirect = urlsplit(world.environment["HUBSPOT_REDIRECT_URI"])
    argv = ["gunicorn", "web.wsgi:app", "--bind", f"127.0.0.1:{redirect.port}", *WEB_OPTIONS]
    process = Process("web", argv, world.environment, world.folder)
    try:
        process.says("Booting worker")
        yield f"{redirect.scheme}://{redirect.netloc}"
        process.must_run()
    finally:
        process.stop()


def waits(world: World, home: str, first: int, count: int) -> list[float]:
    """Seconds for each of `count` installs, one after the other. Raises Failed."""
    with closing(psycopg2.connect(world.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            found = []
            for hub_id in range(first, first + count):
                answered = _install(home, hub_id)
                while not _readable(cursor, hub_id):
                    if time.monotonic() - answered > PATIENCE:
                        raise Failed(f"an install was not readable after {PATIENCE:g} s")
                    time.sleep(LOOK)
                found.append(time.monotonic() - answered)
    return found


def forget(world: World) -> None:
    """So that the next figure finds what was imported, and no more."""
    world.sql("DELETE FROM tokenkeeper.connections WHERE hub_id >= %s", FIRST)


def _install(home: str, hub_id: int) -> float:
    """When the callback was answered."""
    with requests.Session() as browser:
        browser.trust_env = False
        asked = browser.get(f"{home}/install", allow_redirects=False, timeout=PATIENCE)
        state = parse_qs(urlsplit(asked.headers["Location"]).query)["state"][0]
        back = {"code": code(hub_id), "state": state}
        answer = browser.get(f"{home}/oauth/callback", params=back, allow_redirects=False, timeout=PATIENCE)
        answered = time.monotonic()
    if answer.status_code != SEE_OTHER:
        raise Failed(f"the callback answered {answer.status_code}")
    return answered


def _readable(cursor: psycopg2.extensions.cursor, hub_id: int) -> bool:
    cursor.execute(READ, (hub_id,))
    return cursor.fetchone() is not None
