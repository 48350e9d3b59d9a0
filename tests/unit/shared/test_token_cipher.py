"""A ciphertext belongs to one hub, and every key of TOKEN_KEYS decrypts it."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet

from shared.domain.grant import Install
from shared.domain.identity import ConnectionIdentity
from shared.token_cipher import DecryptionError, TokenCipher

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
INSTALL = Install("c0ffee00-0000-4000-8000-000000000000", 7, NOON, "refresh", "access", 1800, ("oauth", "tickets"))


def test_a_refresh_token_decrypts_to_itself():
    cipher = TokenCipher([NEW])
    assert cipher.decrypt_refresh_token(7, cipher.encrypt_refresh_token(7, "refresh")) == "refresh"


def test_a_ciphertext_does_not_contain_the_token():
    assert "refresh" not in TokenCipher([NEW]).encrypt_refresh_token(7, "refresh")


def test_a_ciphertext_copied_to_another_hub_does_not_decrypt():
    cipher = TokenCipher([NEW])
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(8, cipher.encrypt_refresh_token(7, "refresh"))


def test_an_encrypted_install_does_not_decrypt_as_a_refresh_token_or_the_reverse():
    cipher = TokenCipher([NEW])
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(7, cipher.encrypt_install(INSTALL).ciphertext)
    with pytest.raises(DecryptionError):
        cipher.decrypt_install(cipher.encrypt_refresh_token(7, "refresh"))


def test_fields_that_were_encrypted_for_another_purpose_do_not_decrypt():
    cipher = TokenCipher([NEW])
    with pytest.raises(DecryptionError, match="another purpose"):
        cipher.decrypt_fields("link", cipher.encrypt_fields("state", {"customer": "acme"}))


def test_an_install_decrypts_to_itself():
    cipher = TokenCipher([NEW])
    assert cipher.decrypt_install(cipher.encrypt_install(INSTALL).ciphertext) == INSTALL


def test_an_install_of_another_app_and_user_decrypts_to_itself():
    cipher = TokenCipher([NEW])
    install = replace(INSTALL, app="users", user_id=42, needs_user_id=True)
    assert cipher.decrypt_install(cipher.encrypt_install(install).ciphertext) == install


def test_an_install_that_an_older_version_encrypted_is_one_of_the_app_default():
    """In the queue and in cookies at the upgrade."""
    content = {
        "install_id": INSTALL.install_id,
        "hub_id": 7,
        "granted_at": NOON.isoformat(),
        "refresh_token": "refresh",
    }
    ciphertext = Fernet(NEW).encrypt(json.dumps(content).encode()).decode()
    assert TokenCipher([NEW]).decrypt_install(ciphertext) == INSTALL.without_access_token()
    assert TokenCipher([NEW]).decrypt_install(ciphertext).identity == ConnectionIdentity("default", 7)


def test_the_ciphertext_of_an_install_of_the_only_app_is_as_small_as_before():
    cipher = TokenCipher([NEW])
    content = json.loads(Fernet(NEW).decrypt(cipher.encrypt_install(INSTALL.without_access_token()).ciphertext))
    assert set(content) == {"install_id", "hub_id", "granted_at", "refresh_token"}


def test_an_install_may_be_encrypted_without_its_access_token():
    cipher = TokenCipher([NEW])
    small = cipher.decrypt_install(cipher.encrypt_install(INSTALL.without_access_token()).ciphertext)
    assert (small.refresh_token, small.access_token, small.expires_in, small.scopes) == ("refresh", None, None, None)


def test_the_newest_key_encrypts_and_every_key_decrypts():
    ciphertext = TokenCipher([OLD]).encrypt_refresh_token(7, "refresh")
    assert TokenCipher([NEW, OLD]).decrypt_refresh_token(7, ciphertext) == "refresh"
    with pytest.raises(DecryptionError):
        TokenCipher([OLD]).decrypt_refresh_token(7, TokenCipher([NEW, OLD]).encrypt_refresh_token(7, "refresh"))


def test_reencryption_uses_the_newest_key():
    ciphertext = TokenCipher([OLD]).encrypt_refresh_token(7, "refresh")
    cipher = TokenCipher([NEW, OLD])
    assert cipher.needs_reencryption(ciphertext)
    reencrypted = cipher.reencrypt(ciphertext)
    assert not cipher.needs_reencryption(reencrypted)
    assert TokenCipher([NEW]).decrypt_refresh_token(7, reencrypted) == "refresh"


@pytest.mark.parametrize("garbage", ["", "gAAAAA", "é", "\x00"])
def test_garbage_does_not_decrypt(garbage):
    with pytest.raises(DecryptionError):
        TokenCipher([NEW]).decrypt_install(garbage)
    assert not TokenCipher([OLD]).can_decrypt(garbage)


def test_a_valid_ciphertext_of_something_else_does_not_decrypt():
    with pytest.raises(DecryptionError):
        TokenCipher([NEW]).decrypt_install(Fernet(NEW).encrypt(b"[]").decode())


def test_a_malformed_key_is_refused_without_its_value():
    with pytest.raises(ValueError, match="not a Fernet key") as error:
        TokenCipher(["half-a-key"])
    assert "half-a-key" not in str(error.value)
