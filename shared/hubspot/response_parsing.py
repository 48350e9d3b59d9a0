"""Parses one reply of HubSpot into tokens, an Introspection or nothing, or raises the right ProviderError. No I/O.

ERROR_CLASSIFICATION and STATUS_CLASSIFICATION decide what a refusal means. No other code reads a status of HubSpot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any

from shared.domain.errors import (
    AccountMigrating,
    CodeRejected,
    InvalidClient,
    InvalidGrant,
    NoAccessToken,
    ProviderError,
    ScopesRejected,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import UNKNOWN_LIFETIME_SECONDS, Grant, Introspection
from shared.domain.values import immutable
from shared.hubspot import response_fields

#: The meaning of HubSpot's error codes. Its own code (`status`) is looked up first, then OAuth's (`error`), as in
#: {"status": "BAD_REFRESH_TOKEN", "message": …, "error": "invalid_grant", "error_description": …}; only in a reply 4xx.
#: That order matters: HubSpot sends `access_denied` with BAD_HUB, which ends a connection, and with BAD_SCOPES, which
#: does not. A code that is not here is an UnknownRefusal and costs no connection anything. Left out on purpose:
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
    "invalid_client": InvalidClient,
    "unauthorized_client": InvalidClient,
    "unsupported_grant_type": InvalidClient,
    "invalid_scope": InvalidClient,
    # the scopes of the app and of the grant have come apart
    "BAD_SCOPES": ScopesRejected,
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
EXCHANGE_OVERRIDES: Overrides = {InvalidGrant: CodeRejected, ScopesRejected: InvalidClient}
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


@immutable
class Reply:
    """`headers` by names in lower case. `secrets` are those that were sent, because a reply may echo them."""

    http_status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def status_class(self) -> int:
        return self.http_status // 100


@immutable
class IssuedTokens:
    """The fields of a 2xx that can be used; None for the others. At least one of the two tokens is there."""

    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int | None
    hub_id: int | None
    user_id: int | None
    scopes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class AppToken:
    """What acts for the app itself, not for an account."""

    access_token: str = field(repr=False)
    expires_in: int  #: seconds


def parse_refresh(reply: Reply, granted_at: datetime, *, is_user_level: bool = False) -> Grant:
    """The reply to a refresh token. Raises ProviderError: NoAccessToken where only a refresh token came.

    `is_user_level`: the app is. A `user_id` in the reply to another app is that of who installed it, and does not
    identify the connection.
    """
    answer = response_fields.parse_object(reply.body)
    tokens = _parse_tokens(reply, answer, TOKEN_OVERRIDES)
    if tokens.access_token is None:
        facts = _read_facts(reply, answer)
        raise NoAccessToken(
            _describe_missing_token(answer), refresh_token=str(tokens.refresh_token), hub_id=tokens.hub_id, **facts
        )
    return Grant(
        access_token=tokens.access_token,
        expires_in=tokens.expires_in or UNKNOWN_LIFETIME_SECONDS,
        granted_at=granted_at,
        refresh_token=tokens.refresh_token,
        hub_id=tokens.hub_id,
        scopes=tokens.scopes,
        user_id=tokens.user_id if is_user_level else None,
        is_lifetime_known=tokens.expires_in is not None,
    )


def parse_exchange(reply: Reply) -> IssuedTokens:
    """The reply to an authorization code. Raises ProviderError."""
    return _parse_tokens(reply, response_fields.parse_object(reply.body), EXCHANGE_OVERRIDES)


def parse_introspection(reply: Reply) -> Introspection:
    """Raises ProviderError also where `active` is missing: only a plain false may count against a connection."""
    answer = response_fields.parse_object(reply.body)
    _raise_unless_success(reply, answer, TOKEN_OVERRIDES)
    fields = answer or {}
    if not isinstance(active := fields.get("active"), bool):
        raise _make_error(reply, (TemporarilyUnavailable, "no_answer"))
    return Introspection(
        active=active,
        hub_id=response_fields.parse_hub_id(fields.get("hub_id")),
        hub_domain=response_fields.parse_line(fields.get("hub_domain"), 255),
        user=response_fields.parse_line(fields.get("user"), 320),
        user_id=_parse_user_id(fields),
        scopes=response_fields.parse_scopes(fields.get("scopes")),
        expires_in=response_fields.parse_expires_in(fields.get("expires_in")),
    )


def parse_app_token(reply: Reply) -> AppToken:
    """The reply to client credentials. Raises ProviderError: ScopesRejected where the app may not have the scopes."""
    tokens = _parse_tokens(reply, response_fields.parse_object(reply.body), TOKEN_OVERRIDES)
    if tokens.access_token is None:
        raise _make_error(reply, (TemporarilyUnavailable, "no_grant"))
    return AppToken(tokens.access_token, tokens.expires_in or UNKNOWN_LIFETIME_SECONDS)


def parse_json(reply: Reply) -> dict[str, Any] | None:
    """The reply to a call that is not about a token. None: a success without a body. Raises ProviderError."""
    if reply.status_class == SUCCESS and not reply.body.strip():
        return None
    answer = response_fields.parse_object(reply.body)
    _raise_unless_success(reply, answer, TOKEN_OVERRIDES)
    return answer


def parse_empty(reply: Reply) -> None:
    """The reply to a revocation or an uninstall, which may be empty. Raises ProviderError."""
    if reply.body.strip() or reply.status_class != SUCCESS:
        _raise_unless_success(reply, response_fields.parse_object(reply.body), TOKEN_OVERRIDES)


def find_correlation_id(headers: Mapping[str, str], secrets: tuple[str, ...], answer: Mapping[str, Any]) -> str | None:
    """HubSpot's id of a call, for its support: from the headers, else from the object in the body."""
    text = headers.get("x-hubspot-correlation-id") or answer.get("correlationId")
    if isinstance(text, str) and _UUID.fullmatch(text) and not _echoes(text, secrets):
        return text
    return None


