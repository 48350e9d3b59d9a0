"""One reply of HubSpot's in; a Grant, an Introspection or nothing out, or the right ProviderError. No I/O.

Whose trouble a refusal is stands in BLAME, and nothing else in the project reads a status code.
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
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import Grant, Introspection
from shared.hubspot import response_fields

#: Whose trouble a refusal is. HubSpot's own word (`status`) is looked up first, then OAuth's (`error`), as in
#: {"status": "BAD_REFRESH_TOKEN", "message": …, "error": "invalid_grant", "error_description": …}; it counts with a 4xx
#: status only. What stands nowhere here is an UnknownRefusal and costs no connection anything. On purpose not here:
#: - `invalid_request`: HubSpot says it of an unknown client id, others of a malformed anything;
#: - the text "refresh token was not issued to this client": texts change and decide nothing. HubSpot sends it with
#:   BAD_REFRESH_TOKEN or alone. It may mean that our client id is another app's, and then the brake stops the loss.
ERROR_CLASSIFICATION: Mapping[str, type[ProviderError]] = {
    # this connection is dead
    "BAD_REFRESH_TOKEN": InvalidGrant,
    "BAD_HUB": InvalidGrant,
    "invalid_grant": InvalidGrant,
    "access_denied": InvalidGrant,
    # we are misconfigured: the word speaks of the app
    "BAD_CLIENT_ID": InvalidClient,
    "BAD_CLIENT_SECRET": InvalidClient,
    "BAD_GRANT_TYPE": InvalidClient,
    "BAD_REDIRECT_URI": InvalidClient,
    "BAD_SCOPES": InvalidClient,
    "invalid_client": InvalidClient,
    "unauthorized_client": InvalidClient,
    "unsupported_grant_type": InvalidClient,
    "invalid_scope": InvalidClient,
    # this attempt to install is spent
    "BAD_AUTH_CODE": CodeRejected,
    "EXPIRED_AUTH_CODE": CodeRejected,
    "MISMATCH_REDIRECT_URI": CodeRejected,
    "MISMATCH_REDIRECT_URI_AUTH_CODE": CodeRejected,
    "BAD_CODE_VERIFIER": CodeRejected,
}
Classification = tuple[type[ProviderError], str]
Meaning = Mapping[type[ProviderError], type[ProviderError]]
#: The same word means another thing where a code was sent and there is no connection yet, and where none was sent.
OF_A_CODE: Meaning = {InvalidGrant: CodeRejected}
OF_A_TOKEN: Meaning = {CodeRejected: UnknownRefusal}

#: What is said by the status alone, whatever the body says. Every other 1xx, 3xx and 5xx: TemporarilyUnavailable.
BY_STATUS: Mapping[int, Classification] = {
    408: (TemporarilyUnavailable, "request_timeout"),
    423: (TemporarilyUnavailable, "locked"),
    425: (TemporarilyUnavailable, "too_early"),
    429: (Throttled, "throttled"),
    477: (AccountMigrating, "account_migrating"),
}
#: The first digit of a status.
SUCCESS, REDIRECT, REFUSAL = 2, 3, 4
#: Words of HubSpot's and OAuth's kind. No digits and no long runs: this must not fit a token that a reply echoes.
_WORD = re.compile(r"(?=.{3,50}\Z)(?:[A-Z]{1,20}(?:_[A-Z]{1,20})*|[a-z]{1,20}(?:_[a-z]{1,20})*)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `headers` finds a name in any case; `secrets` are those sent, which a reply may echo."""

    http_status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def parse_refresh(reply: Reply, granted_at: datetime) -> Grant:
    """The answer to a refresh token. Raises ProviderError."""
    return _grant(reply, granted_at, OF_A_TOKEN)


def parse_exchange(reply: Reply, granted_at: datetime) -> Grant:
    """The answer to an authorization code. Raises ProviderError."""
    return _grant(reply, granted_at, OF_A_CODE)


def parse_introspection(reply: Reply) -> Introspection:
    """Raises ProviderError also where `active` is missing: only a plain false may count against a connection."""
    answer = _accepted(reply, OF_A_TOKEN)
    if not isinstance(active := answer.get("active"), bool):
        raise _error(reply, (TemporarilyUnavailable, "no_answer"))
    return Introspection(
        active=active,
        hub_id=_or_none(response_fields.hub_id, answer.get("hub_id")),
        hub_domain=response_fields.line(answer.get("hub_domain"), 255),
        user=response_fields.line(answer.get("user"), 320),
        scopes=_or_none(response_fields.scopes, answer.get("scopes")),
    )


