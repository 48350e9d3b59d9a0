"""The files that `make docs` makes from the code are what it would make now, and their examples work."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from shared.settings import DECLARED, Settings
from tests.support.environment import ROOT
from tools.generated_docs import generate


@pytest.mark.parametrize("path", [".env.example", "docs/settings.md", "docs/command.md"])
def test_a_generated_file_is_what_make_docs_writes(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == generate()[path], "run: make docs"


def test_the_example_of_every_setting_is_one_that_it_accepts() -> None:
    examples = {declared.name: declared.example for declared in DECLARED.values()}
    examples["TOKEN_KEYS"] = Fernet.generate_key().decode()
    del examples["HUBSPOT_APPS_FILE"]  # a path, and instead of the variables of one app
    Settings.from_env(examples, needs=examples)
