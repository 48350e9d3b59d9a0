"""Every recipe makes a link that is accepted; one whose language is not on the machine says that it did not run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from shared.connect_links import ConnectLinks
from tests.examples.downstream_job import EXAMPLES
from tests.support.environment import inherited_environment

KEY = "a-key-of-32-random-characters-or-more"
URL = "https://connect.example.com"
PRODUCT = "https://app.example.com"
CUSTOMER = "Überfluß & Söhne"
RECIPES = {
    "link.py": [sys.executable],
    "link.mjs": ["node"],
    "link.rb": ["ruby"],
    "link.php": ["php"],
    "link.go": ["go", "run"],
}


def test_there_is_a_recipe_in_each_language() -> None:
    assert sorted(path.name for path in (EXAMPLES / "links").iterdir() if path.is_file()) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_a_link_that_is_accepted(name: str) -> None:
    interpreter = RECIPES[name]
    if shutil.which(interpreter[0]) is None:
        pytest.skip(f"{name} was not run: there is no {interpreter[0]} here")
    environment = inherited_environment() | {"CONNECT_LINK_KEY": KEY, "TOKENKEEPER_URL": URL}
    argv = [*interpreter, str(EXAMPLES / "links" / name), CUSTOMER, f"{PRODUCT}/done?a=b"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=True)
    link = done.stdout.strip()
    assert link.startswith(f"{URL}/connect/")
    now = datetime.now(UTC)
    read = ConnectLinks([KEY], [PRODUCT]).read(link.removeprefix(f"{URL}/connect/"), lambda: now)
    assert read.claim.customer == CUSTOMER
    assert read.return_to == f"{PRODUCT}/done?a=b"
    assert timedelta(minutes=25) < read.claim.link_expires_at - now < timedelta(minutes=35)
    assert len(read.claim.link_id) > 20
