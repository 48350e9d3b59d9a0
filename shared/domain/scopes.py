"""What HubSpot's scopes mean to each other. Compared literally: a grant has a scope, or it lacks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: Coarse scopes and their granular successors, which HubSpot gives each app on its own date, from September 2026 on.
#: Its whole table was not to be had: these are the pairs that its guide names, or that a live account returned.
SUCCESSORS: Mapping[str, tuple[str, ...]] = {
    "hubdb": (
        "hubdb.tables.read",
        "hubdb.tables.write",
        "hubdb.tables.publish",
        "hubdb.rows.read",
        "hubdb.rows.write",
    ),
    "tickets": (
        "crm.objects.tickets.read",
        "crm.objects.tickets.write",
        "crm.schemas.tickets.read",
        "crm.schemas.tickets.write",
    ),
}
#: Scopes that HubSpot has ended, and what to use: no new grant has them, and an authorization that names one fails.
RETIRED: Mapping[str, tuple[str, ...]] = {"contacts": ("crm.objects.contacts.read", "crm.objects.contacts.write")}
_PREDECESSORS = {granular: coarse for coarse, successors in SUCCESSORS.items() for granular in successors}


def find_missing(required: Collection[str], granted: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(set(required) - set(granted)))


def explain_missing(scope: str, granted: Collection[str]) -> str:
    """Why a grant may lack `scope`, for an operator; "" where nothing is known."""
    if scope in RETIRED:
        return f"HubSpot has ended this scope: use {' and '.join(RETIRED[scope])} in the app and in the settings"
    if (coarse := _PREDECESSORS.get(scope)) and coarse in granted:
        return (
            f"granular successor of {coarse}, which was granted: the account keeps that access until it installs again"
        )
    successors = [each for each in SUCCESSORS.get(scope, ()) if each in granted]
    if successors:
        return f"coarse; HubSpot has replaced it by {', '.join(successors)}: require those in the settings"
    return ""
