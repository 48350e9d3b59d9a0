"""Seals what lasts. Keys newest first: the first seals, all open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from shared.domain.grant import EncryptedInstall, Install


class DecryptionError(Exception):
    """Sealed with a key that is not among TOKEN_KEYS, damaged, or moved from another hub's row."""


class TokenCipher:
    """Everything sealed is bound to its hub: a ciphertext copied into another row does not open there."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys` are Fernet keys, newest first. Raises ValueError on a malformed one, without showing it."""
        try:
            self._fernets = [Fernet(key) for key in keys]
        except ValueError:
            raise ValueError("not a Fernet key") from None
        self._all = MultiFernet(self._fernets)

    def encrypt_refresh_token(self, hub_id: int, refresh_token: str) -> str:
        return self._seal({"hub_id": hub_id, "refresh_token": refresh_token})

    def decrypt_refresh_token(self, hub_id: int, sealed: str) -> str:
        """Raises DecryptionError."""
        content = self._open(sealed)
        if content.get("hub_id") != hub_id or "install_id" in content:
            raise DecryptionError(f"what is stored for hub {hub_id} was sealed for something else")
        return str(content["refresh_token"])

    def encrypt_install(self, install: Install) -> EncryptedInstall:
        content = {**asdict(install), "granted_at": install.granted_at.isoformat()}
        known = {name: value for name, value in content.items() if value is not None}
        return EncryptedInstall(install.install_id, install.hub_id, self._seal(known))

    def decrypt_install(self, sealed: str) -> Install:
        """Raises DecryptionError."""
        content = self._open(sealed)
        if "install_id" not in content:
            raise DecryptionError("this is sealed, but it is no install")
        scopes = content.get("scopes")
        return Install(
            install_id=str(content["install_id"]),
            hub_id=int(content["hub_id"]),
            granted_at=datetime.fromisoformat(content["granted_at"]),
            refresh_token=str(content["refresh_token"]),
            access_token=content.get("access_token"),
            expires_in=content.get("expires_in"),
            scopes=None if scopes is None else tuple(scopes),
        )

    def encrypt_check_value(self) -> str:
        """Something that tells nobody anything, for who is to see whether it has the right keys."""
        return self._seal({"check": "tokenkeeper"})

    def opens(self, sealed: str) -> bool:
        try:
            self._open(sealed)
        except DecryptionError:
            return False
        return True

    def needs_reencryption(self, sealed: str) -> bool:
        """Whether it takes an older key than the newest to open it. Raises DecryptionError where none does."""
        try:
            self._fernets[0].decrypt(sealed.encode())
        except InvalidToken:
            self._open(sealed)
            return True
        return False

    def reseal(self, sealed: str) -> str:
        """The same content under the newest key. Raises DecryptionError."""
        return self._seal(self._open(sealed))

    def _seal(self, content: dict[str, object]) -> str:
        return self._all.encrypt(json.dumps(content, separators=(",", ":")).encode()).decode()

    def _open(self, sealed: str) -> dict[str, Any]:
        try:
            content = json.loads(self._all.decrypt(sealed.encode()))
        except (InvalidToken, ValueError):
            raise DecryptionError("none of TOKEN_KEYS opens it") from None
        if not isinstance(content, dict):
            raise DecryptionError("this is sealed, but it is nothing of ours")
        return content
