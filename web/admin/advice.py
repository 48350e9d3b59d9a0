"""What each status means, and what an operator can do about a connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.reports.connections import ConnectionRow
from shared.domain.brake import HELD_REASON
from shared.domain.connection import Status
from shared.domain.provider import DESCRIPTIONS, Condition, Provider
from web.admin.error_descriptions import ACCOUNT_MIGRATION_CODES, APP_SETTINGS_CODES, is_known, parse_code

#: An unknown refusal is worth a question to HubSpot's support after so many failures in a row.
UNKNOWN_REFUSAL_FAILURES = 5

STATUS_DESCRIPTIONS = {
    Status.ACTIVE: "It is refreshed on schedule, and its token is served.",
    Status.SUSPECT: "HubSpot refused its refresh token once. Its token is served until it expires, while HubSpot is "
    "asked again.",
    Status.REVOKED: "HubSpot ended it: a refresh and an introspection both say so. No token is served.",
    Status.DISCONNECTED: "It was disconnected here. No token is served.",
}
#: Below the number of connections that have the status.
COUNT_DESCRIPTIONS = {
    Status.ACTIVE: "Each is refreshed on schedule, and its token is served.",
    Status.SUSPECT: "HubSpot refused the refresh token of each once. Each token is served until it expires, while "
    "HubSpot is asked again.",
    Status.REVOKED: "HubSpot ended each: a refresh and an introspection both say so. No token is served.",
    Status.DISCONNECTED: "Each was disconnected here. No token is served.",
}


@dataclass(frozen=True, slots=True)
class Advice:
    title: str
    text: str
    shows_install_link: bool = False  #: the customer can solve it by installing the app again


DISCONNECTED = Advice(
    "Nothing, unless it is wanted again",
    "To connect it again, the customer installs the app again. Send them this link; it leads to their account.",
    shows_install_link=True,
)
REVOKED = Advice(
    "Ask the customer to install the app again",
    "The app was removed from the account, or HubSpot ended its access. Send the customer this link; it leads to "
    "their account. If HubSpot was wrong, “Refresh now” tries the old refresh token once more. If the customer does "
    "not come back, disconnect.",
    shows_install_link=True,
)
WRONG_HUB = Advice(
    "Correct the import",
    "The refresh token that was imported for this account belongs to another account. Import the right one, or send "
    "the customer this link to install the app again.",
    shows_install_link=True,
)
HELD_BY_BRAKE = Advice(
    "Decide for all of them on the overview",
    "HubSpot refused the refresh tokens of very many connections at once, so the revocation brake holds them as "
    "suspect. Find out whether HubSpot is right, then confirm or dismiss on the overview.",
)
APP_REJECTED = Advice("Check the app's settings", str(DESCRIPTIONS[Condition.APP_REJECTED]))
CONSENT_AGAIN = Advice(
    "Ask the customer to install the app again",
    "HubSpot rejects the scopes of its grant: the app's scopes have changed since, or the account's plan has. Send the "
    "customer this link; it leads to their account, and the new consent resolves it. Until then it is tried again at "
    "least every 15 minutes.",
    shows_install_link=True,
)
MISSING_KEY = Advice(
    "Add the missing key to TOKEN_KEYS",
    "Its refresh token is encrypted with a key that is not in TOKEN_KEYS. Add that key and restart worker and web: "
    "refreshes then resume by themselves. If the key is lost, send the customer this link to install the app again.",
    shows_install_link=True,
)
UNKNOWN_REFUSAL = Advice(
    "Ask HubSpot's support, if it continues",
    "HubSpot refuses with a code that this version does not know. It is tried again at least every 15 minutes. "
    "HubSpot's support can look it up by the correlation id in the history below.",
)
SUSPECT = Advice(
    "Nothing yet",
    "HubSpot's token endpoint and its introspection are both asked again. If both say that the refresh token is not "
    "valid, the connection becomes revoked. If one of them accepts it, refreshes continue.",
)
PROVIDER_UNAVAILABLE = Advice("Nothing", str(DESCRIPTIONS[Condition.UNAVAILABLE]))
PROVIDER_THROTTLED = Advice("Nothing", str(DESCRIPTIONS[Condition.THROTTLED]))
ACCOUNT_MIGRATION = Advice(
    "Nothing", "HubSpot is moving the account and says how long the move takes. It is tried again then."
)
RETRYING = Advice(
    "Nothing",
    "It is tried again automatically: after a few seconds at first, then after longer and longer pauses of at most "
    "15 minutes.",
)
FIRST_TOKEN = Advice("Nothing", "Its first token is fetched with the next sweep.")
HEALTHY = Advice("Nothing", "It is refreshed well before its token expires, for as long as the app is installed.")


def advise(connection: ConnectionRow, provider: Provider) -> Advice:
    """The first that applies: what the operator or the customer has to do, else what happens without them."""
    code = parse_code(connection.last_error or "")
    is_failing = connection.failures > 0
    rules = (
        (connection.status is Status.DISCONNECTED, DISCONNECTED),
        (connection.status is Status.REVOKED, REVOKED),
        (connection.status_reason == HELD_REASON, HELD_BY_BRAKE),
        (provider.condition is Condition.APP_REJECTED, APP_REJECTED),
        (code in APP_SETTINGS_CODES, APP_REJECTED),
        (code in ("another_hub", "another_user"), WRONG_HUB),
        (code == "BAD_SCOPES", CONSENT_AGAIN),
        (code == "decryption_failed", MISSING_KEY),
        (connection.failures >= UNKNOWN_REFUSAL_FAILURES and not is_known(code), UNKNOWN_REFUSAL),
        (connection.status is Status.SUSPECT, SUSPECT),
        (provider.condition is Condition.UNAVAILABLE, PROVIDER_UNAVAILABLE),
        (provider.condition is Condition.THROTTLED, PROVIDER_THROTTLED),
        (is_failing and code in ACCOUNT_MIGRATION_CODES, ACCOUNT_MIGRATION),
        (is_failing, RETRYING),
        (connection.expires_at is None, FIRST_TOKEN),
    )
    return next((advice for applies, advice in rules if applies), HEALTHY)
