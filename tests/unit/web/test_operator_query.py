"""The list's address says what is asked for, and leads nowhere unexpected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.refresh.requests import RefreshRequestOutcome
from shared.db.reports.connection_list import Sort
from shared.domain.connection import Status
from web.admin.flash_messages import SENTENCES, FlashMessage, sentence
from web.admin.list_params import BadQuery, ListParams


def test_what_is_asked_for_is_read_and_written_alike():
    args = {"status": "revoked", "q": "shop", "sort": "due", "after": "x"}
    wanted = ListParams.of(args)
    assert wanted == ListParams(Status.REVOKED, "shop", Sort.DUE, after="x")
    assert wanted.args() == args


def test_what_is_as_usual_is_left_out():
    assert ListParams.of({"status": "", "q": " ", "sort": "hub", "after": "", "before": "", "x": "y"}).args() == {}


def test_another_filter_or_order_begins_at_the_first_page():
    wanted = ListParams(search="shop", before="x")
    assert wanted.of_status(Status.ACTIVE).args() == {"status": "active", "q": "shop"}
    assert wanted.sorted_by(Sort.FAILURES).args() == {"q": "shop", "sort": "failures"}
    assert wanted.next("y").args() == {"q": "shop", "after": "y"}
    assert wanted.next("y").previous("z").args() == {"q": "shop", "before": "z"}


def test_what_nobody_sees_is_not_looked_for():
    assert ListParams.of({"q": "\u200bsh\x00op\n"}).search == "shop"


@pytest.mark.parametrize(
    "args",
    [{"status": "dead"}, {"sort": "name"}, {"after": "a", "before": "b"}, {"q": "x" * 321}, {"after": "x" * 2001}],
)
def test_nonsense_is_refused(args):
    with pytest.raises(BadQuery):
        ListParams.of(args)


@given(st.dictionaries(st.sampled_from(["status", "q", "sort", "after", "before"]), st.text(max_size=400)))
def test_anything_is_read_or_refused(args):
    try:
        wanted = ListParams.of(args)
    except BadQuery:
        return
    assert ListParams.of(wanted.args()) == wanted


def test_every_outcome_has_its_sentence_and_nothing_else_is_ever_shown():
    assert set(SENTENCES) == set(FlashMessage)
    assert all(
        sentence(became.value) for became in RefreshRequestOutcome if became is not RefreshRequestOutcome.UNKNOWN
    )
    for code in (None, "", "x", "<b>", "unknown"):
        assert sentence(code) == ""
