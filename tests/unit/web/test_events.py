"""Every line of the history is told in words, and no detail of it, however odd, breaks the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.reports.connections import HistoryLine
from shared.domain.connection import EventName
from tests.support.builders import START
from web.admin.history_descriptions import told

REFUSED = {"code": "BAD_REFRESH_TOKEN", "http_status": 400, "correlation_id": "0a1b"}


def words(event, **detail):
    return told(HistoryLine(START, event, detail))


@pytest.mark.parametrize(
    ("event", "detail", "expected"),
    [
        ("installed", {}, "Installed"),
        ("reinstalled", {"was": "revoked"}, "Installed again (it was revoked)"),
        ("imported", {}, "Imported"),
        ("refresh_failed", {"code": "timeout"}, "A refresh failed: HubSpot did not answer in time"),
        ("recovered", {"failures": 1}, "Refreshed again after 1 failed attempt"),
        ("recovered", {"failures": 12}, "Refreshed again after 12 failed attempts"),
        ("recovered", {"failures": 0}, "Refreshed again"),
        ("recovered", {"witness": "introspection", "active": True}, "Alive after all, says the second witness"),
        (
            "recovered",
            {"was": "suspect", "dismissed": True},
            "Active again: an operator dismissed the verdict (it was suspect)",
        ),
        ("suspected", REFUSED, "In doubt: HubSpot says that the refresh token is no good any more"),
        ("disconnected", {"was": "active"}, "Disconnected by the operator (it was active)"),
        ("something_new", {}, "something new"),
    ],
)
def test_an_event_in_words(event, detail, expected):
    assert words(event, **detail).words == expected


def test_a_refusal_carries_what_hubspots_support_asks_for():
    assert words("suspected", **REFUSED).more == "BAD_REFRESH_TOKEN, HTTP 400, correlation id 0a1b"
    verdict = words("revoked", refresh=REFUSED, introspection={"active": False})
    assert verdict.more == "BAD_REFRESH_TOKEN, HTTP 400, correlation id 0a1b"


def test_a_verdict_that_an_operator_confirmed_says_so():
    assert "an operator confirmed it" in words("revoked", refresh=REFUSED, confirmed=True).words
    assert "operator" not in words("revoked", refresh=REFUSED).words


def test_scopes_are_told_by_what_changed():
    said = words("scopes_changed", before=["oauth", "tickets"], after=["oauth", "forms"])
    assert said.more == "added forms, lost tickets"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
names = ("was", "code", "http_status", "refresh", "before", "after", "failures", "witness", "dismissed", "confirmed")


@given(event=st.sampled_from([*EventName, "new"]), detail=st.dictionaries(st.sampled_from(names), json, max_size=6))
def test_no_detail_breaks_it_and_none_moves_a_cursor(event, detail):
    said = told(HistoryLine(START, str(event), detail))
    assert (said.words + said.more).isprintable()
