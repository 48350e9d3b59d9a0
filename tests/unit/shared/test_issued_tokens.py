"""A 2xx with tokens: what is good in it is kept, however odd its other fields are."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from shared.domain.errors import NoAccessToken
from shared.domain.grant import UNKNOWN_LIFETIME_SECONDS, Grant
from shared.hubspot.response_parsing import Reply, parse_exchange, parse_refresh

NOW = datetime(2026, 11, 23, tzinfo=UTC)
#: As HubSpot's token endpoint answered in September 2026.
GOOD = {
    "token_type": "bearer",
    "refresh_token": "na1-aaaa-bbbb",
    "access_token": "CIaccess",
    "hub_id": 62515,
    "scopes": ["oauth", "crm.objects.contacts.read"],
    "expires_in": 1800,
    "token_use": "access_token",
}
GRANT = Grant(
    access_token="CIaccess",
    expires_in=1800,
    granted_at=NOW,
    refresh_token="na1-aaaa-bbbb",
    hub_id=62515,
    scopes=("oauth", "crm.objects.contacts.read"),
)
ABSENT = object()


def a_reply(body: Any, status: int = 200) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, CaseInsensitiveDict(), raw)


def the_grant(**fields: Any) -> Grant:
    """Of a good reply with other values in these fields, or without them."""
    body = {name: value for name, value in {**GOOD, **fields}.items() if value is not ABSENT}
    return parse_refresh(a_reply(body), NOW)


@pytest.mark.parametrize(("user_id", "parsed"), [(42, 42), ("42", 42), (42.0, 42), (0, None), (True, None), ([], None)])
def test_a_user_identifies_a_grant_of_a_user_level_app_alone(user_id: Any, parsed: int | None) -> None:
    reply = a_reply({**GOOD, "user_id": user_id})
    assert parse_refresh(reply, NOW, is_user_level=True) == replace(GRANT, user_id=parsed)
    assert parse_refresh(reply, NOW) == GRANT, "elsewhere it is the user who installed the app"
    assert parse_exchange(reply).user_id == parsed


def the_error(body: Any) -> NoAccessToken:
    with pytest.raises(NoAccessToken) as caught:
        parse_refresh(a_reply(body), NOW)
    return caught.value


def test_all_fields_of_a_grant_are_parsed() -> None:
    assert parse_refresh(a_reply(GOOD), NOW) == GRANT


def test_unknown_fields_are_ignored() -> None:
    odd = {"user_id": 7, "id_token": None, "": {}, "status": "BAD_HUB", "message": "Migration in progress"}
    assert the_grant(**odd) == GRANT


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b" \r\n" + json.dumps(GOOD).encode() + b"\n",
        json.dumps(GOOD)[:-1].encode() + b',"odd":"\xff"}',
        json.dumps(GOOD)[:-1].encode() + b',"odd":NaN,"more":-Infinity}',
        json.dumps(GOOD)[:-1].encode() + b',"odd":' + b"9" * 10_000 + b"}",
    ],
    ids=["byte order mark", "white space", "not UTF-8", "not a number", "10,000 digits"],
)
def test_an_odd_body_costs_no_field_that_is_good(raw: bytes) -> None:
    assert parse_refresh(a_reply(raw), NOW) == GRANT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1800", 1800), (" 1800 ", 1800), ("1800.0", 1800), (20.0, 20), (1799.9, 1799), (1, 1), (31_536_000, 31_536_000)],
)
def test_a_lifetime_is_read_from_any_form_of_a_number(value: Any, seconds: int) -> None:
    grant = the_grant(expires_in=value)
    assert (grant.expires_in, grant.is_lifetime_known) == (seconds, True)


@pytest.mark.parametrize(
    "value",
    [ABSENT, None, 0, -1, -1800.0, 0.5, "", "soon", "-1", "nan", "inf", True, False, [1800], {}, 31_536_001, 10**300],
)
def test_a_lifetime_that_makes_no_sense_is_unknown_and_short(value: Any) -> None:
    grant = the_grant(expires_in=value)
    assert (grant.expires_in, grant.is_lifetime_known) == (UNKNOWN_LIFETIME_SECONDS, False)
    assert grant.access_token == "CIaccess"


@pytest.mark.parametrize("value", ["62515", " 62515 ", 62515.0, 62515])
def test_a_hub_id_is_read_from_any_form_of_a_number(value: Any) -> None:
    assert the_grant(hub_id=value) == GRANT


@pytest.mark.parametrize("value", [ABSENT, None, True, 0, -5, 62515.5, 2**63, 1e300, "", "x", "0x1", [62515], {}])
def test_a_hub_id_that_makes_no_sense_is_unknown(value: Any) -> None:
    assert the_grant(hub_id=value).hub_id is None


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("oauth tickets", ("oauth", "tickets")),
        ("oauth,tickets", ("oauth", "tickets")),
        (["oauth tickets"], ("oauth", "tickets")),
        (["oauth", None, "tickets"], ("oauth", "tickets")),
        (["oauth", 7, {}, [], "a\0b", ""], ("oauth",)),
        ([], ()),
    ],
)
def test_scopes_are_read_from_a_list_or_a_text_without_what_is_no_scope(value: Any, scopes: tuple[str, ...]) -> None:
    assert the_grant(scopes=value).scopes == scopes


@pytest.mark.parametrize("value", [ABSENT, None, "", " ", [None], [1], 7, {"oauth": True}])
def test_scopes_that_make_no_sense_are_unknown(value: Any) -> None:
    assert the_grant(scopes=value).scopes is None


@pytest.mark.parametrize("value", [ABSENT, None, "", "  ", 7, [], {}, True, "a\ud800"])
def test_without_a_refresh_token_the_rest_of_a_grant_counts(value: Any) -> None:
    grant = the_grant(refresh_token=value)
    assert (grant.refresh_token, grant.access_token) == (None, "CIaccess")


def test_a_token_may_be_much_longer_than_todays() -> None:
    assert len(the_grant(access_token="a" * 16384).access_token) == 16384
    assert len(the_grant(refresh_token="a" * 100_000).refresh_token or "") == 100_000


def test_of_a_duplicate_field_the_last_one_counts() -> None:
    body = b'{"access_token":"first","access_token":"last","expires_in":1}'
    assert parse_refresh(a_reply(body), NOW).access_token == "last"


@pytest.mark.parametrize("value", [ABSENT, None, "", 7, "a b", "a\0", "a\ud800", "é", "a" * 16385, [], {"a": 1}])
def test_a_refresh_token_is_kept_where_the_access_token_cannot_be_used(value: Any) -> None:
    body = {name: given for name, given in {**GOOD, "access_token": value}.items() if given is not ABSENT}
    error = the_error(body)
    assert (error.refresh_token, error.hub_id) == ("na1-aaaa-bbbb", 62515)
    assert "na1-aaaa-bbbb" not in f"{error} {error!r} {error.evidence()}"
    issued = parse_exchange(a_reply(body))
    assert (issued.access_token, issued.refresh_token, issued.hub_id) == (None, "na1-aaaa-bbbb", 62515)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(GOOD).encode()[:-9],
        json.dumps(GOOD).encode() + b"<!-- proxy -->",
        b'{"refresh_token" : "na1-aaaa-bbbb","access_token":"CI',
        b"[" + json.dumps(GOOD).encode() + b"]",
    ],
    ids=["cut off", "with a tail", "cut in the access token", "in a list"],
)
def test_a_refresh_token_is_kept_from_a_body_that_is_no_json_object(body: bytes) -> None:
    assert the_error(body).refresh_token == "na1-aaaa-bbbb"


def test_half_a_refresh_token_is_none() -> None:
    with pytest.raises(Exception, match="not_json") as caught:
        parse_refresh(a_reply(b'{"refresh_token":"na1-aaaa'), NOW)
    assert not isinstance(caught.value, NoAccessToken)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["CIaccess", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
#: Lone surrogates cannot be sent back, and neither can what a decoder put in the place of invalid bytes.
TOKENS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1).filter(str.strip)
FIELDS = st.dictionaries(st.sampled_from([*GOOD, "status", "error", "message", "correlationId"]) | st.text(), ODD)


@given(st.sampled_from([200, 201, 202, 299]), FIELDS, TOKENS)
def test_no_object_of_a_2xx_costs_the_refresh_token_in_it(status: int, fields: dict[str, Any], token: str) -> None:
    reply = a_reply({**fields, "refresh_token": token}, status)
    try:
        issued: Grant | NoAccessToken = parse_refresh(reply, NOW)
    except NoAccessToken as error:
        issued = error
    assert issued.refresh_token == token
    assert parse_exchange(reply).refresh_token == token
