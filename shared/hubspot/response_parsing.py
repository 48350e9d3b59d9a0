"""Parses one reply of HubSpot into a Grant, an Introspection or nothing, or raises the right ProviderError. No I/O.

ERROR_CLASSIFICATION and STATUS_CLASSIFICATION decide what a refusal means. No other code reads a status of HubSpot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from shared.domain.errors import (
    AccountMigrating,
    CodeRejected,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import Grant, Introspection
from shared.hubspot import response_fields

T = TypeVar("T")

#: The meaning of HubSpot's error codes. Its own code (`status`) is looked up first, then OAuth's (`error`), as in
#: {"status": "BAD_REFRESH_TOKEN", "message": …, "error": "invalid_grant", "error_description": …}; only in a reply 4xx.
#: A code that is not here is an UnknownRefusal and costs no connection anything. Left out on purpose:
#: - `invalid_request`: HubSpot sends it for an unknown client id, other servers for anything malformed;
#: - the message "refresh token was not issued to this client": HubSpot sends it with BAD_REFRESH_TOKEN or alone, and a
#:   text may change. It may mean that our client id is another app's; then the revocation brake limits the loss.
ERROR_CLASSIFICATION: Mapping[str, type[ProviderError]] = {
    # HubSpot rejects the refresh token
    "BAD_REFRESH_TOKEN": InvalidGrant,
    "BAD_HUB": InvalidGrant,
    "invalid_grant": InvalidGrant,
    "access_denied": InvalidGrant,
    # our app is misconfigured: the code names a property of the app
    "BAD_CLIENT_ID": InvalidClient,
    "BAD_CLIENT_SECRET": InvalidClient,
    "BAD_GRANT_TYPE": InvalidClient,
    "BAD_REDIRECT_URI": InvalidClient,
    "BAD_SCOPES": InvalidClient,
    "invalid_client": InvalidClient,
    "unauthorized_client": InvalidClient,
    "unsupported_grant_type": InvalidClient,
    "invalid_scope": InvalidClient,
    # this attempt to install has failed
    "BAD_AUTH_CODE": CodeRejected,
    "EXPIRED_AUTH_CODE": CodeRejected,
    "MISMATCH_REDIRECT_URI": CodeRejected,
    "MISMATCH_REDIRECT_URI_AUTH_CODE": CodeRejected,
    "BAD_CODE_VERIFIER": CodeRejected,
}
Classification = tuple[type[ProviderError], str]
Overrides = Mapping[type[ProviderError], type[ProviderError]]
#: What a code means in the reply to an authorization code, before there is a connection, and to a token.
EXCHANGE_OVERRIDES: Overrides = {InvalidGrant: CodeRejected}
TOKEN_OVERRIDES: Overrides = {CodeRejected: UnknownRefusal}

#: The meaning of statuses, whatever the body says. Every other 1xx, 3xx and 5xx is TemporarilyUnavailable.
STATUS_CLASSIFICATION: Mapping[int, Classification] = {
    408: (TemporarilyUnavailable, "request_timeout"),
    423: (TemporarilyUnavailable, "locked"),
    425: (TemporarilyUnavailable, "too_early"),
    429: (Throttled, "throttled"),
    477: (AccountMigrating, "account_migrating"),
}
#: The first digit of a status.
SUCCESS, REDIRECT, REFUSAL = 2, 3, 4
#: The form of HubSpot's and OAuth's codes. No digits and no long runs, so that no token that a reply echoes matches.
_CODE = re.compile(r"(?=.{3,50}\Z)(?:[A-Z]{1,20}(?:_[A-Z]{1,20})*|[a-z]{1,20}(?:_[a-z]{1,20})*)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` finds a name in any case. `secrets` are those that were sent, because a reply may echo them."""

    http_status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def status_class(self) -> int:
        return self.http_status // 100


def parse_refresh(reply: Reply, granted_at: datetime) -> Grant:
    """The reply to a refresh token. Raises ProviderError."""
    return _parse_grant(reply, granted_at, TOKEN_OVERRIDES)


def parse_exchange(reply: Reply, granted_at: datetime) -> Grant:
    """The reply to an authorization code. Raises ProviderError."""
    return _parse_grant(reply, granted_at, EXCHANGE_OVERRIDES)


def parse_introspection(reply: Reply) -> Introspection:
    """Raises ProviderError also where `active` is missing: only a plain false may count against a connection."""
    answer = _require_success(reply, TOKEN_OVERRIDES)
    if not isinstance(active := answer.get("active"), bool):
        raise _make_error(reply, (TemporarilyUnavailable, "no_answer"))
    return Introspection(
        active=active,
        hub_id=_none_if_malformed(response_fields.parse_hub_id, answer.get("hub_id")),
        hub_domain=response_fields.parse_line(answer.get("hub_domain"), 255),
        user=response_fields.parse_line(answer.get("user"), 320),
        scopes=_none_if_malformed(response_fields.parse_scopes, answer.get("scopes")),
    )


