import importlib
import sys

import pytest

from shared.optional_imports import hide_optional

#: Of the standard library, and imported by nothing here.
RARE = "this"


def test_a_hidden_library_looks_as_if_it_were_not_installed_until_the_end_of_the_block() -> None:
    with hide_optional(RARE), pytest.raises(ModuleNotFoundError):
        importlib.import_module(RARE)
    assert RARE not in sys.modules


def test_a_library_that_is_imported_already_stays() -> None:
    with hide_optional("json"):
        assert importlib.import_module("json") is sys.modules["json"]
    assert sys.modules["json"] is not None
