"""The bare loop: `python -m bench.bare THREADS FIRST_HUB`. Its threads only call HubSpot, with `requests`.

No database, no queue, no schedule, no encryption: what is left of a refresh without the product. It does what makes
`requests` fast: a session for each thread, kept alive, with no look into the environment.
"""

from __future__ import annotations

import os
import sys
import threading

import requests

from bench.hubspot import make_refresh_token
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

#: A thread refreshes these one after the other, again and again.
CONNECTIONS_PER_THREAD = 50
TIMEOUT_SECONDS = 20


def refresh_forever(url: str, form: dict[str, str], refresh_tokens: list[str]) -> None:
    access_tokens: dict[int, str] = {}
    with requests.Session() as session:
        session.trust_env = False
        while True:
            for token in refresh_tokens:
                reply = session.post(url, data={**form, "refresh_token": token}, timeout=TIMEOUT_SECONDS)
                reply.raise_for_status()
                grant = reply.json()
                access_tokens[grant["hub_id"]] = grant["access_token"]


def main(settings: Settings, thread_count: int, first_hub_id: int) -> None:
    app = settings.apps[DEFAULT_APP]
    url = f"{settings.hubspot_api_url}/oauth/{app.api_version}/token"
    form = {
        "grant_type": "refresh_token",
        "client_id": app.client_id,
        "client_secret": app.client_secrets[0],
    }
    threads = []
    for number in range(thread_count):
        start = first_hub_id + number * CONNECTIONS_PER_THREAD
        tokens = [make_refresh_token(hub_id) for hub_id in range(start, start + CONNECTIONS_PER_THREAD)]
        threads.append(threading.Thread(target=refresh_forever, args=(url, form, tokens), daemon=True))
    for thread in threads:
        thread.start()
    print("runs", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    needs = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET")
    main(Settings.from_env(os.environ, needs), int(sys.argv[1]), int(sys.argv[2]))  # noqa: TID251  an entry point
