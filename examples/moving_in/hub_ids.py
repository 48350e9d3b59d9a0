"""Finds the accounts of refresh tokens: … | python hub_ids.py | tokenkeeper import -

Standard input has one refresh token a line; standard output is input for `tokenkeeper import`. It calls HubSpot's
introspection for each, with HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET, which changes nothing at HubSpot. A revoked
token, or one of another app, is reported by its line number and skipped.
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
RETRY = Retry(total=6, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=None)


def main() -> None:
    left_out = 0
    with requests.Session() as http:
        http.mount(API, HTTPAdapter(max_retries=RETRY))
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
