"""HubSpot's files that define an app of a developer project: made from the settings, and compared with them. No I/O.

HubSpot's own command uploads them (`hs project upload`). Their form, and the rules for scopes and redirect URLs, are in
HubSpot's documentation of developer projects, platform versions 2026.03 and 2026.09. HubSpot blocks every install whose
URL has a scope that the app does not have, or lacks one that it requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit

from shared.domain.scopes import RETIRED, SUCCESSORS
from shared.settings.hubspot_app import HubSpotApp
from shared.settings.parsers import API_VERSIONS

#: Account information and the uninstall need it, and HubSpot's own templates of an app have it.
OAUTH_SCOPE = "oauth"
#: Platform version of a project, by the version of the API that the settings name.
PLATFORM_VERSIONS: Mapping[str, str] = {"2026-09": "2026.09", "2026-03": "2026.03"}
DEFAULT_PLATFORM_VERSION = "2026.09"
MAX_UID_CHARACTERS = 64
#: Until when HubSpot supports a version: of v3, as announced (its last day is not: the month's first is meant); of the
#: dated ones 18 months after their release, which is HubSpot's rule.
API_VERSION_ENDS: Mapping[str, date] = {
    "v3": date(2027, 9, 1),
    "2026-03": date(2027, 9, 1),
    "2026-09": date(2028, 3, 1),
}
#: From so long before its end on, a version is reported.
VERSION_WARNING = timedelta(days=180)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for people. A difference keeps accounts from installing; a note does not."""

    text: str
    is_difference: bool = True


def make_project(name: str, api_version: str) -> dict[str, Any]:
    """The content of hsproject.json."""
    version = PLATFORM_VERSIONS.get(api_version, DEFAULT_PLATFORM_VERSION)
    return {"name": name, "srcDir": "src", "platformVersion": version}


def make_app_definition(app: HubSpotApp, *, name: str, description: str, distribution: str) -> dict[str, Any]:
    """The content of src/app/app-hsmeta.json. `distribution` is `marketplace` or `private`."""
    config: dict[str, Any] = {
        "name": name,
        "description": description,
        "distribution": distribution,
        "auth": {
            "type": "oauth",
            "redirectUrls": [app.redirect_uri],
            "requiredScopes": list(app.scopes),
            "optionalScopes": list(app.optional_scopes),
            "conditionallyRequiredScopes": list(app.conditional_scopes),
        },
        "permittedUrls": {"fetch": ["https://api.hubapi.com"], "iframe": [], "img": []},
    }
    if app.is_user_level:
        config["isUserLevel"] = True
    return {"uid": make_uid(name), "type": "app", "config": config}


def make_uid(name: str) -> str:
    """A name within the project, of the characters that HubSpot takes."""
    uid = re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("_")
    return uid[:MAX_UID_CHARACTERS] or "app"


def compare_app_definition(definition: object, app: HubSpotApp) -> list[Finding]:
    """What differs between the content of an app-hsmeta.json and the settings, and what HubSpot would not take."""
    config = definition.get("config") if isinstance(definition, dict) else None
    auth = config.get("auth") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(auth, dict):
        return [Finding("the file has no config.auth: is it the app-hsmeta.json of an app?")]
    if auth.get("type") != "oauth":
        return [Finding('config.auth.type is not "oauth": only an app with OAuth can be installed by accounts')]
    return [
        *_compare_redirect_url(auth, app),
        *_compare_scopes(auth, app),
        *_compare_user_level(config, app),
    ]


def check_scopes(app: HubSpotApp) -> Iterator[Finding]:
    """What is wrong with the scopes of the settings, whatever the app's file says."""
    scopes = (*app.scopes, *app.optional_scopes, *app.conditional_scopes)
    if OAUTH_SCOPE not in app.scopes:
        yield Finding("oauth is not among the scopes: account information and the uninstall of an account need it")
    yield from _check_scope_names(set(scopes))
    for scope in sorted({scope for scope in scopes if scopes.count(scope) > 1}):
        yield Finding(f"{scope} is in two of the lists of scopes: HubSpot takes a scope in one")


def check_api_version(version: str, today: date) -> Finding:
    end = API_VERSION_ENDS[version]
    if today < end - VERSION_WARNING:
        return Finding(f"{version}, which HubSpot supports until {end:%B %Y}", is_difference=False)
    verb = "ends" if today < end else "ended"
    advice = "upgrade tokenkeeper" if version == API_VERSIONS[0] else f"use {API_VERSIONS[0]}"
    return Finding(f"HubSpot's support of {version} {verb} in {end:%B %Y}: {advice}")


def _compare_redirect_url(auth: Mapping[str, Any], app: HubSpotApp) -> Iterator[Finding]:
    urls = _read_texts(auth, "redirectUrls")
    if app.redirect_uri not in urls:
        yield Finding(
            f"redirectUrls lacks {app.redirect_uri}, which the settings have: HubSpot compares every character"
        )
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname == "localhost"):
            yield Finding(f"redirectUrls has {url}: HubSpot takes https, and http for localhost alone")


def _compare_scopes(auth: Mapping[str, Any], app: HubSpotApp) -> Iterator[Finding]:
    lists = (
        ("requiredScopes", "the scopes of the settings", app.scopes),
        ("optionalScopes", "the optional scopes of the settings", app.optional_scopes),
        ("conditionallyRequiredScopes", "the conditional scopes of the settings", app.conditional_scopes),
    )
    places: dict[str, list[str]] = {}
    for key, setting, wanted in lists:
        in_file = _read_texts(auth, key)
        for scope in dict.fromkeys(in_file):
            places.setdefault(scope, []).append(key)
        if missing := sorted(set(wanted) - set(in_file)):
            yield Finding(f"{key} lacks {', '.join(missing)}, which {setting} have: add it to the file, then upload it")
        if surplus := sorted(set(in_file) - set(wanted)):
            yield Finding(f"{key} has {', '.join(surplus)}, which {setting} lack: add it there, or remove it")
        for scope in in_file:
            if re.search(r"[\s,%+\"']", scope):
                yield Finding(f"{key} has {scope!r}: each scope is a text of its own, without commas and spaces")
    for scope, keys in places.items():
        if len(keys) > 1:
            yield Finding(f"{scope} is in {' and in '.join(keys)}: HubSpot takes a scope in one list")
    yield from _check_scope_names(
        set(places) | set(app.scopes) | set(app.optional_scopes) | set(app.conditional_scopes)
    )
    if OAUTH_SCOPE not in _read_texts(auth, "requiredScopes"):
        yield Finding("requiredScopes lacks oauth: account information and the uninstall of an account need it")


def _check_scope_names(scopes: set[str]) -> Iterator[Finding]:
    for scope in sorted(scopes & RETIRED.keys()):
        yield Finding(f"{scope} is a scope that HubSpot has ended: use {' and '.join(RETIRED[scope])}")
    for scope in sorted(scopes & SUCCESSORS.keys()):
        successors = ", ".join(SUCCESSORS[scope])
        text = f"HubSpot replaces {scope} by {successors}, on a date that your developer account shows"
        yield Finding(text, is_difference=False)


def _compare_user_level(config: Mapping[str, Any], app: HubSpotApp) -> Iterator[Finding]:
    in_file = config.get("isUserLevel") is True
    if in_file != app.is_user_level:
        state = "has" if in_file else "lacks"
        yield Finding(f'the file {state} "isUserLevel": true, and the settings say the reverse')


def _read_texts(values: Mapping[str, Any], key: str) -> Sequence[str]:
    items = values.get(key)
    return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []
