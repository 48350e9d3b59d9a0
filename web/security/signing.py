"""How values are signed that a browser sends back: states, install cookies and CSRF tokens."""

from __future__ import annotations

import hashlib
from datetime import timedelta

#: The clocks of two web hosts may differ by this much.
MAX_CLOCK_SKEW = timedelta(minutes=1)
#: For every URLSafeSerializer. Each has a salt of its own, so that a value made for one purpose fails for another.
SIGNER_OPTIONS = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


def digest_identifier(text: str) -> str:
    """Stands for a browser's identifier, or for an address, in what is signed and leaves this site."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
