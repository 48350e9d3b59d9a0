"""Parses HubSpot's account information. No I/O."""

from __future__ import annotations

from shared.domain.account import AccountDetails
from shared.hubspot import response_fields
from shared.hubspot.response_parsing import Reply, parse_json


def parse_account_details(reply: Reply) -> AccountDetails:
    """Raises ProviderError. A field that is missing or of another type is None: HubSpot added `portalName` late."""
    answer = parse_json(reply) or {}
    return AccountDetails(
        hub_id=response_fields.parse_hub_id(answer.get("portalId")),
        name=response_fields.parse_line(answer.get("portalName"), 255),
        account_type=response_fields.parse_line(answer.get("accountType"), 40),
        region=response_fields.parse_line(answer.get("dataHostingLocation"), 40),
    )
