"""What the rest of a handshake has to know of the connect link that began it, encrypted for the way through HubSpot.

It rides in the OAuth state and, until the install is stored, in a cookie: neither shows the customer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.connect_links import ConnectLink
from shared.domain.customer import CustomerClaim
from shared.token_cipher import DecryptionError, TokenCipher

PURPOSE = "connect-link"


@dataclass(frozen=True, slots=True)
class LinkContext:
    claim: CustomerClaim
    name: str | None = None  #: of the customer, for people
    return_to: str | None = None

    @classmethod
    def from_link(cls, link: ConnectLink) -> LinkContext:
        return cls(link.claim, link.name, link.return_to)

    @property
    def shown_name(self) -> str:
        return self.name or self.claim.customer

    def encrypt(self, cipher: TokenCipher) -> str:
        return cipher.encrypt_fields(PURPOSE, self.to_fields())

    def to_fields(self) -> dict[str, Any]:
        return {"c": self.claim.to_fields(), "n": self.name, "r": self.return_to}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> LinkContext:
        return cls(CustomerClaim.from_fields(fields["c"]), fields["n"], fields["r"])


def decrypt_link(cipher: TokenCipher, ciphertext: str) -> LinkContext | None:
    """None where it was encrypted with a key that is not in TOKEN_KEYS any more, or for another purpose."""
    try:
        return LinkContext.from_fields(cipher.decrypt_fields(PURPOSE, ciphertext))
    except DecryptionError:
        return None
