"""When tokens are refreshed, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared.settings import parsers
from shared.settings.declaration import SECONDS_HINT, setting

FRACTION_HINT = "a fraction between 0 and 1"


@dataclass(frozen=True)
class RefreshSettings:
    refresh_from: float = setting(
        "REFRESH_FROM",
        parsers.parse_fraction,
        0.6,
        hint=FRACTION_HINT,
        example="0.5",
        meaning="a refresh falls due at a point of a token's life between this fraction,",
    )
    refresh_until: float = setting(
        "REFRESH_UNTIL",
        parsers.parse_fraction,
        0.75,
        hint=FRACTION_HINT,
        example="0.7",
        meaning="and this one, spread over accounts. While HubSpot answers, every token that is served has "
        "`1 - REFRESH_UNTIL` of its life left, less a sweep and a call",
    )
    sweep_seconds: float = setting(
        "SWEEP_SECONDS",
        parsers.parse_seconds,
        2.0,
        hint=SECONDS_HINT,
        example="5",
        meaning="how often beat looks for due work",
    )
    journal_seconds: float = setting(
        "JOURNAL_SECONDS",
        parsers.parse_pause,
        10.0,
        hint="seconds, at most 3600; 0 to turn it off",
        example="30",
        meaning="how often HubSpot's Webhooks Journal is read for uninstalls ([uninstalls.md](uninstalls.md)); 0 turns "
        "it off: then an uninstall is noticed at the next refresh",
    )
    lease_seconds: float = setting(
        "LEASE_SECONDS",
        parsers.parse_seconds,
        60.0,
        hint=SECONDS_HINT,
        example="90",
        meaning="how long a claimed row belongs to one worker; at least twice `HTTP_TIMEOUT_SECONDS` plus 5",
    )
    refresh_concurrency: int = setting(
        "REFRESH_CONCURRENCY",
        partial(parsers.parse_integer, least=1, most=10_000),
        400,
        hint="a number from 1 to 10000",
        example="50",
        meaning="calls to HubSpot in flight per pool process of a worker",
    )
