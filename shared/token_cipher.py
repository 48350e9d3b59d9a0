"""Encrypts what is stored or queued for long: refresh tokens and installs, with the Fernet keys in TOKEN_KEYS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from shared.domain.customer import CustomerClaim
from shared.domain.grant import EncryptedInstall, Install
from shared.domain.identity import DEFAULT_APP

#: Of an install: left out, so that the ciphertext stays small enough for a cookie. Version 0.1 wrote no others.
_DEFAULTS = {each.name: each.default for each in fields(Install) if each.default is not MISSING}


class DecryptionError(Exception):
    """Encrypted with a key that is not in TOKEN_KEYS, damaged, or copied from another hub's row."""


class TokenCipher:
    """The first key encrypts, every key decrypts.

    A ciphertext contains the hub it belongs to: copied into another hub's row, it does not decrypt there.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys` are Fernet keys, newest first. Raises ValueError on a malformed one, without its value."""
        try:
            fernets = [Fernet(key) for key in keys]
        except ValueError:
            raise ValueError("not a Fernet key") from None
        self._all = MultiFernet(fernets)
        self._newest = fernets[0]

    def encrypt_refresh_token(self, hub_id: int, refresh_token: str) -> str:
        return self._encrypt({"hub_id": hub_id, "refresh_token": refresh_token})

    def decrypt_refresh_token(self, hub_id: int, ciphertext: str) -> str:
        """Raises DecryptionError."""
        content = self._decrypt(ciphertext)
        if content.get("hub_id") != hub_id or "install_id" in content:
            raise DecryptionError(f"what is stored for hub {hub_id} was encrypted for something else")
        return str(content["refresh_token"])

    def encrypt_install(self, install: Install) -> EncryptedInstall:
        claim = install.customer_claim
        content = {**asdict(install), "granted_at": install.granted_at.isoformat()}
        content["customer_claim"] = claim and claim.to_fields()
        known = {name: value for name, value in content.items() if value != _DEFAULTS.get(name)}
        return EncryptedInstall(install.install_id, install.hub_id, self._encrypt(known))

    def decrypt_install(self, ciphertext: str) -> Install:
        """Raises DecryptionError."""
        content = self._decrypt(ciphertext)
        if "install_id" not in content:
            raise DecryptionError("it decrypts, but it is not an install")
        scopes, claim = content.get("scopes"), content.get("customer_claim")
        return Install(
            install_id=str(content["install_id"]),
            hub_id=int(content["hub_id"]),
            granted_at=datetime.fromisoformat(content["granted_at"]),
            refresh_token=str(content["refresh_token"]),
            access_token=content.get("access_token"),
            expires_in=content.get("expires_in"),
            scopes=None if scopes is None else tuple(scopes),
            is_dated_by_host=bool(content.get("is_dated_by_host")),
            app=str(content.get("app", DEFAULT_APP)),
            user_id=content.get("user_id"),
            needs_user_id=bool(content.get("needs_user_id")),
            customer_claim=claim and CustomerClaim.from_fields(claim),
        )

    def encrypt_fields(self, purpose: str, fields: Mapping[str, object]) -> str:
        """Values of JSON. They decrypt for the same purpose only."""
        return self._encrypt({"for": purpose, **fields})

    def decrypt_fields(self, purpose: str, ciphertext: str) -> dict[str, Any]:
        """Raises DecryptionError."""
        content = self._decrypt(ciphertext)
        if content.pop("for", None) != purpose:
            raise DecryptionError("it decrypts, but it was encrypted for another purpose")
        return content

    def encrypt_check_value(self) -> str:
        """A ciphertext without a secret, by which a process without access to refresh tokens can check its keys."""
        return self._encrypt({"check": "tokenkeeper"})

    def can_decrypt(self, ciphertext: str) -> bool:
        try:
            self._decrypt(ciphertext)
        except DecryptionError:
            return False
        return True

    def needs_reencryption(self, ciphertext: str) -> bool:
        """Whether only an older key than the newest decrypts it. Raises DecryptionError where none does."""
        try:
            self._newest.decrypt(ciphertext.encode())
        except InvalidToken:
            self._decrypt(ciphertext)
            return True
        return False

    def reencrypt(self, ciphertext: str) -> str:
        """The same content under the newest key. Raises DecryptionError."""
        return self._encrypt(self._decrypt(ciphertext))

    def _encrypt(self, content: dict[str, object]) -> str:
        # Not in ASCII, where a letter of a customer's name would take six bytes of a cookie; json.loads reads the same.
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        return self._all.encrypt(text.encode(errors="surrogatepass")).decode()

    def _decrypt(self, ciphertext: str) -> dict[str, Any]:
        try:
            content = json.loads(self._all.decrypt(ciphertext).decode(errors="surrogatepass"))
        except (InvalidToken, ValueError):
            raise DecryptionError("none of TOKEN_KEYS decrypts it") from None
        if not isinstance(content, dict):
            raise DecryptionError("it decrypts, but it is not a token or an install")
        return content
