"""What travelled as one sealed install is stored with nothing in clear but the access token."""

import pytest
from cryptography.fernet import Fernet

from shared.domain.schedule import Schedule
from shared.install import store_install
from shared.vault import CannotOpen, Vault
from tests.builders import ACCESS_TOKEN, HUB, REFRESH_TOKEN, START, install
from tests.fakes import FakeStore


@pytest.fixture
def vault():
    return Vault([Fernet.generate_key().decode()])


@pytest.fixture
def store():
    return FakeStore()


def test_the_refresh_token_is_sealed_to_its_hub(vault, store):
    store_install(vault.seal_install(install()), vault, store, Schedule())
    row = store.rows[HUB]
    assert vault.open_refresh_token(HUB, row.sealed_refresh_token) == REFRESH_TOKEN
    assert REFRESH_TOKEN not in repr(row) + row.sealed_refresh_token
    with pytest.raises(CannotOpen):
        vault.open_refresh_token(HUB + 1, row.sealed_refresh_token)


def test_all_that_hubspot_granted_arrives(vault, store):
    given = install()
    store_install(vault.seal_install(given), vault, store, Schedule())
    row = store.rows[HUB]
    assert (row.install_id, row.granted_at) == (given.install_id, START)
    assert (row.access_token, row.expires_in, row.scopes) == (ACCESS_TOKEN, 1800, given.scopes)
    assert row.due_at(HUB, START, 1800) == Schedule().due_at(HUB, START, 1800)


def test_what_came_in_a_cookie_has_no_access_token(vault, store):
    store_install(vault.seal_install(install().without_access_token()), vault, store, Schedule())
    row = store.rows[HUB]
    assert (row.access_token, row.expires_in, row.scopes) == (None, None, None)


def test_sealed_with_a_lost_key_nothing_is_stored(vault, store):
    sealed = Vault([Fernet.generate_key().decode()]).seal_install(install())
    with pytest.raises(CannotOpen):
        store_install(sealed, vault, store, Schedule())
    assert not store.rows
