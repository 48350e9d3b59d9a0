"""An operator's desk: the pages of one site, in browsers that know the password."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Locator, Page, expect

PHONE = {"viewport": {"width": 375, "height": 740}}
NO_SCRIPT = {"java_script_enabled": False}


@dataclass(frozen=True, slots=True)
class Desk:
    url: str
    password: str = field(repr=False)
    open_page: Callable[..., Page]

    def sit_down(self, path: str = "/operator", **options: Any) -> Page:
        """A browser of its own on that page."""
        page = self.browser(**options)
        page.goto(path)
        return page

    def browser(self, **options: Any) -> Page:
        """It knows the password, and is nowhere yet."""
        known = {"username": "operator", "password": self.password}
        return self.open_page(base_url=self.url, http_credentials=known, **options)


def headline(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def account_links(page: Page) -> Locator:
    return page.get_by_role("rowheader").get_by_role("link")
