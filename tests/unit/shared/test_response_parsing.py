"""Every reply of HubSpot, and the result or error that it becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from shared.domain.errors import (
    AccountMigrating,
    CodeRejected,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    ScopesRejected,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import Grant, Introspection
from shared.hubspot.response_parsing import (
    ERROR_CLASSIFICATION,
    TOKEN_OVERRIDES,
    IssuedTokens,
    Reply,
    find_correlation_id,
    parse_app_token,
    parse_empty,
    parse_exchange,
    parse_introspection,
    parse_refresh,
)
from shared.hubspot.transport import Call
from shared.net.http_call import Endpoint

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SECRET = "na1-12ab-34cd-56ef-SECRET"
CORRELATION_ID = "aeb5f871-7f07-4993-9211-075dc63e7cbf"
GOOD = {
    "token_type": "bearer",
    "refresh_token": "na1-aaaa-bbbb",
    "access_token": "CIaccess",
    "hub_id": 62515,
    "scopes": ["oauth", "crm.objects.contacts.read"],
    "expires_in": 1800,
    "token_use": "access_token",
}
DEAD_TEXT = "refresh token is invalid, expired or revoked"
FOREIGN_TEXT = "refresh token was not issued to this client"
MOVING_TEXT = "Migration in progress and the portal is not available for access."
HTML = b"<!DOCTYPE html><title>Just a moment</title>"


def a_reply(status: int, body: Any = b"", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, CaseInsensitiveDict(names), raw, secrets=(SECRET,))


def the_error(reply: Reply, read: Any = parse_refresh) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read(reply, NOW) if read is parse_refresh else read(reply)
    return caught.value


def refusal(status: str | None = None, error: str | None = None, message: str | None = None) -> dict[str, str]:
    fields = {"status": status, "message": message, "error": error, "error_description": message}
    return {name: value for name, value in fields.items() if value is not None}


# (what it is, HTTP status, body, error after a refresh, error after an exchange, code)
REFUSALS: list[tuple[str, int, Any, type[ProviderError], type[ProviderError], str]] = [
    (
        "dead",
        400,
        refusal("BAD_REFRESH_TOKEN", "invalid_grant", DEAD_TEXT),
        InvalidGrant,
        CodeRejected,
        "BAD_REFRESH_TOKEN",
    ),
    (
        "dead, as of old",
        400,
        refusal("BAD_REFRESH_TOKEN", None, DEAD_TEXT),
        InvalidGrant,
        CodeRejected,
        "BAD_REFRESH_TOKEN",
    ),
    ("dead under 401", 401, refusal("BAD_REFRESH_TOKEN"), InvalidGrant, CodeRejected, "BAD_REFRESH_TOKEN"),
    ("dead under 404", 404, refusal("BAD_REFRESH_TOKEN"), InvalidGrant, CodeRejected, "BAD_REFRESH_TOKEN"),
    ("dead in OAuth's words", 400, refusal(None, "invalid_grant"), InvalidGrant, CodeRejected, "invalid_grant"),
    ("dead, generic status", 400, refusal("error", "invalid_grant"), InvalidGrant, CodeRejected, "invalid_grant"),
    (
        "dead, status a number",
        400,
        {"status": 400, "error": "invalid_grant"},
        InvalidGrant,
        CodeRejected,
        "invalid_grant",
    ),
    ("no such portal", 400, refusal("BAD_HUB", "access_denied"), InvalidGrant, CodeRejected, "BAD_HUB"),
    ("denied", 403, refusal(None, "access_denied"), InvalidGrant, CodeRejected, "access_denied"),
    ("client id", 400, refusal("BAD_CLIENT_ID", "invalid_request"), InvalidClient, InvalidClient, "BAD_CLIENT_ID"),
    (
        "client id, otherwise",
        400,
        refusal("BAD_CLIENT_ID", "invalid_client"),
        InvalidClient,
        InvalidClient,
        "BAD_CLIENT_ID",
    ),
    ("secret", 400, refusal("BAD_CLIENT_SECRET", "invalid_grant"), InvalidClient, InvalidClient, "BAD_CLIENT_SECRET"),
    ("secret, in OAuth's words", 401, refusal(None, "invalid_client"), InvalidClient, InvalidClient, "invalid_client"),
    ("client", 400, refusal(None, "unauthorized_client"), InvalidClient, InvalidClient, "unauthorized_client"),
    ("grant type", 400, refusal("BAD_GRANT_TYPE"), InvalidClient, InvalidClient, "BAD_GRANT_TYPE"),
    (
        "grant type, OAuth",
        400,
        refusal(None, "unsupported_grant_type"),
        InvalidClient,
        InvalidClient,
        "unsupported_grant_type",
    ),
    ("redirect", 400, refusal("BAD_REDIRECT_URI"), InvalidClient, InvalidClient, "BAD_REDIRECT_URI"),
    ("scopes", 400, refusal("BAD_SCOPES"), ScopesRejected, InvalidClient, "BAD_SCOPES"),
    (
        "scopes, as seen in June 2026",
        403,
        refusal("BAD_SCOPES", "access_denied", "missing or invalid scopes"),
        ScopesRejected,
        InvalidClient,
        "BAD_SCOPES",
    ),
    ("scope, in OAuth's words", 400, refusal(None, "invalid_scope"), InvalidClient, InvalidClient, "invalid_scope"),
    ("not a form", 415, b"", InvalidClient, InvalidClient, "unsupported_media_type"),
    ("not a form, in HTML", 415, HTML, InvalidClient, InvalidClient, "unsupported_media_type"),
    ("not a form, in JSON", 415, refusal("error"), InvalidClient, InvalidClient, "unsupported_media_type"),
    ("code", 400, refusal("BAD_AUTH_CODE", "invalid_grant"), UnknownRefusal, CodeRejected, "BAD_AUTH_CODE"),
    ("old code", 400, refusal("EXPIRED_AUTH_CODE", "invalid_grant"), UnknownRefusal, CodeRejected, "EXPIRED_AUTH_CODE"),
    ("other redirect", 400, refusal("MISMATCH_REDIRECT_URI"), UnknownRefusal, CodeRejected, "MISMATCH_REDIRECT_URI"),
    (
        "other redirect, in full",
        400,
        refusal("MISMATCH_REDIRECT_URI_AUTH_CODE"),
        UnknownRefusal,
        CodeRejected,
        "MISMATCH_REDIRECT_URI_AUTH_CODE",
    ),
    ("verifier", 400, refusal("BAD_CODE_VERIFIER"), UnknownRefusal, CodeRejected, "BAD_CODE_VERIFIER"),
    ("ambiguous", 400, refusal(None, "invalid_request"), UnknownRefusal, UnknownRefusal, "invalid_request"),
    ("new word", 400, refusal("BAD_MOOD"), UnknownRefusal, UnknownRefusal, "BAD_MOOD"),
    ("another app's, text alone", 400, {"message": FOREIGN_TEXT}, UnknownRefusal, UnknownRefusal, "unrecognised"),
    ("unknown 401", 401, {}, UnknownRefusal, UnknownRefusal, "unrecognised"),
    ("unknown 403", 403, {"category": "MISSING_SCOPES"}, UnknownRefusal, UnknownRefusal, "MISSING_SCOPES"),
    ("echoed token", 400, refusal(SECRET, SECRET, SECRET), UnknownRefusal, UnknownRefusal, "unrecognised"),
    ("two lines", 400, refusal("BAD\nMOOD"), UnknownRefusal, UnknownRefusal, "unrecognised"),
    ("long word", 400, refusal("A" * 60), UnknownRefusal, UnknownRefusal, "unrecognised"),
    (
        "words of another type",
        400,
        {"status": ["BAD_HUB"], "error": {}},
        UnknownRefusal,
        UnknownRefusal,
        "unrecognised",
    ),
    ("throttled", 429, {"message": "You have reached your rate limit."}, Throttled, Throttled, "throttled"),
    ("throttled, whatever it says", 429, refusal("BAD_REFRESH_TOKEN"), Throttled, Throttled, "throttled"),
    ("throttled in HTML", 429, HTML, Throttled, Throttled, "throttled"),
    ("moving", 477, b"", AccountMigrating, AccountMigrating, "account_migrating"),
    (
        "moving under 400",
        400,
        refusal("BAD_HUB", None, MOVING_TEXT),
        AccountMigrating,
        AccountMigrating,
        "migration_in_progress",
    ),
    ("moving under 200", 200, {"message": MOVING_TEXT}, AccountMigrating, AccountMigrating, "migration_in_progress"),
    (
        "moving under 503",
        503,
        {"error_description": MOVING_TEXT},
        AccountMigrating,
        AccountMigrating,
        "migration_in_progress",
    ),
    ("locked", 423, b"", TemporarilyUnavailable, TemporarilyUnavailable, "locked"),
    ("request timeout", 408, b"", TemporarilyUnavailable, TemporarilyUnavailable, "request_timeout"),
    ("too early", 425, b"", TemporarilyUnavailable, TemporarilyUnavailable, "too_early"),
    ("server error", 500, {"status": "error"}, TemporarilyUnavailable, TemporarilyUnavailable, "server_error"),
    (
        "dying server's word",
        503,
        refusal("BAD_REFRESH_TOKEN", "invalid_grant"),
        TemporarilyUnavailable,
        TemporarilyUnavailable,
        "server_error",
    ),
    ("Cloudflare", 524, HTML, TemporarilyUnavailable, TemporarilyUnavailable, "server_error"),
    ("no status known", 999, b"", TemporarilyUnavailable, TemporarilyUnavailable, "server_error"),
    ("upgrade", 101, b"", TemporarilyUnavailable, TemporarilyUnavailable, "server_error"),
    ("redirect elsewhere", 302, b"", TemporarilyUnavailable, TemporarilyUnavailable, "redirect"),
    ("HTML under 200", 200, HTML, TemporarilyUnavailable, TemporarilyUnavailable, "html"),
    ("HTML under 403", 403, HTML, TemporarilyUnavailable, TemporarilyUnavailable, "html"),
    ("HTML under 400", 400, HTML, TemporarilyUnavailable, TemporarilyUnavailable, "html"),
    ("empty 200", 200, b"", TemporarilyUnavailable, TemporarilyUnavailable, "empty"),
    ("empty 204", 204, b"", TemporarilyUnavailable, TemporarilyUnavailable, "empty"),
    ("empty 404", 404, b" \r\n", TemporarilyUnavailable, TemporarilyUnavailable, "empty"),
    ("truncated", 200, b'{"access_token":"CIacc', TemporarilyUnavailable, TemporarilyUnavailable, "not_json"),
    ("a list", 200, b"[]", TemporarilyUnavailable, TemporarilyUnavailable, "not_json"),
    ("null", 200, b"null", TemporarilyUnavailable, TemporarilyUnavailable, "not_json"),
    ("not UTF-8", 200, b'{"access_token":"\xff"}', TemporarilyUnavailable, TemporarilyUnavailable, "wrong_types"),
    ("nested too deep", 200, b'{"a":' * 100_000, TemporarilyUnavailable, TemporarilyUnavailable, "not_json"),
    ("no grant", 200, {"status": "ok"}, TemporarilyUnavailable, TemporarilyUnavailable, "no_grant"),
    (
        "an error under 200",
        200,
        refusal("BAD_REFRESH_TOKEN", "invalid_grant"),
        TemporarilyUnavailable,
        TemporarilyUnavailable,
        "no_grant",
    ),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row[0])
def test_each_reply_is_classified_for_an_exchange_and_for_a_refresh(
    row: tuple[str, int, Any, type[ProviderError], type[ProviderError], str],
) -> None:
    _, status, body, of_a_refresh, of_an_exchange, code = row
    for read, kind in ((parse_refresh, of_a_refresh), (parse_exchange, of_an_exchange)):
        error = the_error(a_reply(status, body), read)
        assert (type(error), error.code, error.http_status) == (kind, code, status)


def test_every_code_of_the_table_is_tested() -> None:
    assert set(ERROR_CLASSIFICATION) <= {row[5] for row in REFUSALS}


@pytest.mark.parametrize("http_status", [400, 401, 403])
def test_hubspots_own_code_decides_whatever_oauths_code_says(http_status: int) -> None:
    """HubSpot sends the same `error` with codes of different consequences, such as BAD_HUB and BAD_SCOPES."""
    own_codes = {code: kind for code, kind in ERROR_CLASSIFICATION.items() if code.isupper()}
    for code, kind in own_codes.items():
        for error in set(ERROR_CLASSIFICATION) - set(own_codes) | {"invalid_request", "new_word"}:
            answer = the_error(a_reply(http_status, refusal(code, error)))
            assert (type(answer), answer.code) == (TOKEN_OVERRIDES.get(kind, kind), code)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("1e9", 86_400.0),
        ("inf", 86_400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("5, 10", None),
        ("Mon, 23 Nov 2026 00:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 00:01:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 00:01:00 -0000", None),
        ("Mon, 99 Nov 2026 00:01:00 GMT", None),
    ],
)
def test_retry_after_is_parsed_and_limited_to_a_day(asked: str, waits: float | None) -> None:
    reply = a_reply(503, Retry_After=asked, Date="Mon, 23 Nov 2026 00:00:00 GMT")
    assert the_error(reply).retry_after == waits


def test_a_retry_after_date_is_ignored_without_the_replys_own_date() -> None:
    assert the_error(a_reply(429, Retry_After="Mon, 23 Nov 2026 00:01:00 GMT")).retry_after is None


@pytest.mark.parametrize("status", [429, 477, 423, 503])
def test_retry_after_is_kept_for_every_status_that_may_carry_it(status: int) -> None:
    assert the_error(a_reply(status, retry_after="9")).retry_after == 9.0
    assert the_error(a_reply(status)).retry_after is None


def test_the_correlation_id_is_part_of_the_error() -> None:
    assert the_error(a_reply(500, x_hubspot_correlation_id=CORRELATION_ID)).correlation_id == CORRELATION_ID
    assert the_error(a_reply(500, {"correlationId": CORRELATION_ID})).correlation_id == CORRELATION_ID


def test_a_malformed_correlation_id_is_dropped() -> None:
    for odd in (SECRET, "x" * 99, "a b", 7, ""):
        assert the_error(a_reply(500, {"correlationId": odd})).correlation_id is None
        assert find_correlation_id({"x-hubspot-correlation-id": str(odd)}, (), {}) is None
    assert find_correlation_id({"x-hubspot-correlation-id": CORRELATION_ID}, (f"a-{CORRELATION_ID}",), {}) is None
    echo = Reply(500, CaseInsensitiveDict(), json.dumps({"correlationId": CORRELATION_ID}).encode(), (CORRELATION_ID,))
    assert the_error(echo).correlation_id is None


def test_an_echoed_secret_is_not_used_as_a_code_even_where_it_looks_like_one() -> None:
    reply = Reply(400, CaseInsensitiveDict(), b'{"status": "OPEN_SESAME"}', secrets=("OPEN_SESAME",))
    assert the_error(reply).code == "unrecognised"


def test_introspection_has_hub_domain_user_and_scopes() -> None:
    answer = {"active": True, "hub_id": 7, "hub_domain": "acme.com", "user": "a@acme.com", "scopes": ["oauth"]}
    assert parse_introspection(a_reply(200, answer)) == Introspection(True, 7, "acme.com", "a@acme.com", ("oauth",))


@pytest.mark.parametrize(
    ("fields", "user_id"),
    [
        ({"user_id": 42}, 42),
        ({"user_id": "42", "signed_access_token": {"userId": 7}}, 42),
        ({"signed_access_token": {"isUserLevel": True, "userId": 42, "installingUserId": 7}}, 42),
        ({"user_id": None, "signed_access_token": "odd"}, None),
        ({"signed_access_token": {"installingUserId": 7}}, None),
    ],
)
def test_introspection_has_the_user_of_the_token(fields: dict[str, Any], user_id: int | None) -> None:
    assert parse_introspection(a_reply(200, {"active": True, **fields})) == Introspection(True, user_id=user_id)


def test_introspection_of_an_inactive_token_has_no_more_fields() -> None:
    assert parse_introspection(a_reply(200, {"active": False})) == Introspection(active=False)


def test_introspection_fields_of_wrong_types_are_none() -> None:
    odd = {"active": True, "hub_id": "seven", "hub_domain": "a\0b", "user": "x" * 400, "scopes": [None]}
    assert parse_introspection(a_reply(200, odd)) == Introspection(active=True)
    assert parse_introspection(a_reply(200, {"active": True, "hub_domain": "\ud800", "user": 5})) == Introspection(
        active=True
    )


@pytest.mark.parametrize("body", [{}, {"active": None}, {"active": "false"}, {"active": 0}, HTML, b"", [False]])
def test_introspection_without_a_boolean_active_is_an_error(body: Any) -> None:
    assert type(the_error(a_reply(200, body), parse_introspection)) is TemporarilyUnavailable


def test_a_refused_introspection_is_an_error() -> None:
    assert type(the_error(a_reply(400, refusal("BAD_CLIENT_SECRET")), parse_introspection)) is InvalidClient
    assert type(the_error(a_reply(404, {}), parse_introspection)) is UnknownRefusal
    assert type(the_error(a_reply(400, refusal("BAD_REFRESH_TOKEN")), parse_introspection)) is InvalidGrant


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b""), (200, b"{}"), (202, b"\n")])
def test_the_reply_to_a_revocation_may_be_empty(status: int, body: bytes) -> None:
    parse_empty(a_reply(status, body))


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, HTML, TemporarilyUnavailable, "html"),
        (401, {"status": "error", "category": "EXPIRED_AUTHENTICATION"}, UnknownRefusal, "EXPIRED_AUTHENTICATION"),
        (403, {"status": "error", "category": "MISSING_SCOPES"}, UnknownRefusal, "MISSING_SCOPES"),
        (404, b"", TemporarilyUnavailable, "empty"),
        (500, b"", TemporarilyUnavailable, "server_error"),
        (302, b"", TemporarilyUnavailable, "redirect"),
    ],
)
def test_a_failed_revocation_is_an_error_with_a_code(
    status: int, body: Any, kind: type[ProviderError], code: str
) -> None:
    error = the_error(a_reply(status, body), parse_empty)
    assert (type(error), error.code) == (kind, code)


def test_a_reply_to_client_credentials_without_a_token_is_an_error() -> None:
    for body in ({"expires_in": 1800}, {"refresh_token": "not-what-was-asked-for"}):
        error = the_error(a_reply(200, body), parse_app_token)
        assert (type(error), error.code) == (TemporarilyUnavailable, "no_grant")


def test_the_repr_of_a_call_or_a_reply_has_no_body_and_no_secret() -> None:
    assert SECRET not in repr(a_reply(200, {"access_token": SECRET}))
    assert SECRET not in repr(Call(Endpoint("POST", "https://api.hubapi.com"), SECRET.encode(), 0.0))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(SECRET)
    | st.sampled_from(sorted(ERROR_CLASSIFICATION)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("access_token", "refresh_token", "expires_in", "hub_id", "scopes", "active", "status", "error", "message",
         "category", "correlationId", "hub_domain", "user", "error_description")  # fmt: skip
BODIES = st.binary() | st.one_of(
    JSON, st.dictionaries(st.sampled_from(NAMES), JSON), st.dictionaries(st.sampled_from(NAMES), JSON).map(GOOD.__or__)
).map(lambda value: json.dumps(value).encode())
STATUSES = st.sampled_from([200, 200, 204, 302, 400, 401, 415, 429, 477, 503]) | st.integers(100, 999)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "x-hubspot-correlation-id", "Content-Type"]),
    st.text() | st.just(SECRET) | st.just("Mon, 23 Nov 2026 00:01:00 GMT") | st.floats().map(str),
)


@given(STATUSES, HEADERS, BODIES)
def test_any_reply_is_a_result_or_a_provider_error_without_secrets(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    reply = Reply(status, CaseInsensitiveDict(headers), body, secrets=(SECRET,))
    for outcome in outcomes(reply):
        if isinstance(outcome, ProviderError):
            assert SECRET not in f"{outcome} {outcome!r} {outcome.evidence()}"
            assert outcome.code.isascii()
            assert outcome.code.isprintable()
            assert len(outcome.code) <= 100
            assert outcome.retry_after is None or 0 <= outcome.retry_after <= 86_400
        else:
            assert outcome is None or isinstance(outcome, Grant | Introspection | IssuedTokens)
            assert 200 <= status < 300


def outcomes(reply: Reply) -> Iterator[Grant | Introspection | IssuedTokens | ProviderError | None]:
    for read in (partial(parse_refresh, granted_at=NOW), parse_exchange, parse_introspection, parse_empty):
        try:
            yield read(reply)
        except ProviderError as error:
            yield error
