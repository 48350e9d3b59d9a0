"""Signatures of webhooks, as Standard Webhooks defines them (www.standardwebhooks.com, specification b2fa7b8)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
#: Of a key, which is what the text after the prefix decodes to.
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
WRONG_FORM = "a secret is whsec_ and Base64 of 24 to 64 bytes"


def decode_secret(secret: str) -> bytes:
    """The HMAC key in `whsec_` and Base64. Raises ValueError."""
    if not secret.startswith(PREFIX):
        raise ValueError(WRONG_FORM)
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(WRONG_FORM) from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(WRONG_FORM)
    return key


def sign_message(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`: a signature per key, so that a secret is replaced without a gap."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
