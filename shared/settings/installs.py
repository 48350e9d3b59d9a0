"""How accounts are connected for customers of our own product, and from HubSpot's Marketplace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared.settings import parsers
from shared.settings.declaration import setting


@dataclass(frozen=True)
class InstallSettings:
    connect_link_keys: tuple[str, ...] = setting(
        "CONNECT_LINK_KEYS",
        partial(parsers.parse_key_list, min_bytes=32),
        (),
        hint="one key of 32 bytes or more, or several: newest,older",
        example="a-key-of-32-random-characters-or-more",
        meaning="keys, separated by commas, by which your product signs [connect links](connect-links.md): the first "
        "signs those of `tokenkeeper link`, all are accepted. Without one there are no links",
        is_secret=True,
    )
    connect_link_required: bool = setting(
        "CONNECT_LINK_REQUIRED",
        parsers.parse_boolean,
        False,
        hint="true or false",
        example="true",
        meaning="`true`: accounts are connected by a connect link or from HubSpot's Marketplace, not by `/install`",
    )
    return_to_origins: tuple[str, ...] = setting(
        "RETURN_TO_ORIGINS",
        parsers.parse_origins,
        (),
        hint="https://app.example.com, several separated by spaces; http only for localhost",
        example="https://app.example.com",
        meaning="origins of your product, separated by spaces, to which a connect link's `return_to` may lead",
    )
    marketplace_return_hosts: tuple[str, ...] = setting(
        "MARKETPLACE_RETURN_HOSTS",
        parsers.parse_host_patterns,
        ("app.hubspot.com", "app-*.hubspot.com"),
        hint="hosts separated by spaces, such as app-*.hubspot.com",
        example="app.hubspot.com app-*.hubspot.com",
        meaning="hosts that HubSpot's `returnUrl` of a Marketplace install may have, over https alone",
    )
