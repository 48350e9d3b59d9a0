"""HubSpot's account information is read as far as it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.domain.account import AccountDetails
from shared.domain.errors import ProviderError, TemporarilyUnavailable, Throttled, UnknownRefusal
from shared.hubspot.account_parsing import parse_account_details
from shared.hubspot.response_parsing import Reply


def parse(body: Any, status: int = 200) -> AccountDetails:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_account_details(Reply(status, {}, raw))


def test_name_type_and_region_are_read() -> None:
    answer = {"portalId": 7, "portalName": "Acme Ltd", "accountType": "SANDBOX", "dataHostingLocation": "eu1"}
    assert parse(answer) == AccountDetails(7, "Acme Ltd", "SANDBOX", "eu1")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"portalId": "seven", "portalName": 5, "accountType": ["SANDBOX"], "dataHostingLocation": None},
        {"portalName": "a\0b", "accountType": "x" * 41, "dataHostingLocation": "eu1\n"},
        {"portalName": "\ud800", "portalId": 1.5},
        b"",
    ],
)
def test_what_is_missing_or_odd_is_unknown(answer: Any) -> None:
    assert parse(answer) == AccountDetails()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"status": "error", "category": "EXPIRED_AUTHENTICATION"}, UnknownRefusal),
        (403, {"status": "error", "category": "MISSING_SCOPES"}, UnknownRefusal),
        (404, {"status": "error", "message": "no such resource"}, UnknownRefusal),
        (429, {"status": "error"}, Throttled),
        (503, b"<html>", TemporarilyUnavailable),
        (200, b"<html>", TemporarilyUnavailable),
        (200, b"[1]", TemporarilyUnavailable),
    ],
)
def test_a_refusal_and_a_failure_are_told_apart(status: int, body: Any, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        parse(body, status)
    assert type(caught.value) is error
