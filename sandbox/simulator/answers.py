"""HubSpot's answers: grants, refusals of the token endpoint, and errors of its gateway and its API."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

JSON_TYPE = "application/json;charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply. `outcome` is its name in the statistics."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    outcome: str = "ok"

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        return replace(self, headers=(*self.headers, *headers))

    def parse_fields(self) -> dict[str, Any]:
        """The JSON object in the body; empty where there is none."""
        if self.content_type != JSON_TYPE or not self.body:
            return {}
        value = json.loads(self.body)
        return value if isinstance(value, dict) else {}

    def with_fields(self, **changes: Any) -> Answer:
        return replace(self, body=_dump({**self.parse_fields(), **changes}))


class Refused(Exception):
    """The request is answered with this refusal of `REFUSALS`."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: str
    message: str
    has_description: bool = True  #: whether HubSpot was seen to send `error_description`
    http_status: int = 400


#: `status`, and the messages of BAD_REFRESH_TOKEN, BAD_HUB, BAD_CLIENT_ID, BAD_AUTH_CODE and BAD_SCOPES, are
#: HubSpot's; the texts of the others are invented.
REFUSALS = {
    "BAD_REFRESH_TOKEN": _Refusal("invalid_grant", "refresh token is invalid, expired or revoked"),
    "BAD_HUB": _Refusal("access_denied", "missing or unknown hub id", has_description=False),
    "BAD_CLIENT_ID": _Refusal("invalid_request", "missing or unknown client id"),
    "BAD_CLIENT_SECRET": _Refusal("invalid_client", "missing or invalid client secret"),
    "BAD_AUTH_CODE": _Refusal("invalid_grant", "missing or unknown auth code"),
    "EXPIRED_AUTH_CODE": _Refusal("invalid_grant", "auth code is expired"),
    "MISMATCH_REDIRECT_URI_AUTH_CODE": _Refusal("invalid_grant", "redirect uri does not match the auth code's"),
    "BAD_REDIRECT_URI": _Refusal("invalid_request", "missing or invalid redirect uri"),
    "BAD_CODE_VERIFIER": _Refusal("invalid_grant", "code verifier does not match"),
    "BAD_GRANT_TYPE": _Refusal("unsupported_grant_type", "missing or unknown grant type"),
    "BAD_SCOPES": _Refusal("access_denied", "missing or invalid scopes", has_description=False, http_status=403),
    "USER_LEVEL_CLIENT_CREDENTIALS_NOT_SUPPORTED": _Refusal("unauthorized_client", "the app is a user-level one"),
    # HubSpot is not known to send this one: it tests how a client treats a code that it does not know
    "UNKNOWN_REFUSAL": _Refusal("no_such_word_in_any_table", "Your request has been declined."),
}


def make_ok(fields: dict[str, Any]) -> Answer:
    return Answer(200, _dump(fields))


def make_refusal(status: str, *, legacy: bool = False, bad_client_id_error: str = "invalid_request") -> Answer:
    """As HubSpot's token endpoint answers since January 2026; `legacy`: as before."""
    entry = REFUSALS[status]
    fields = {"status": status, "message": entry.message}
    if not legacy:
        fields["error"] = bad_client_id_error if status == "BAD_CLIENT_ID" else entry.error
        if entry.has_description:
            fields["error_description"] = entry.message
    return Answer(entry.http_status, _dump(fields), outcome=status)


def make_http_error(status: int, retry_after: str | None = None) -> Answer:
    """A generic error of HubSpot's gateway, as JSON."""
    message, extra = _HTTP_ERROR_TEXTS.get(status, (_find_phrase(status), {}))
    fields = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), **extra}
    answer = Answer(status, _dump(fields), outcome=f"http_{status}")
    return answer if retry_after is None else answer.with_headers(("Retry-After", retry_after))


def make_unauthorized(message: str, category: str, **extra: Any) -> Answer:
    """HubSpot's API refuses a bearer token."""
    fields = {
        "status": "error",
        "message": message,
        "correlationId": str(uuid.uuid4()),
        "category": category,
        **extra,
    }
    header = ("x-hubspot-auth-failure", "401 Unauthorized")
    return Answer(401, _dump(fields), headers=(header,), outcome=category)


def make_api_error(status: int, message: str, category: str) -> Answer:
    """HubSpot's API refuses a request, for the reason that `message` and `category` give."""
    fields = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), "category": category}
    return Answer(status, _dump(fields), outcome=category)


def make_missing_scopes(*scopes: str) -> Answer:
    """HubSpot's API refuses a live token that lacks scopes."""
    fields = {
        "status": "error",
        "message": "This app hasn't been granted all required scopes to make this call. Read more about required "
        "scopes here: https://developers.hubspot.com/scopes.",
        "correlationId": str(uuid.uuid4()),
        "errors": [
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": list(scopes)},
            }
        ],
        "links": {"scopes": "https://developers.hubspot.com/scopes"},
        "category": "MISSING_SCOPES",
    }
    return Answer(403, _dump(fields), outcome="MISSING_SCOPES")


def make_html(status: int) -> Answer:
    """An HTML page, such as a proxy in front of HubSpot sends."""
    phrase = _find_phrase(status)
    page = f"<!DOCTYPE html><html><head><title>{phrase}</title></head><body><h1>{phrase}</h1></body></html>"
    return Answer(status, page.encode(), HTML_TYPE, outcome=f"html_{status}")


def _find_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


_HTTP_ERROR_TEXTS: dict[int, tuple[str, dict[str, str]]] = {
    423: ("The record is locked by another sync.", {"category": "LOCKED"}),
    429: ("You have reached your rate limit.", {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}),
    477: ("Migration in progress and the portal is not available for access.", {"category": "MIGRATION"}),
}  # fmt: skip
