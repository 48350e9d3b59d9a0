"""An account is described to people in words."""

from __future__ import annotations

import pytest

from shared.domain.account import describe_account


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (("Acme Ltd", "SANDBOX", "eu1"), "Acme Ltd, sandbox, EU"),
        (("Acme Ltd", "STANDARD", "na2"), "Acme Ltd, North America"),
        (("Acme Ltd", "DEVELOPER_TEST", None), "Acme Ltd, developer test account"),
        ((None, "APP_DEVELOPER", "xx9"), "developer account, xx9"),
        (("Acme Ltd", "A_NEW_KIND", "the moon"), "Acme Ltd, a new kind, the moon"),
        ((None, "STANDARD", None), ""),
        ((None, None, None), ""),
    ],
)
def test_name_type_and_region_are_put_into_words(account: tuple[str | None, ...], words: str) -> None:
    assert describe_account(*account) == words