def _parse_tokens(reply: Reply, answer: dict[str, Any] | None, overrides: Overrides) -> IssuedTokens:
    """Raises ProviderError where there is neither token.

    A 2xx with a refresh token is read as far as it goes, whatever else is in it: HubSpot may have rotated the token,
    and this is the only copy.
    """
    fields = answer or {}
    if reply.status_class == SUCCESS:
        access_token = response_fields.parse_token(fields.get("access_token"))
        if answer is None:
            refresh_token = response_fields.find_refresh_token(reply.body)
        else:
            refresh_token = response_fields.parse_refresh_token(fields.get("refresh_token"))
        if access_token is not None or refresh_token is not None:
            return IssuedTokens(
                access_token,
                refresh_token,
                expires_in=response_fields.parse_expires_in(fields.get("expires_in")),
                hub_id=response_fields.parse_hub_id(fields.get("hub_id")),
                user_id=response_fields.parse_user_id(fields.get("user_id")),
                scopes=response_fields.parse_scopes(fields.get("scopes")),
            )
    _raise_unless_success(reply, answer, overrides)
    raise _make_error(reply, (TemporarilyUnavailable, _describe_missing_token(answer)), answer)


def _parse_user_id(fields: Mapping[str, Any]) -> int | None:
    """The one of the answer itself, else the one of the access token that it describes."""
    described = fields.get("signed_access_token")
    inner = described.get("userId") if isinstance(described, dict) else None
    return response_fields.parse_user_id(fields.get("user_id")) or response_fields.parse_user_id(inner)


def _describe_missing_token(answer: Mapping[str, Any] | None) -> str:
    """A code for a 2xx without a usable access token."""
    if answer is None:
        return "not_json"
    return "wrong_types" if answer.get("access_token") else "no_grant"


def _raise_unless_success(reply: Reply, answer: dict[str, Any] | None, overrides: Overrides) -> None:
    """Raises what a reply other than a 2xx with a JSON object means."""
    classification = _classify(reply, answer)
    if classification is not None:
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
    return kind(code, **_read_facts(reply, answer))


def _read_facts(reply: Reply, answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """What every ProviderError keeps of a reply."""
    return {
        "http_status": reply.http_status,
        "retry_after": response_fields.parse_retry_after(reply.headers),
        "correlation_id": find_correlation_id(reply.headers, reply.secrets, answer or {}),
    }


def _echoes(text: str, secrets: tuple[str, ...]) -> bool:
    return any(text in secret or secret in text for secret in secrets)
