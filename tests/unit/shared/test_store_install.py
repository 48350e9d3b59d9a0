"""An encrypted install is stored with nothing in clear but the access token."""

from dataclasses import replace

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


def test_the_refresh_token_is_encrypted_for_its_hub(cipher, installs):
    store_install(cipher.encrypt_install(install()), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert cipher.decrypt_refresh_token(HUB, row.encrypted_refresh_token) == REFRESH_TOKEN
    assert REFRESH_TOKEN not in repr(row) + row.encrypted_refresh_token
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(HUB + 1, row.encrypted_refresh_token)


def test_all_fields_of_the_install_are_stored(cipher, installs):
    given = install()
    store_install(cipher.encrypt_install(given), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert (row.install_id, row.granted_at) == (given.install_id, START)
    assert (row.access_token, row.expires_in, row.scopes) == (ACCESS_TOKEN, 1800, given.scopes)
    assert row.due_at(HUB, START, 1800) == Schedule().due_at(HUB, START, 1800)


def test_an_install_from_a_cookie_is_stored_without_an_access_token(cipher, installs):
    store_install(cipher.encrypt_install(install().without_access_token()), cipher, installs, Schedule())
    row = installs.rows[HUB]
    assert (row.access_token, row.expires_in, row.scopes) == (None, None, None)


def test_an_install_under_an_unknown_key_is_not_stored(cipher, installs):
    encrypted = TokenCipher([Fernet.generate_key().decode()]).encrypt_install(install())
    with pytest.raises(DecryptionError):
        store_install(encrypted, cipher, installs, Schedule())
    assert not installs.rows


def test_a_message_that_names_another_hub_than_its_ciphertext_is_not_stored(cipher, installs):
    encrypted = replace(cipher.encrypt_install(install()), hub_id=HUB + 1)
    with pytest.raises(DecryptionError, match="another install"):
        store_install(encrypted, cipher, installs, Schedule())
    assert not installs.rows
