"""Every stored error has a description."""

import pytest

from shared.hubspot.response_parsing import ERROR_CLASSIFICATION, STATUS_CLASSIFICATION
from web.admin.error_descriptions import DESCRIPTIONS, describe_error

#: CodeRejected ends a handshake; it is never stored for a connection.
STORED_CODES = [code for code, error in ERROR_CLASSIFICATION.items() if error.__name__ != "CodeRejected"]


@pytest.mark.parametrize("code", [*STORED_CODES, *(code for _, code in STATUS_CLASSIFICATION.values())])
def test_every_known_code_has_a_description_of_its_own(code):
    assert describe_error(code) != DESCRIPTIONS["unrecognised"]
    assert describe_error(f"{code} (HTTP 400)") == describe_error(code)


@pytest.mark.parametrize("error", ["", "NEW", "two words", "x" * 5000, "\x00", "BAD_HUB (HTTP 4000)"])
def test_any_other_error_is_described_as_an_unknown_refusal(error):
    assert describe_error(error) == "HubSpot refused with a code that this version does not know"
