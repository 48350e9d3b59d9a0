"""Scopes are compared literally; what HubSpot has renamed or ended is explained where it is known."""

from __future__ import annotations

import pytest

from shared.domain.scopes import SUCCESSORS, explain_missing, find_missing


@pytest.mark.parametrize(
    ("required", "granted", "missing"),
    [
        (["oauth", "tickets"], ["tickets", "oauth", "oauth", "forms"], ()),
        (["tickets"], ["Tickets", "crm.objects.tickets.read"], ("tickets",)),
        (["b", "a", "a"], [], ("a", "b")),
        ([], ["oauth"], ()),
    ],
    ids=["order, duplicates and more of them", "similar names", "none granted", "none required"],
)
def test_a_grant_has_a_scope_or_lacks_it(required: list[str], granted: list[str], missing: tuple[str, ...]) -> None:
    assert find_missing(required, granted) == missing


@pytest.mark.parametrize("coarse", SUCCESSORS)
def test_coarse_and_granular_names_are_explained_by_each_other(coarse: str) -> None:
    granular = SUCCESSORS[coarse][0]
    assert granular in explain_missing(coarse, [granular])
    assert f"successor of {coarse}" in explain_missing(granular, [coarse])
    assert explain_missing(granular, ["oauth"]) == ""
    assert explain_missing(coarse, ["oauth"]) == ""


def test_a_scope_that_hubspot_has_ended_is_named_as_such() -> None:
    assert "ended" in explain_missing("contacts", ["oauth"])
