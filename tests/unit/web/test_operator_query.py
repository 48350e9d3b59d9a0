"""The list's address says what is asked for, and leads nowhere unexpected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.directory import Sort
from shared.db.operator import Requested
from shared.domain.connection import Status
from web.operator.notices import SENTENCES, Notice, sentence
from web.operator.query import BadQuery, Wanted


def test_what_is_asked_for_is_read_and_written_alike():
    args = {"status": "revoked", "q": "shop", "sort": "due", "after": "x"}
    wanted = Wanted.of(args)
    assert wanted == Wanted(Status.REVOKED, "shop", Sort.DUE, after="x")
    assert wanted.args() == args


def test_what_is_as_usual_is_left_out():
    assert Wanted.of({"status": "", "q": " ", "sort": "hub", "after": "", "before": "", "x": "y"}).args() == {}


def test_another_filter_or_order_begins_at_the_first_page():
    wanted = Wanted(search="shop", before="x")
    assert wanted.of_status(Status.ACTIVE).args() == {"status": "active", "q": "shop"}
    assert wanted.sorted_by(Sort.FAILURES).args() == {"q": "shop", "sort": "failures"}
    assert wanted.next("y").args() == {"q": "shop", "after": "y"}
    assert wanted.next("y").previous("z").args() == {"q": "shop", "before": "z"}


def test_what_nobody_sees_is_not_looked_for():
    assert Wanted.of({"q": "\u200bsh\x00op\n"}).search == "shop"


@pytest.mark.parametrize(
    "args",
    [{"status": "dead"}, {"sort": "name"}, {"after": "a", "before": "b"}, {"q": "x" * 321}, {"after": "x" * 2001}],
)
def test_nonsense_is_refused(args):
    with pytest.raises(BadQuery):
        Wanted.of(args)


@given(st.dictionaries(st.sampled_from(["status", "q", "sort", "after", "before"]), st.text(max_size=400)))
def test_anything_is_read_or_refused(args):
    try:
        wanted = Wanted.of(args)
    except BadQuery:
        return
    assert Wanted.of(wanted.args()) == wanted


def test_every_outcome_has_its_sentence_and_nothing_else_is_ever_shown():
    assert set(SENTENCES) == set(Notice)
    assert all(sentence(became.value) for became in Requested if became is not Requested.UNKNOWN)
    for code in (None, "", "x", "<b>", "unknown"):
        assert sentence(code) == ""
