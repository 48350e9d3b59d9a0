"""The system's own Chromium, driven by hand: where there is none, these tests say so and are skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"browser tests need Chromium: none of {', '.join(NAMES)} is on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A page of a browser of its own; cookies are not shared."""
    contexts = []

    def opened(**options):
        context = chromium.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        return context.new_page()

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def shot(tmp_path: Path):
    """Leaves a picture of the page in the test's folder."""

    def take(page, *name):
        page.screenshot(path=tmp_path / f"{'-'.join(map(str, name))}.png", full_page=True)

    return take
