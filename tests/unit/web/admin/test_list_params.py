"""The query parameters of the list of connections are parsed, validated, and written into links."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.reports.connection_list import Sort
from shared.domain.connection import Status
from web.admin.list_params import InvalidListParams, ListParams


def test_parameters_are_written_as_they_were_parsed():
    filters = {"status": "revoked", "app": "crm", "customer": "Acme", "lacking": "scopes"}
    query = {**filters, "q": "shop", "sort": "due", "after": "x"}
    params = ListParams.parse(query)
    assert params == ListParams(Status.REVOKED, "crm", "Acme", True, "shop", Sort.DUE, after="x")
    assert params.to_query() == query


def test_default_and_unknown_parameters_are_left_out_of_links():
    query = {"status": "", "q": " ", "sort": "hub", "after": "", "before": "", "x": "y"}
    assert ListParams.parse(query).to_query() == {}


def test_another_status_or_order_begins_at_the_first_page():
    params = ListParams(search="shop", before="x")
    assert params.with_status(Status.ACTIVE).to_query() == {"status": "active", "q": "shop"}
    assert params.with_sort(Sort.FAILURES).to_query() == {"q": "shop", "sort": "failures"}


def test_a_link_to_the_next_or_previous_page_has_one_cursor():
    params = ListParams(search="shop", before="x")
    assert params.next_page("y").to_query() == {"q": "shop", "after": "y"}
    assert params.next_page("y").previous_page("z").to_query() == {"q": "shop", "before": "z"}


def test_invisible_characters_are_removed_from_a_search():
    assert ListParams.parse({"q": "\u200bsh\x00op\n"}).search == "shop"


@pytest.mark.parametrize(
    "query",
    [
        {"status": "dead"},
        {"sort": "name"},
        {"app": "No"},
        {"customer": "c" * 201},
        {"customer": "a\x00"},
        {"after": "a", "before": "b"},
        {"q": "x" * 321},
        {"after": "x" * 2001},
    ],
)
def test_invalid_parameters_are_refused(query):
    with pytest.raises(InvalidListParams):
        ListParams.parse(query)


@given(
    st.dictionaries(
        st.sampled_from(["status", "app", "customer", "q", "sort", "after", "before"]), st.text(max_size=400)
    )
)
def test_any_query_is_parsed_or_refused(query):
    try:
        params = ListParams.parse(query)
    except InvalidListParams:
        return
    assert ListParams.parse(params.to_query()) == params
