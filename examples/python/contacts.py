"""Prints an account's contacts: python contacts.py HUB."""

from __future__ import annotations

import os
import sys
from typing import Any

import requests
from psycopg_pool import ConnectionPool
from requests.adapters import HTTPAdapter
from tokens import NoToken, StillRefused, Tokens
from urllib3 import Retry

API = os.environ.get("HUBSPOT_API_URL", "https://api.hubapi.com")
UNAUTHORIZED = 401

#: Temporary errors; Retry-After is obeyed. Waiting does not help after a 401 or a 403.
RETRY = Retry(total=4, backoff_factor=1, status_forcelist=(429, 502, 503, 504))


class HubSpot:
    """HubSpot's API, for any connected account."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._http = requests.Session()
        self._http.mount(API, HTTPAdapter(max_retries=RETRY))

    def get(self, hub_id: int, path: str) -> Any:
        """Raises NoToken, StillRefused, or what `requests` raises."""
        token = self._tokens.read(hub_id)
        reply = self._send(path, token)
        if reply.status_code == UNAUTHORIZED:
            reply = self._send(path, self._tokens.after_401(hub_id, token))
        reply.raise_for_status()
        return reply.json()

    def _send(self, path: str, token: str) -> requests.Response:
        return self._http.get(f"{API}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30)


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():  # noqa: PLR2004
        print("usage: python contacts.py HUB", file=sys.stderr)
        sys.exit(2)
    hub_id = int(sys.argv[1])
    with ConnectionPool(min_size=1, open=True) as pool:
        try:
            page = HubSpot(Tokens(pool)).get(hub_id, "/crm/objects/2026-09/contacts")
        except (NoToken, StillRefused, requests.RequestException) as error:
            sys.exit(str(error))
    for contact in page["results"]:
        print(contact["id"], contact["properties"].get("email"))


if __name__ == "__main__":
    main()
