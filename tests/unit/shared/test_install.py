"""What travelled as one sealed install is stored with nothing in clear but the access token."""

import pytest
from cryptography.fernet import Fernet

from shared.domain.schedule import Schedule
from shared.token_cipher import DecryptionError, TokenCipher
from shared.workflows.store_install import store_install
from tests.support.builders import ACCESS_TOKEN, HUB, REFRESH_TOKEN, START, install
from tests.support.fakes import FakeInstalls


@pytest.fixture
def cipher():
    return TokenCipher([Fernet.generate_key().decode()])


@pytest.fixture
def installs():
    return FakeInstalls()


def test_the_refresh_token_is_sealed_to_its_hub(cipher, installs):
    store_install(cipher.encrypt_install(install()), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert cipher.decrypt_refresh_token(HUB, row.encrypted_refresh_token) == REFRESH_TOKEN
    assert REFRESH_TOKEN not in repr(row) + row.encrypted_refresh_token
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(HUB + 1, row.encrypted_refresh_token)


def test_all_that_hubspot_granted_arrives(cipher, installs):
    given = install()
    store_install(cipher.encrypt_install(given), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert (row.install_id, row.granted_at) == (given.install_id, START)
    assert (row.access_token, row.expires_in, row.scopes) == (ACCESS_TOKEN, 1800, given.scopes)
    assert row.due_at(HUB, START, 1800) == Schedule().due_at(HUB, START, 1800)


def test_what_came_in_a_cookie_has_no_access_token(cipher, installs):
    store_install(cipher.encrypt_install(install().without_access_token()), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert (row.access_token, row.expires_in, row.scopes) == (None, None, None)


def test_sealed_with_a_lost_key_nothing_is_stored(cipher, installs):
    sealed = TokenCipher([Fernet.generate_key().decode()]).encrypt_install(install())
    with pytest.raises(DecryptionError):
        store_install(sealed, cipher, installs, Schedule())
    assert not installs.rows
