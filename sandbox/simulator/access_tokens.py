"""Access tokens that carry what the simulator must know of them, so that none has to be stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass

_PREFIX = "CI"
_FACTS = struct.Struct(">QIQQ9s")  # hub, generation, issued and expires in ms, some dice
_MAC_BYTES = 17  # 37 + 17 bytes are 72 characters of base64, with no padding
_CORE = 72

SHORTEST = len(_PREFIX) + _CORE


@dataclass(frozen=True, slots=True)
class AccessToken:
    hub_id: int
    generation: int  #: of the account's tokens; an uninstall begins a new one
    issued_at: float  #: seconds since 1970
    expires_at: float  #: seconds since 1970


class AccessTokens:
    """Mints and reads. Opaque for clients, as HubSpot's are; any length from 74 characters."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mint(self, token: AccessToken, length: int) -> str:
        issued, expires = int(token.issued_at * 1000), int(token.expires_at * 1000)
        facts = _FACTS.pack(token.hub_id, token.generation, issued, expires, os.urandom(9))
        filler = secrets.token_urlsafe(length)[: length - SHORTEST]
        core = urlsafe_b64encode(facts + self._mac(facts, filler)).decode()
        return _PREFIX + core + filler

    def read(self, text: str) -> AccessToken | None:
        """None for anything that was not minted here."""
        core, filler = text[len(_PREFIX) : SHORTEST], text[SHORTEST:]
        if not text.startswith(_PREFIX) or len(core) != _CORE or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(core)
        except NotBase64:
            return None
        facts, mac = raw[: _FACTS.size], raw[_FACTS.size :]
        if len(raw) != _FACTS.size + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(facts, filler)):
            return None
        hub_id, generation, issued, expires, _ = _FACTS.unpack(facts)
        return AccessToken(hub_id, generation, issued / 1000, expires / 1000)

    def _mac(self, facts: bytes, filler: str) -> bytes:
        return hmac.digest(self._key, facts + filler.encode(), hashlib.sha256)[:_MAC_BYTES]
