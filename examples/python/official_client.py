"""The same with HubSpot's own client: python official_client.py HUB.

The client gets a token for each call, and its OAuth part is not used: a second program that refreshes may invalidate
the refresh token that tokenkeeper has.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from hubspot import HubSpot
from hubspot.crm.contacts.exceptions import ApiException
from psycopg_pool import ConnectionPool
from tokens import NoToken, StillRefused, Tokens
from urllib3 import Retry

API = os.environ.get("HUBSPOT_API_URL", "https://api.hubapi.com")
UNAUTHORIZED = 401
RETRY = Retry(total=4, backoff_factor=1, status_forcelist=(429, 502, 503, 504))


def read_contacts(tokens: Tokens, hub_id: int) -> Any:
    token = tokens.read(hub_id)
    try:
        return read_page(token)
    except ApiException as error:
        if error.status != UNAUTHORIZED:
            raise
        return read_page(tokens.after_401(hub_id, token))


def read_page(token: str) -> Any:
    """A new client per call: a client keeps its first token."""
    client = HubSpot(access_token=token, host=API, retry=RETRY)
    return client.crm.contacts.basic_api.get_page(limit=100).results


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():  # noqa: PLR2004
        print("usage: python official_client.py HUB", file=sys.stderr)
        sys.exit(2)
    hub_id = int(sys.argv[1])
    with ConnectionPool(min_size=1, open=True) as pool:
        try:
            found = read_contacts(Tokens(pool), hub_id)
        except (NoToken, StillRefused) as error:
            sys.exit(str(error))
        except ApiException as error:  # its text holds HubSpot's whole answer
            sys.exit(f"HubSpot answered {error.status} {error.reason}")
    for contact in found:
        print(contact.id, contact.properties.get("email"))


if __name__ == "__main__":
    main()
