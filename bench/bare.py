"""The bare loop: `python -m bench.bare THREADS FIRST_HUB`. Its threads call HubSpot with `requests`, and that is all.

No database, no queue, no schedule, nothing is sealed or kept: what is left of a refresh when all that is ours is
taken away. Written as well as one would: a session per thread, kept alive, and nothing looked up in the environment.
"""

from __future__ import annotations

import os
import sys
import threading

import requests

from bench.hubspot import refresh_token
from shared.settings import Settings

#: Connections that a thread goes through, one after the other, again and again.
EACH = 50


def refresh_for_ever(url: str, form: dict[str, str], tokens: list[str]) -> None:
    kept: dict[int, str] = {}
    with requests.Session() as session:
        session.trust_env = False
        while True:
            for token in tokens:
                reply = session.post(url, data={**form, "refresh_token": token}, timeout=20)
                reply.raise_for_status()
                grant = reply.json()
                kept[grant["hub_id"]] = grant["access_token"]


def main(settings: Settings, threads: int, first: int) -> None:
    url = f"{settings.hubspot_api_url}/oauth/{settings.hubspot_api_version}/token"
    form = {
        "grant_type": "refresh_token",
        "client_id": settings.hubspot_client_id,
        "client_secret": settings.hubspot_client_secrets[0],
    }
    started = []
    for number in range(threads):
        hubs = range(first + number * EACH, first + (number + 1) * EACH)
        work = threading.Thread(target=refresh_for_ever, args=(url, form, [refresh_token(hub_id) for hub_id in hubs]))
        work.daemon = True
        started.append(work)
    for work in started:
        work.start()
    print("runs", flush=True)
    for work in started:
        work.join()


if __name__ == "__main__":
    needs = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET")
    main(Settings.from_env(os.environ, needs), int(sys.argv[1]), int(sys.argv[2]))  # noqa: TID251  an entry point
