"""Exports the HubSpot connections of Nango: python from_nango.py INTEGRATION | tokenkeeper import -

INTEGRATION is Nango's provider_config_key. NANGO_SECRET_KEY is the environment's key, with the right to read
credentials; NANGO_URL is https://api.nango.dev, or the address of your own Nango. Nango stores the account's number as
`portalId`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

NANGO = os.environ.get("NANGO_URL", "https://api.nango.dev")
RETRY = Retry(total=6, backoff_factor=1, status_forcelist=(429, 502, 503, 504))


def read_connection_ids(http: requests.Session, integration: str) -> Iterator[str]:
    """The ids, until a page has no new one."""
    seen: set[str] = set()
    page = 0
    while True:
        listed = get_json(http, "/connections", page=page)["connections"]
        new = {one["connection_id"] for one in listed if one["provider_config_key"] == integration} - seen
        if not new:
            return
        yield from sorted(new)
        seen |= new
        page += 1


def get_json(http: requests.Session, path: str, **query: Any) -> Any:
    reply = http.get(f"{NANGO}{path}", params=query, timeout=60)
    reply.raise_for_status()
    return reply.json()


def main() -> None:
    integration = sys.argv[1]
    left_out = 0
    with requests.Session() as http:
        http.mount(NANGO, HTTPAdapter(max_retries=RETRY))
        http.headers["Authorization"] = f"Bearer {os.environ['NANGO_SECRET_KEY']}"
        for name in read_connection_ids(http, integration):
            query = {"provider_config_key": integration, "refresh_token": "true"}
            found = get_json(http, f"/connections/{quote(name, safe='')}", **query)
            hub_id = found.get("connection_config", {}).get("portalId")
            refresh_token = found.get("credentials", {}).get("refresh_token")
            if hub_id and refresh_token:
                print(json.dumps({"hub_id": hub_id, "refresh_token": refresh_token}))
            else:
                left_out += 1
                print(f"connection {name}: no {'refresh token' if hub_id else 'portalId'}", file=sys.stderr)
    sys.exit(1 if left_out else 0)


if __name__ == "__main__":
    main()
