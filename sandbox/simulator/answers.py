"""HubSpot's answers: the grant, the refusals with their four fields, and the ordinary API's errors."""

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
    """What goes back. `outcome` is its name in the statistics."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    outcome: str = "ok"

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        return replace(self, headers=(*self.headers, *headers))

    def fields(self) -> dict[str, Any]:
        """The JSON object in the body; empty where there is none."""
        if self.content_type != JSON_TYPE or not self.body:
            return {}
        found = json.loads(self.body)
        return found if isinstance(found, dict) else {}

    def with_fields(self, **changes: Any) -> Answer:
        return replace(self, body=_packed({**self.fields(), **changes}))


class Refused(Exception):
    """The request ends here, with that refusal of the table."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: str
    message: str
    described: bool = True  #: whether `error_description` was seen beside the other three


#: All are HTTP 400. `status`, and the messages of BAD_REFRESH_TOKEN, BAD_HUB, BAD_CLIENT_ID and BAD_AUTH_CODE, are
#: HubSpot's; the texts of the others are not known and are ours.
REFUSALS = {
    "BAD_REFRESH_TOKEN": _Refusal("invalid_grant", "refresh token is invalid, expired or revoked"),
    "BAD_HUB": _Refusal("access_denied", "missing or unknown hub id", described=False),
    "BAD_CLIENT_ID": _Refusal("invalid_request", "missing or unknown client id"),
    "BAD_CLIENT_SECRET": _Refusal("invalid_client", "missing or invalid client secret"),
    "BAD_AUTH_CODE": _Refusal("invalid_grant", "missing or unknown auth code"),
    "EXPIRED_AUTH_CODE": _Refusal("invalid_grant", "auth code is expired"),
    "MISMATCH_REDIRECT_URI_AUTH_CODE": _Refusal("invalid_grant", "redirect uri does not match the auth code's"),
    "BAD_REDIRECT_URI": _Refusal("invalid_request", "missing or invalid redirect uri"),
    "BAD_CODE_VERIFIER": _Refusal("invalid_grant", "code verifier does not match"),
    "BAD_GRANT_TYPE": _Refusal("unsupported_grant_type", "missing or unknown grant type"),
    "BAD_SCOPES": _Refusal("invalid_scope", "missing or invalid scopes"),
    # no such word is known of HubSpot: what a client does with one that stands in no table
    "UNKNOWN_REFUSAL": _Refusal("no_such_word_in_any_table", "Your request has been declined."),
}


def ok(fields: dict[str, Any]) -> Answer:
    return Answer(200, _packed(fields))


def refusal(status: str, *, legacy: bool = False, bad_client_id_error: str = "invalid_request") -> Answer:
    """The body of HubSpot's token endpoint since January 2026; `legacy`: the one before."""
    entry = REFUSALS[status]
    fields = {"status": status, "message": entry.message}
    if not legacy:
        fields["error"] = bad_client_id_error if status == "BAD_CLIENT_ID" else entry.error
        if entry.described:
            fields["error_description"] = entry.message
    return Answer(400, _packed(fields), outcome=status)


def http_error(status: int, retry_after: str | None = None) -> Answer:
    """A generic error of HubSpot's gateway, as JSON."""
    message, more = _SAYINGS.get(status, (_phrase(status), {}))
    fields = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), **more}
    answer = Answer(status, _packed(fields), outcome=f"http_{status}")
    return answer if retry_after is None else answer.with_headers(("Retry-After", retry_after))


def unauthorized(message: str, category: str, **more: Any) -> Answer:
    """The ordinary API's answer to a bearer token that is no good."""
    fields = {
        "status": "error",
        "message": message,
        "correlationId": str(uuid.uuid4()),
        "category": category,
        **more,
    }
    failure = ("x-hubspot-auth-failure", "401 Unauthorized")
    return Answer(401, _packed(fields), headers=(failure,), outcome=category)


def html(status: int) -> Answer:
    """What the network in front of HubSpot shows to people, for whatever reason."""
    phrase = _phrase(status)
    page = f"<!DOCTYPE html><html><head><title>{phrase}</title></head><body><h1>{phrase}</h1></body></html>"
    return Answer(status, page.encode(), HTML_TYPE, outcome=f"html_{status}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"


def _packed(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


_SAYINGS: dict[int, tuple[str, dict[str, str]]] = {
    423: ("The record is locked by another sync.", {"category": "LOCKED"}),
    429: ("You have reached your rate limit.", {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}),
    477: ("Migration in progress and the portal is not available for access.", {"category": "MIGRATION"}),
}  # fmt: skip
