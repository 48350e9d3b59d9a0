"""Signatures of webhooks: against the vector of the specification."""

from __future__ import annotations

from base64 import b64encode

import pytest

from shared.net.webhook_signature import decode_secret, sign_message

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_vector_of_standard_webhooks_is_signed_as_there() -> None:
    assert sign_message([decode_secret(SECRET)], *MESSAGE) == SIGNATURE


def test_each_of_several_keys_signs() -> None:
    signatures = sign_message([b"k" * 32, decode_secret(SECRET)], *MESSAGE).split(" ")
    assert len(signatures) == 2
    assert signatures[1] == SIGNATURE


@pytest.mark.parametrize(
    "text",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_a plain text, not Base64",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        f"whsec_{b64encode(b'k' * 23).decode()}",
        f"whsec_{b64encode(b'k' * 65).decode()}",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ],
    ids=["no prefix", "empty", "no Base64", "cut off", "too short", "too long", "an asymmetric one"],
)
def test_a_secret_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        decode_secret(text)
