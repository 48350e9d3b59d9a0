"""Error codes, as they are stored, in words: HubSpot's own and the ones that this program adds."""

from __future__ import annotations

import re

#: As `ProviderError.__str__` writes it: `BAD_HUB (HTTP 400)`, or the code alone.
_STORED_ERROR = re.compile(r"(?P<code>\S+)(?: \(HTTP (?P<status>[0-9]{3})\))?")

_INVALID_REFRESH_TOKEN = "HubSpot says that the refresh token is no longer valid"  # noqa: S105  words, not a secret
_NO_ACCESS = "HubSpot says that the account no longer gives the app access"
_INVALID_REQUEST = "HubSpot does not accept the form of our request"
_ACCOUNT_MIGRATION = "HubSpot is moving this account to another data centre"
_MALFORMED_RESPONSE = "HubSpot's response did not match its documentation"

DESCRIPTIONS = {
    "BAD_REFRESH_TOKEN": _INVALID_REFRESH_TOKEN,
    "invalid_grant": _INVALID_REFRESH_TOKEN,
    "BAD_HUB": _NO_ACCESS,
    "access_denied": _NO_ACCESS,
    "another_hub": "the refresh token belongs to another account than this one",
    "another_user": "the refresh token belongs to another user of this account",
    "BAD_CLIENT_ID": "HubSpot does not know our client id",
    "BAD_CLIENT_SECRET": "HubSpot does not accept our client secret",
    "invalid_client": "HubSpot does not accept our client id or our client secret",
    "unauthorized_client": "HubSpot does not accept our app",
    "no_client_secret": "no client secret is configured",
    "BAD_GRANT_TYPE": _INVALID_REQUEST,
    "BAD_REDIRECT_URI": "HubSpot does not know our redirect URL",
    "BAD_SCOPES": "the scopes of the grant and of the app do not match",
    "invalid_scope": "HubSpot does not accept the requested scopes",
    "unsupported_grant_type": _INVALID_REQUEST,
    "unsupported_media_type": _INVALID_REQUEST,
    "timeout": "HubSpot did not answer in time",
    "connection": "the connection to HubSpot failed or broke",
    "proxy": "the proxy of HUBSPOT_PROXY does not answer, or refuses the connection",
    "name_resolution": "the name of HubSpot's host could not be resolved",
    "address_not_allowed": "the host leads to an address that must not be called",
    "tls": "no TLS connection to HubSpot could be established",
    "throttled": "HubSpot is limiting our requests",
    "account_migrating": _ACCOUNT_MIGRATION,
    "migration_in_progress": _ACCOUNT_MIGRATION,
    "server_error": "HubSpot had an internal error",
    "locked": "HubSpot has locked this account for a moment",
    "request_timeout": "HubSpot gave up waiting for our request",
    "too_early": "HubSpot was not ready for our request",
    "redirect": "HubSpot answered with a redirect",
    "html": "a web page came instead of a response, perhaps from a proxy",
    "not_json": _MALFORMED_RESPONSE,
    "empty": "HubSpot's response was empty",
    "too_large": "HubSpot's response was far too large",
    "encoding": "HubSpot's response could not be decompressed",
    "no_grant": "HubSpot's response contained no token",
    "no_answer": _MALFORMED_RESPONSE,
    "wrong_types": _MALFORMED_RESPONSE,
    "no_hub_id": _MALFORMED_RESPONSE,
    "no_refresh_token": _MALFORMED_RESPONSE,
    "decryption_failed": "its refresh token is encrypted with a key that is not in TOKEN_KEYS",
    "unrecognised": "HubSpot refused with a code that this version does not know",
}
#: HubSpot is moving the account to another data centre.
ACCOUNT_MIGRATION_CODES = frozenset({"account_migrating", "migration_in_progress"})
#: The cause is in the settings of the app, not in the connection whose refresh failed.
APP_SETTINGS_CODES = frozenset(
    {"BAD_CLIENT_ID", "BAD_CLIENT_SECRET", "BAD_REDIRECT_URI", "BAD_GRANT_TYPE"}
    | {"invalid_client", "unauthorized_client", "no_client_secret", "invalid_scope"}
    | {"unsupported_grant_type", "unsupported_media_type"}
)


def parse_code(stored_error: str) -> str:
    """The code alone: `BAD_HUB` of `BAD_HUB (HTTP 400)`."""
    match = _STORED_ERROR.fullmatch(stored_error)
    return match["code"] if match else stored_error


def is_known(code: str) -> bool:
    return code in DESCRIPTIONS


def describe_error(stored_error: str) -> str:
    """What an error means. Begins in lower case where it is no name, and has no full stop."""
    return DESCRIPTIONS.get(parse_code(stored_error), DESCRIPTIONS["unrecognised"])