def parse_empty(reply: Reply) -> None:
    """The reply to a revocation or an uninstall, which may be empty. Raises ProviderError."""
    if reply.body.strip() or reply.status_class != SUCCESS:
        _require_success(reply, TOKEN_OVERRIDES)


def find_correlation_id(headers: Mapping[str, str], secrets: tuple[str, ...], answer: Mapping[str, Any]) -> str | None:
    """HubSpot's id of a call, for its support: from the headers, else from the object in the body."""
    text = headers.get("x-hubspot-correlation-id") or answer.get("correlationId")
    if isinstance(text, str) and _UUID.fullmatch(text) and not _echoes(text, secrets):
        return text
    return None


def _parse_grant(reply: Reply, granted_at: datetime, overrides: Overrides) -> Grant:
    answer = _require_success(reply, overrides)
    try:
        return Grant(
            access_token=response_fields.parse_access_token(answer.get("access_token")),
            expires_in=response_fields.parse_expires_in(answer.get("expires_in")),
            granted_at=granted_at,
            refresh_token=response_fields.parse_refresh_token(answer.get("refresh_token")),
            hub_id=response_fields.parse_hub_id(answer.get("hub_id")),
            scopes=response_fields.parse_scopes(answer.get("scopes")),
        )
    except response_fields.MalformedField as error:
        code = str(error)
    # Raised outside of the `except`, so that the caught error and the fields in it are not its context.
    raise _make_error(reply, (TemporarilyUnavailable, code))


def _require_success(reply: Reply, overrides: Overrides) -> dict[str, Any]:
    """The JSON object of a 2xx. Raises what any other reply means."""
    answer = response_fields.parse_object(reply.body)
    classification = _classify(reply, answer)
    if classification is None:
        return answer or {}
    kind, code = classification
    raise _make_error(reply, (overrides.get(kind, kind), code), answer)


def _classify(reply: Reply, answer: dict[str, Any] | None) -> Classification | None:
    """None for a 2xx with a JSON object."""
    texts = [(answer or {}).get("message"), (answer or {}).get("error_description")]
    if any(isinstance(text, str) and "migration in progress" in text.lower() for text in texts):
        return AccountMigrating, "migration_in_progress"
    if reply.http_status in STATUS_CLASSIFICATION:
        return STATUS_CLASSIFICATION[reply.http_status]
    if reply.status_class not in (SUCCESS, REFUSAL):
        return TemporarilyUnavailable, "redirect" if reply.status_class == REDIRECT else "server_error"
    if reply.status_class == REFUSAL and (known := _find_known_code(reply, answer or {})):
        return known
    if answer is None:
        # HTML comes from a proxy in between, under a 403 as well.
        return TemporarilyUnavailable, response_fields.classify_body(reply.body)
    return (UnknownRefusal, _find_unknown_code(reply, answer)) if reply.status_class == REFUSAL else None


def _find_known_code(reply: Reply, answer: dict[str, Any]) -> Classification | None:
    for name in ("status", "error"):
        code = answer.get(name)
        if isinstance(code, str) and code in ERROR_CLASSIFICATION:
            return ERROR_CLASSIFICATION[code], code
    if reply.http_status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return InvalidClient, "unsupported_media_type"  # the form of our request is wrong, whatever the body says
    return None


def _find_unknown_code(reply: Reply, answer: dict[str, Any]) -> str:
    for name in ("status", "error", "category", "errorType"):
        code = answer.get(name)
        # HubSpot's other APIs answer {"status": "error"} to everything.
        if isinstance(code, str) and code != "error" and _CODE.fullmatch(code) and not _echoes(code, reply.secrets):
            return code
    return "unrecognised"


def _make_error(reply: Reply, classification: Classification, answer: Mapping[str, Any] | None = None) -> ProviderError:
    kind, code = classification
    return kind(
        code,
        http_status=reply.http_status,
        retry_after=response_fields.parse_retry_after(reply.headers),
        correlation_id=find_correlation_id(reply.headers, reply.secrets, answer or {}),
    )


def _echoes(text: str, secrets: tuple[str, ...]) -> bool:
    return any(text in secret or secret in text for secret in secrets)


def _none_if_malformed(parse: Callable[[Any], T], value: Any) -> T | None:
    try:
        return parse(value)
    except response_fields.MalformedField:
        return None
