"""Scopes are described in words; an unknown one is shown as it is."""

import pytest

from web.oauth.scope_descriptions import describe_scopes


@pytest.mark.parametrize(
    ("scope", "description"),
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
def test_a_scope_is_described_or_shown_as_it_is(scope, description):
    assert describe_scopes([scope]) == [(scope, description)]
