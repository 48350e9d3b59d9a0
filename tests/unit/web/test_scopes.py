"""Scopes are told in words where we have them."""

import pytest

from web.scopes import in_words


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("oauth", "Know which account this is"),
        ("crm.objects.contacts.read", "Read contacts"),
        ("crm.objects.deals.write", "Change deals"),
        ("crm.schemas.custom.read", "Read the properties of custom objects"),
        ("crm.lists.read", "Read lists"),
        ("something.new", "something.new"),
    ],
)
def test_a_scope_in_words(scope, words):
    assert in_words([scope]) == [(scope, words)]
