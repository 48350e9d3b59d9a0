"""Scopes are told in words where we have them."""

import pytest

from web.oauth.scope_descriptions import describe_scopes


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("oauth", "Know which account this is"),
        ("crm.objects.contacts.read", "Read contacts"),
        ("crm.objects.deals.write", "Change deals"),
        ("crm.schemas.custom.read", "Read the properties of custom objects"),
        ("crm.lists.read", "Read lists"),
        ("crm.objects.deals.highly_sensitive.write.v2", "Change deals, highly sensitive data included"),
        ("crm.objects.owners.read", "Read owners (the users that records belong to)"),
        ("crm.pipelines.orders.read", "Read the pipelines of orders"),
        ("settings.users.teams.read", "Read the account's teams"),
        ("communication_preferences.read_write", "Read and change subscription preferences of contacts"),
        ("automation", "Read and change workflows"),
        ("something.new.read", "something.new.read"),
        ("something.new", "something.new"),
    ],
)
def test_a_scope_in_words(scope, words):
    assert describe_scopes([scope]) == [(scope, words)]
