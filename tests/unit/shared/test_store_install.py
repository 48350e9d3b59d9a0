"""An encrypted install is stored with nothing in clear but the access token."""

from dataclasses import replace

import pytest
from cryptography.fernet import Fernet

from shared.domain.errors import InvalidClient, InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Introspection
from shared.domain.identity import ConnectionIdentity
from shared.domain.schedule import Schedule
from shared.token_cipher import DecryptionError, TokenCipher
from shared.workflows.store_install import UserUnknown, store_install
from tests.support.builders import ACCESS_TOKEN, HUB, REFRESH_TOKEN, START, install
from tests.support.fakes import FakeInstalls
from tests.support.hubspot import ScriptedHubSpot


@pytest.fixture
def cipher():
    return TokenCipher([Fernet.generate_key().decode()])


@pytest.fixture
def installs():
    return FakeInstalls()


def test_the_refresh_token_is_encrypted_for_its_hub(cipher, installs):
    store_install(cipher.encrypt_install(install()), cipher, installs, Schedule(), {})
    row = installs.rows[HUB]
    assert cipher.decrypt_refresh_token(HUB, row.encrypted_refresh_token) == REFRESH_TOKEN
    assert REFRESH_TOKEN not in repr(row) + row.encrypted_refresh_token
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(HUB + 1, row.encrypted_refresh_token)


def test_all_fields_of_the_install_are_stored(cipher, installs):
    given = install()
    store_install(cipher.encrypt_install(given), cipher, installs, Schedule(), {})
    row = installs.rows[HUB]
    assert (row.install_id, row.granted_at) == (given.install_id, START)
    assert (row.access_token, row.expires_in, row.scopes) == (ACCESS_TOKEN, 1800, given.scopes)
    assert row.due_at(HUB, START, 1800) == Schedule().due_at(HUB, START, 1800)


def test_an_install_from_a_cookie_is_stored_without_an_access_token(cipher, installs):
    store_install(cipher.encrypt_install(install().without_access_token()), cipher, installs, Schedule(), {})
    row = installs.rows[HUB]
    assert (row.access_token, row.expires_in, row.scopes) == (None, None, None)


def test_an_install_under_an_unknown_key_is_not_stored(cipher, installs):
    encrypted = TokenCipher([Fernet.generate_key().decode()]).encrypt_install(install())
    with pytest.raises(DecryptionError):
        store_install(encrypted, cipher, installs, Schedule(), {})
    assert not installs.rows


def test_a_message_that_names_another_hub_than_its_ciphertext_is_not_stored(cipher, installs):
    encrypted = replace(cipher.encrypt_install(install()), hub_id=HUB + 1)
    with pytest.raises(DecryptionError, match="another install"):
        store_install(encrypted, cipher, installs, Schedule(), {})
    assert not installs.rows


def users_install(**but):
    return install(app="users", needs_user_id=True, **but)


def test_the_user_of_a_user_level_app_is_asked_for_before_the_install_is_stored(cipher, installs):
    hubspot = ScriptedHubSpot(introspect_answer=Introspection(active=True, user_id=42))
    stored, _ = store_install(cipher.encrypt_install(users_install()), cipher, installs, Schedule(), {"users": hubspot})
    assert stored.identity == ConnectionIdentity("users", HUB, 42)
    assert (installs.rows[HUB].app, installs.rows[HUB].user_id) == ("users", 42)
    assert hubspot.introspected == [("refresh_token", REFRESH_TOKEN)], "the access token may have expired meanwhile"


@pytest.mark.parametrize("error", [TemporarilyUnavailable("timeout"), InvalidClient("BAD_CLIENT_SECRET")])
def test_an_install_waits_until_hubspot_says_whose_it_is(cipher, installs, error):
    hubspot = ScriptedHubSpot(introspect_answer=error)
    encrypted = cipher.encrypt_install(users_install())
    with pytest.raises(UserUnknown):
        store_install(encrypted, cipher, installs, Schedule(), {"users": hubspot})
    with pytest.raises(UserUnknown, match="no app users"):
        store_install(encrypted, cipher, installs, Schedule(), {"default": hubspot})
    assert not installs.rows


@pytest.mark.parametrize(
    "answer", [Introspection(active=True), Introspection(active=False), InvalidGrant("BAD_REFRESH_TOKEN")]
)
def test_a_grant_of_which_hubspot_names_no_user_is_stored_and_not_lost(cipher, installs, answer):
    clients = {"users": ScriptedHubSpot(introspect_answer=answer)}
    store_install(cipher.encrypt_install(users_install()), cipher, installs, Schedule(), clients)
    assert (installs.rows[HUB].app, installs.rows[HUB].user_id) == ("users", None)
