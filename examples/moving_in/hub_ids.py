"""Finds out whose refresh tokens these are: … | python hub_ids.py | tokenkeeper import -

Standard input has one refresh token a line; standard output has what `tokenkeeper import` takes. HubSpot's
introspection is asked about each, with HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET: that spends nothing and changes
nothing there. A token that is dead, or another app's, is told by its line number and left out.
"""

from __future__ import annotations

import json
import os
import sys

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

API = os.environ.get("HUBSPOT_API_URL", "https://api.hubapi.com")
INTROSPECT = f"{API}/oauth/2026-09/token/introspect"
APP = {"client_id": os.environ["HUBSPOT_CLIENT_ID"], "client_secret": os.environ["HUBSPOT_CLIENT_SECRET"]}
PATIENTLY = Retry(total=6, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=None)


def main() -> None:
    left_out = 0
    with requests.Session() as http:
        http.mount(API, HTTPAdapter(max_retries=PATIENTLY))
        for number, line in enumerate(sys.stdin, start=1):
            token = line.strip()
            form = {**APP, "token": token, "token_type_hint": "refresh_token"}
            reply = http.post(INTROSPECT, data=form, timeout=30)
            about = reply.json() if reply.ok else {}
            if about.get("active"):
                print(json.dumps({"hub_id": about["hub_id"], "refresh_token": token}))
            else:
                left_out += 1
                print(f"line {number}: HubSpot does not know it as ours (HTTP {reply.status_code})", file=sys.stderr)
    sys.exit(1 if left_out else 0)


if __name__ == "__main__":
    main()
