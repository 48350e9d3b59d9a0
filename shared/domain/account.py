"""What HubSpot says about the account of a connection, and how pages say it."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: HubSpot's types of accounts in words. One of the type STANDARD is the usual case, and needs none.
ACCOUNT_TYPES = {
    "STANDARD": "",
    "SANDBOX": "sandbox",
    "DEVELOPER_TEST": "developer test account",
    "APP_DEVELOPER": "developer account",
}
#: The letters of HubSpot's data hosting locations, na1, eu1 …, in words.
REGIONS = {"na": "North America", "eu": "EU", "ap": "Asia-Pacific", "ca": "Canada"}
_REGION = re.compile(r"([a-z]{2})\d{1,2}")


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """HubSpot's account information, in its own words. None: it does not say."""

    hub_id: int | None = None
    name: str | None = None
    account_type: str | None = None  #: one of ACCOUNT_TYPES; HubSpot may have others
    region: str | None = None  #: where HubSpot stores the account's data: na1, eu1 …


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """What is stored about the account of a connection. None: not known."""

    hub_domain: str | None = None
    installed_by: str | None = None  #: e-mail address of the user
    details: AccountDetails | None = None  #: None: HubSpot was not asked, or has not answered


def describe_account(name: str | None, account_type: str | None, region: str | None) -> str:
    """In words: "Acme Ltd, sandbox, EU". Empty where nothing is known."""
    kind = ACCOUNT_TYPES.get(account_type or "", (account_type or "").lower().replace("_", " "))
    match = _REGION.fullmatch(region or "")
    place = REGIONS.get(match[1], region) if match else region
    return ", ".join(filter(None, (name, kind, place)))
