"""What HubSpot's refusals, and ours, mean: from the codes that the store keeps to words."""

from __future__ import annotations

import re

#: As `ProviderError.__str__` writes it.
_CODE = re.compile(r"(?P<code>\S+)(?: \(HTTP (?P<status>[0-9]{3})\))?")
_DEAD = "HubSpot says that the refresh token is no good any more"
_ACCOUNT = "HubSpot says that the account does not let the app in any more"
_ID = "HubSpot does not know our client id"
_SECRET = "HubSpot refuses our client secret"  # noqa: S105  words, not a secret
_ASKING = "HubSpot refuses the way in which we ask"
_UNCLEAR = "HubSpot's answer was not as its documentation says"
MEANING = {
    "BAD_REFRESH_TOKEN": _DEAD,
    "invalid_grant": _DEAD,
    "BAD_HUB": _ACCOUNT,
    "access_denied": _ACCOUNT,
    "another_hub": "the refresh token belongs to another account than this one",
    "BAD_CLIENT_ID": _ID,
    "BAD_CLIENT_SECRET": _SECRET,
    "invalid_client": "HubSpot refuses our client id or our client secret",
    "unauthorized_client": "HubSpot refuses our app",
    "no_client_secret": "no client secret is set here",
    "BAD_GRANT_TYPE": _ASKING,
    "BAD_REDIRECT_URI": "HubSpot does not know our redirect URL",
    "BAD_SCOPES": "HubSpot refuses the scopes that we ask for",
    "invalid_scope": "HubSpot refuses the scopes that we ask for",
    "unsupported_grant_type": _ASKING,
    "unsupported_media_type": _ASKING,
    "timeout": "HubSpot did not answer in time",
    "connection": "no connection to HubSpot, or it broke",
    "name_resolution": "the name of HubSpot's host could not be looked up",
    "tls": "no secure connection to HubSpot could be made",
    "throttled": "HubSpot asked us to wait",
    "portal_moving": "HubSpot is moving this account to another data centre",
    "migration_in_progress": "HubSpot is moving this account to another data centre",
    "server_error": "HubSpot had an error of its own",
    "locked": "HubSpot has this account locked for a moment",
    "request_timeout": "HubSpot gave up waiting for our request",
    "too_early": "HubSpot was not ready for our request",
    "redirect": "HubSpot sent us elsewhere instead of answering",
    "html": "a web page came instead of an answer, perhaps from a proxy",
    "not_json": _UNCLEAR,
    "empty": "HubSpot's answer was empty",
    "too_large": "HubSpot's answer was far too long",
    "encoding": "HubSpot's answer could not be unpacked",
    "no_grant": "HubSpot's answer held no token",
    "no_answer": _UNCLEAR,
    "wrong_types": _UNCLEAR,
    "bad_expires_in": _UNCLEAR,
    "no_hub_id": _UNCLEAR,
    "no_refresh_token": _UNCLEAR,
    "incomplete_grant": _UNCLEAR,
    "sealed_with_unknown_key": "its refresh token is sealed with a key that is not in TOKEN_KEYS",
    "unrecognised": "HubSpot refused, in words that we do not know",
}
#: Of these the account's way to another data centre is the cause.
MOVING = frozenset({"portal_moving", "migration_in_progress"})
#: Of these our settings are the cause, whichever connection they show up at.
OURS = frozenset(
    {"BAD_CLIENT_ID", "BAD_CLIENT_SECRET", "BAD_REDIRECT_URI", "BAD_SCOPES", "BAD_GRANT_TYPE"}
    | {"invalid_client", "unauthorized_client", "no_client_secret", "invalid_scope"}
    | {"unsupported_grant_type", "unsupported_media_type"}
)


def code(error: str) -> str:
    """The code alone, of an error as it is kept: `BAD_HUB` of `BAD_HUB (HTTP 400)`."""
    found = _CODE.fullmatch(error)
    return found["code"] if found else error


def in_words(error: str) -> str:
    """What it means; of a code that nobody has words for, that."""
    return MEANING.get(code(error), MEANING["unrecognised"])
