"""The bare loop: `python -m bench.bare THREADS FIRST_HUB`. Its threads only call HubSpot, with `requests`.

No database, no queue, no schedule, no encryption: what is left of a refresh without the product. It uses `requests` as
its manual says: a session for each thread, because a session is not made for several, and all its defaults.
"""

from __future__ import annotations

import os
import sys
import threading

import requests

from bench.hubspot import make_refresh_token
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

#: A thread, or a call of bench/bare_curl.py, refreshes these one after the other, again and again.
CONNECTIONS_PER_CALL = 50
TIMEOUT_SECONDS = 20


def refresh_forever(url: str, form: dict[str, str], refresh_tokens: list[str]) -> None:
    access_tokens: dict[int, str] = {}
    with requests.Session() as session:
        while True:
            for token in refresh_tokens:
                reply = session.post(url, data={**form, "refresh_token": token}, timeout=TIMEOUT_SECONDS)
                reply.raise_for_status()
                grant = reply.json()
                access_tokens[grant["hub_id"]] = grant["access_token"]


def make_url(settings: Settings) -> str:
    return f"{settings.hubspot_api_url}/oauth/{settings.apps[DEFAULT_APP].api_version}/token"


def make_form(settings: Settings) -> dict[str, str]:
    """Without the refresh token."""
    app = settings.apps[DEFAULT_APP]
    return {"grant_type": "refresh_token", "client_id": app.client_id, "client_secret": app.client_secrets[0]}


def main(settings: Settings, thread_count: int, first_hub_id: int) -> None:
    url, form, threads = make_url(settings), make_form(settings), []
    for number in range(thread_count):
        start = first_hub_id + number * CONNECTIONS_PER_CALL
        tokens = [make_refresh_token(hub_id) for hub_id in range(start, start + CONNECTIONS_PER_CALL)]
        threads.append(threading.Thread(target=refresh_forever, args=(url, form, tokens), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    needs = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET")
    main(Settings.from_env(os.environ, needs), int(sys.argv[1]), int(sys.argv[2]))  # noqa: TID251  an entry point
