"""Entries, files and subscriptions of HubSpot's journal, in the forms that HubSpot documents and in odd ones."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.journal import EntryKind, JournalEntry
from shared.hubspot.journal_parsing import parse_file, parse_instant, parse_subscriptions

AT = datetime(2026, 11, 27, 9, 59, 58, tzinfo=UTC)
ENTRY = {
    "type": "app_lifecycle_event",
    "action": "APP_UNINSTALL",
    "portalId": 1234567,
    "occurredAt": "2026-11-27T09:59:58Z",
    "eventTypeId": "4-1916193",
    "properties": {"hs_app_id": 55, "hs_app_install_level": "PORTAL", "hs_initiating_user_id": 222, "hs_user_id": 222},
}
PARSED = JournalEntry(EntryKind.UNINSTALL, 1234567, AT, user_id=222, app_id=55)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ENTRY, "results"]), inner, max_size=4)
    ),
    max_leaves=9,
)


def make_file(*entries, **but):
    return json.dumps(
        {"offset": "o-1", "publishedAt": "2026-11-27T10:00:07Z", "journalEvents": entries, **but}
    ).encode()


def parse_one(**but):
    (entry,) = parse_file(make_file({**ENTRY, **but}), None).entries
    return entry


def test_an_uninstall_as_hubspot_documents_it():
    file = parse_file(make_file(ENTRY), "o-0")
    assert (file.offset, file.entries) == ("o-1", (PARSED,))


def test_fields_of_other_types_are_read_where_their_meaning_is_plain():
    assert parse_one(portalId="1234567", properties={"hs_app_id": "55", "hs_user_id": 222.0}) == PARSED
    assert parse_one(occurredAt=1_795_773_598_000).occurred_at == AT
    assert parse_one(occurredAt="2026-11-27T09:59:58").occurred_at == AT


def test_the_kind_is_found_by_the_action_or_by_the_types_id():
    assert parse_one(action=None).kind is EntryKind.UNINSTALL
    assert parse_one(action="app_install", eventTypeId=None).kind is EntryKind.INSTALL
    assert parse_one(eventTypeId="4-0").kind is EntryKind.UNINSTALL


def test_without_a_date_of_its_own_an_entry_has_that_of_its_file():
    assert parse_one(occurredAt="yesterday").occurred_at == datetime(2026, 11, 27, 10, 0, 7, tzinfo=UTC)
    assert parse_file(make_file({**ENTRY, "occurredAt": None}, publishedAt=None), None).entries[0].occurred_at is None


def test_entries_of_other_kinds_and_without_an_account_are_left_out_and_cost_the_others_nothing():
    others = [{"type": "crmObject", "action": "CREATE", "portalId": 1}, {**ENTRY, "portalId": -1}, "text", None, {}]
    assert parse_file(make_file(*others, ENTRY), None).entries == (PARSED,)
    assert parse_one(properties=None) == JournalEntry(EntryKind.UNINSTALL, 1234567, AT)


def test_a_file_without_an_offset_has_that_of_the_reply_that_named_it():
    assert parse_file(make_file(offset=None), "o-0").offset == "o-0"
    assert parse_file(make_file(offset="with space"), "o-0").offset == "o-0"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"offset": "o"}', b'{"journalEvents": {}}'])
def test_anything_else_is_no_file_of_the_journal(body):
    assert parse_file(body, "o-0") is None


def test_a_subscription_is_recognised_by_each_field_that_hubspot_names():
    for fields in ({"eventTypeId": "4-1916193"}, {"objectTypeId": "4-1916193"}, {"actions": ["APP_UNINSTALL"]}):
        assert parse_subscriptions({"results": [{**fields, "appId": 55}]}) == ({EntryKind.UNINSTALL}, 55)
    both = {"results": [{"eventTypeId": "4-1916193"}, {"actions": ["APP_INSTALL"]}]}
    assert parse_subscriptions(both) == (set(EntryKind), None)
    assert parse_subscriptions({"id": 1, "appId": "55", "objectTypeId": "4-1909196"}) == ({EntryKind.INSTALL}, 55)
    assert parse_subscriptions({"results": [{"objectTypeId": "0-1", "actions": ["CREATE"]}]}) == (set(), None)


@given(json_values)
def test_no_json_makes_the_parsers_raise(value):
    body = json.dumps({"journalEvents": [value], "offset": value, "publishedAt": value}).encode()
    parse_file(body, "o-0")
    parse_file(json.dumps(value).encode(), None)
    parse_instant(value)
    parse_subscriptions(value if isinstance(value, dict) else {"results": value})
