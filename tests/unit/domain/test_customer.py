"""What a customer's name may be, and who gets a connection that a link claims."""

from datetime import timedelta

import pytest

from shared.domain.customer import ClaimOutcome, CustomerClaim, InvalidText, decide_claim, parse_customer
from tests.support.builders import START

CLAIM = CustomerClaim("acme", "link-1", START + timedelta(minutes=30))
MOVE = CustomerClaim("acme", "link-1", START + timedelta(minutes=30), may_move=True)


@pytest.mark.parametrize("text", ["a", "acme", "x" * 200, "Überfluß & Söhne", "9b1deb4d-3b7d", "客户 42"])
def test_a_customer_is_any_text_without_control_characters(text):
    assert parse_customer(text) == text


@pytest.mark.parametrize("value", ["", "x" * 201, "a\nb", "a\x00b", "a\x7fb", "a\x85b", "\ud800", None, 7, ["acme"]])
def test_what_is_no_customer_is_refused(value):
    with pytest.raises(InvalidText) as caught:
        parse_customer(value)
    assert "acme" not in str(caught.value)


@pytest.mark.parametrize(
    ("claim", "customer", "is_link_spent", "is_newest_grant", "outcome"),
    [
        (CLAIM, None, False, True, ClaimOutcome.CLAIMED),
        (CLAIM, None, False, False, ClaimOutcome.CLAIMED),
        (CLAIM, "acme", False, True, ClaimOutcome.UNCHANGED),
        (CLAIM, "other", False, True, ClaimOutcome.CONFLICT),
        (MOVE, "other", False, True, ClaimOutcome.MOVED),
        (MOVE, "other", False, False, ClaimOutcome.CONFLICT),
        (MOVE, "acme", False, True, ClaimOutcome.UNCHANGED),
        (CLAIM, None, True, True, ClaimOutcome.LINK_SPENT),
        (MOVE, "other", True, True, ClaimOutcome.LINK_SPENT),
    ],
)
def test_who_gets_the_connection(claim, customer, is_link_spent, is_newest_grant, outcome):
    decided = decide_claim(claim, customer, is_link_spent=is_link_spent, is_newest_grant=is_newest_grant)
    assert decided is outcome
