"""What lasts is sealed, bound to its hub, and opens with any key of the ring."""

from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet

from shared.domain.grant import Install
from shared.token_cipher import DecryptionError, TokenCipher

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
INSTALL = Install("c0ffee00-0000-4000-8000-000000000000", 7, NOON, "refresh", "access", 1800, ("oauth", "tickets"))


def test_a_refresh_token_comes_back_as_it_went_in():
    cipher = TokenCipher([NEW])
    assert cipher.decrypt_refresh_token(7, cipher.encrypt_refresh_token(7, "refresh")) == "refresh"


def test_what_is_sealed_shows_nothing():
    assert "refresh" not in TokenCipher([NEW]).encrypt_refresh_token(7, "refresh")


def test_a_ciphertext_moved_to_another_row_does_not_open():
    cipher = TokenCipher([NEW])
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(8, cipher.encrypt_refresh_token(7, "refresh"))


def test_a_sealed_install_is_no_refresh_token_and_the_reverse():
    cipher = TokenCipher([NEW])
    with pytest.raises(DecryptionError):
        cipher.decrypt_refresh_token(7, cipher.encrypt_install(INSTALL).ciphertext)
    with pytest.raises(DecryptionError):
        cipher.decrypt_install(cipher.encrypt_refresh_token(7, "refresh"))


def test_an_install_comes_back_as_it_went_in():
    cipher = TokenCipher([NEW])
    assert cipher.decrypt_install(cipher.encrypt_install(INSTALL).ciphertext) == INSTALL


def test_an_install_may_travel_without_its_access_token():
    cipher = TokenCipher([NEW])
    small = cipher.decrypt_install(cipher.encrypt_install(INSTALL.without_access_token()).ciphertext)
    assert (small.refresh_token, small.access_token, small.expires_in, small.scopes) == ("refresh", None, None, None)


def test_the_newest_key_seals_and_every_key_opens():
    sealed = TokenCipher([OLD]).encrypt_refresh_token(7, "refresh")
    assert TokenCipher([NEW, OLD]).decrypt_refresh_token(7, sealed) == "refresh"
    with pytest.raises(DecryptionError):
        TokenCipher([OLD]).decrypt_refresh_token(7, TokenCipher([NEW, OLD]).encrypt_refresh_token(7, "refresh"))


def test_resealing_moves_to_the_newest_key():
    sealed = TokenCipher([OLD]).encrypt_refresh_token(7, "refresh")
    ring = TokenCipher([NEW, OLD])
    assert ring.needs_reencryption(sealed)
    again = ring.reencrypt(sealed)
    assert not ring.needs_reencryption(again)
    assert TokenCipher([NEW]).decrypt_refresh_token(7, again) == "refresh"


@pytest.mark.parametrize("garbage", ["", "gAAAAA", "é", "\x00"])
def test_garbage_does_not_open(garbage):
    with pytest.raises(DecryptionError):
        TokenCipher([NEW]).decrypt_install(garbage)
    assert not TokenCipher([OLD]).can_decrypt(garbage)


def test_what_is_sealed_and_nothing_of_ours_does_not_open():
    with pytest.raises(DecryptionError):
        TokenCipher([NEW]).decrypt_install(Fernet(NEW).encrypt(b"[]").decode())


def test_a_malformed_key_is_refused_without_being_shown():
    with pytest.raises(ValueError, match="not a Fernet key") as caught:
        TokenCipher(["half-a-key"])
    assert "half-a-key" not in str(caught.value)