def parse_empty(reply: Reply) -> None:
    """The answer to a revocation or an uninstall: an empty one will do. Raises ProviderError."""
    if reply.body.strip() or _family(reply) != SUCCESS:
        _accepted(reply, OF_A_TOKEN)


def find_correlation_id(headers: Mapping[str, str], secrets: tuple[str, ...], answer: Mapping[str, Any]) -> str | None:
    """By it HubSpot's support finds a call: of the reply's headers, else of the object in its body."""
    text = headers.get("x-hubspot-correlation-id") or answer.get("correlationId")
    if isinstance(text, str) and _UUID.fullmatch(text) and not _echoed(text, secrets):
        return text
    return None


def _grant(reply: Reply, granted_at: datetime, meaning: Meaning) -> Grant:
    answer = _accepted(reply, meaning)
    try:
        return Grant(
            access_token=response_fields.access_token(answer.get("access_token")),
            expires_in=response_fields.expires_in(answer.get("expires_in")),
            granted_at=granted_at,
            refresh_token=response_fields.refresh_token(answer.get("refresh_token")),
            hub_id=response_fields.hub_id(answer.get("hub_id")),
            scopes=response_fields.scopes(answer.get("scopes")),
        )
    except response_fields.Malformed as error:
        why = str(error)
    raise _error(reply, (TemporarilyUnavailable, why))


def _accepted(reply: Reply, meaning: Meaning) -> dict[str, Any]:
    """The object in the body of a 2xx; any other reply raises what it means."""
    answer = response_fields.object_in(reply.body)
    verdict = _verdict(reply, answer)
    if verdict is None:
        return answer or {}
    kind, word = verdict
    raise _error(reply, (meaning.get(kind, kind), word), answer)


def _verdict(reply: Reply, answer: dict[str, Any] | None) -> Classification | None:
    """None for a 2xx with an object in its body."""
    family = _family(reply)
    if _migrating(answer or {}):
        return AccountMigrating, "migration_in_progress"
    if reply.http_status in BY_STATUS:
        return BY_STATUS[reply.http_status]
    if family not in (SUCCESS, REFUSAL):
        return TemporarilyUnavailable, "redirect" if family == REDIRECT else "server_error"
    if family == REFUSAL and (blamed := _blamed(reply, answer or {})):
        return blamed
    if answer is None:
        # HTML from a proxy under any code, also under a 403, is the way to HubSpot being ill.
        return TemporarilyUnavailable, response_fields.not_an_object(reply.body)
    return (UnknownRefusal, _unknown_word(reply, answer)) if family == REFUSAL else None


def _blamed(reply: Reply, answer: dict[str, Any]) -> Classification | None:
    for name in ("status", "error"):
        word = answer.get(name)
        if isinstance(word, str) and word in ERROR_CLASSIFICATION:
            return ERROR_CLASSIFICATION[word], word
    if reply.http_status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return InvalidClient, "unsupported_media_type"  # we ask in the wrong way, whatever the body says
    return None


def _unknown_word(reply: Reply, answer: dict[str, Any]) -> str:
    for name in ("status", "error", "category", "errorType"):
        word = answer.get(name)
        # {"status": "error"} is what HubSpot's other APIs say of everything.
        if isinstance(word, str) and word != "error" and _WORD.fullmatch(word) and not _echoed(word, reply.secrets):
            return word
    return "unrecognised"


def _error(reply: Reply, verdict: Classification, answer: dict[str, Any] | None = None) -> ProviderError:
    kind, word = verdict
    return kind(
        word,
        http_status=reply.http_status,
        retry_after=response_fields.retry_after(reply.headers),
        correlation_id=find_correlation_id(reply.headers, reply.secrets, answer or {}),
    )


def _family(reply: Reply) -> int:
    return reply.http_status // 100


def _migrating(answer: dict[str, Any]) -> bool:
    texts = (answer.get("message"), answer.get("error_description"))
    return any(isinstance(text, str) and "migration in progress" in text.lower() for text in texts)


def _echoed(text: str, secrets: tuple[str, ...]) -> bool:
    return any(text in secret or secret in text for secret in secrets)


def _or_none(read: Any, value: Any) -> Any:
    try:
        return read(value)
    except response_fields.Malformed:
        return None
