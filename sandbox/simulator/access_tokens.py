"""Access tokens that contain, signed, what the simulator has to know about them: none has to be stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

TOKEN_PREFIX = "CI"  # noqa: S105 no secret
#: random bytes, hub id, app id, user id, generation, time of issue and of expiry in milliseconds
TOKEN_FIELDS = struct.Struct(">9sQIQIQQ")
RANDOM_BYTES = 9
_MAC_BYTES = 17
CORE_CHARACTERS = 88  # 49 + 17 bytes in base64, without padding
MIN_TOKEN_CHARACTERS = len(TOKEN_PREFIX) + CORE_CHARACTERS


@dataclass(frozen=True, slots=True)
class AccessToken:
    hub_id: int
    app_id: int
    user_id: int  #: NO_USER for an account-level app
    generation: int  #: of the installation when it was issued; an uninstall starts a new one
    issued_at: float  #: seconds since 1970
    expires_at: float  #: seconds since 1970


class AccessTokens:
    """Encodes and decodes access tokens. Opaque for clients, as HubSpot's are."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, token: AccessToken, length: int) -> str:
        """`length`: characters, MIN_TOKEN_CHARACTERS or more."""
        times = int(token.issued_at * 1000), int(token.expires_at * 1000)
        fields = TOKEN_FIELDS.pack(
            os.urandom(RANDOM_BYTES), token.hub_id, token.app_id, token.user_id, token.generation, *times
        )
        filler = secrets.token_urlsafe(length)[: length - MIN_TOKEN_CHARACTERS]
        core = urlsafe_b64encode(fields + self._mac(fields, filler)).decode()
        return TOKEN_PREFIX + core + filler

    def decode(self, text: str) -> AccessToken | None:
        """None for a text that is no token of this simulator."""
        core, filler = text[len(TOKEN_PREFIX) : MIN_TOKEN_CHARACTERS], text[MIN_TOKEN_CHARACTERS:]
        if not text.startswith(TOKEN_PREFIX) or len(core) != CORE_CHARACTERS or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(core)
        except Base64Error:
            return None
        fields, mac = raw[: TOKEN_FIELDS.size], raw[TOKEN_FIELDS.size :]
        if len(raw) != TOKEN_FIELDS.size + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(fields, filler)):
            return None
        _, hub_id, app_id, user_id, generation, issued_ms, expires_ms = TOKEN_FIELDS.unpack(fields)
        return AccessToken(hub_id, app_id, user_id, generation, issued_ms / 1000, expires_ms / 1000)

    def _mac(self, fields: bytes, filler: str) -> bytes:
        return hmac.digest(self._key, fields + filler.encode(), hashlib.sha256)[:_MAC_BYTES]
