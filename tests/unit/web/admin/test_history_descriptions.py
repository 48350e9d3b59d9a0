"""Every line of the history has a description, and no detail of it breaks the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.reports.connections import HistoryLine
from shared.domain.connection import EventName
from tests.support.builders import START
from web.admin.history_descriptions import describe_event

REFUSAL = {"code": "BAD_REFRESH_TOKEN", "http_status": 400, "correlation_id": "0a1b"}


def describe(event, **detail):
    return describe_event(HistoryLine(START, event, detail, "default", None, None))


@pytest.mark.parametrize(
    ("event", "detail", "text"),
    [
        ("installed", {}, "Installed"),
        ("reinstalled", {"was": "revoked"}, "Installed again (it was revoked)"),
        ("imported", {}, "Imported"),
        ("refresh_failed", {"code": "timeout"}, "A refresh failed: HubSpot did not answer in time"),
        ("recovered", {"failures": 1}, "Refreshed again after 1 failed attempt"),
        ("recovered", {"failures": 12}, "Refreshed again after 12 failed attempts"),
        ("recovered", {"failures": 0}, "Refreshed again"),
        (
            "recovered",
            {"witness": "introspection", "active": True},
            "Active again: HubSpot's introspection says that its refresh token is valid",
        ),
        (
            "recovered",
            {"was": "suspect", "dismissed": True},
            "Active again: an operator dismissed the revocation (it was suspect)",
        ),
        ("suspected", REFUSAL, "Suspect: HubSpot says that the refresh token is no longer valid"),
        (
            "suspected",
            {"witness": "journal", "occurred_at": "2026-11-27T10:00:00+00:00"},
            "Suspect: HubSpot reports that the account has uninstalled the app",
        ),
        (
            "suspected",
            {"witness": "introspection", "occurred_at": "2026-11-27T10:00:00+00:00"},
            "Suspect: HubSpot's introspection says that its refresh token is not valid",
        ),
        ("disconnected", {"was": "active"}, "Disconnected by the operator (it was active)"),
        ("claim_refused", {"reason": "link_spent"}, "Not claimed: the connect link was used before"),
        ("claim_refused", {"customer": "acme"}, "Not claimed: it belongs to another customer"),
        ("something_new", {}, "something new"),
    ],
)
def test_every_event_has_a_description(event, detail, text):
    assert describe(event, **detail).text == text


def test_a_refusal_shows_the_evidence_that_hubspots_support_asks_for():
    evidence = "BAD_REFRESH_TOKEN, HTTP 400, correlation id 0a1b"
    assert describe("suspected", **REFUSAL).evidence == evidence
    assert describe("revoked", refresh=REFUSAL, introspection={"active": False}).evidence == evidence


def test_a_revocation_says_whether_an_operator_confirmed_it():
    assert "an operator confirmed it" in describe("revoked", refresh=REFUSAL, confirmed=True).text
    assert "operator" not in describe("revoked", refresh=REFUSAL).text


def test_a_change_of_scopes_shows_which_were_added_and_removed():
    description = describe("scopes_changed", before=["oauth", "tickets"], after=["oauth", "forms"])
    assert description.evidence == "added forms, removed tickets"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
names = ("was", "code", "http_status", "refresh", "before", "after", "failures", "witness", "dismissed", "confirmed")


@given(event=st.sampled_from([*EventName, "new"]), detail=st.dictionaries(st.sampled_from(names), json, max_size=6))
def test_any_detail_gives_a_printable_description(event, detail):
    description = describe_event(HistoryLine(START, str(event), detail, "default", None, None))
    assert (description.text + description.evidence).isprintable()
