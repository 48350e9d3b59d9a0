"""HubSpot: which apps there are, and how calls reach it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.settings import parsers
from shared.settings.apps_file import FILE_VARIABLE
from shared.settings.declaration import SECONDS_HINT, setting


@dataclass(frozen=True)
class HubSpotSettings:
    hubspot_apps_file: str = setting(
        FILE_VARIABLE,
        str,
        "",
        hint="the path of a TOML file with a table for each app",
        example="/etc/tokenkeeper/apps.toml",
        meaning="several apps, instead of the variables of one: [several-apps.md](several-apps.md)",
    )
    hubspot_api_url: str = setting(
        "HUBSPOT_API_URL",
        parsers.parse_hubspot_url,
        "https://api.hubapi.com",
        hint="https://api.hubapi.com; http only for this machine or a private network",
        example="http://localhost:8090",
        meaning="token, introspection, revocation and uninstall; the example is the simulator",
    )
    hubspot_app_url: str = setting(
        "HUBSPOT_APP_URL",
        parsers.parse_hubspot_url,
        "https://app.hubspot.com",
        hint="https://app.hubspot.com; http only for this machine or a private network",
        example="http://localhost:8090",
        meaning="the consent page",
    )
    hubspot_proxy: str = setting(
        "HUBSPOT_PROXY",
        parsers.parse_proxy_url,
        "",
        hint="http://user:password@proxy.internal:3128, or https://…",
        example="http://user:its-password@proxy.internal:3128",
        meaning="the egress proxy for calls to HubSpot, where there is no direct way out. `HTTPS_PROXY` and its like "
        "are not read",
        is_secret=True,
    )
    http_timeout_seconds: float = setting(
        "HTTP_TIMEOUT_SECONDS",
        parsers.parse_seconds,
        20.0,
        hint=SECONDS_HINT,
        example="10",
        meaning="one call to HubSpot, as a whole",
    )
