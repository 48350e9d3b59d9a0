"""A running site, and pages of it in browsers that know the operator's password."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from playwright.sync_api import Locator, Page, expect

from shared.db.core.engine import make_engine
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

PHONE = {"viewport": {"width": 375, "height": 740}}
NO_SCRIPT = {"java_script_enabled": False}
DARK = {"color_scheme": "dark"}


@dataclass(frozen=True, slots=True)
class Site:
    url: str
    password: str = field(repr=False)
    database_url: str = field(repr=False)  #: the superuser's


@dataclass(frozen=True, slots=True)
class AdminBrowser:
    """Opens the operator's pages. The pages of a test share no cookies."""

    url: str
    password: str = field(repr=False)
    open_page: Callable[..., Page]

    def open(self, path: str = "/operator", **options: Any) -> Page:
        page = self.new_page(**options)
        page.goto(path)
        return page

    def new_page(self, **options: Any) -> Page:
        """A blank page that sends the password with every request.

        With the option `http_credentials` Playwright interrupts every request: that takes CPU time.
        """
        login = b64encode(f"operator:{self.password}".encode()).decode()
        return self.open_page(base_url=self.url, extra_http_headers={"Authorization": f"Basic {login}"}, **options)


@contextmanager
def open_sql(database_url: str, *, autocommit: bool = True) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(database_url)
    connection.autocommit = autocommit
    try:
        yield SqlFixture(connection)
    finally:
        connection.close()


@contextmanager
def open_connections(database_url: str, sql: SqlFixture) -> Iterator[ConnectionFixture]:
    engine = make_engine(database_url)
    try:
        yield ConnectionFixture(Stores(engine, lease_seconds=60), sql)
    finally:
        engine.dispose()


def expect_heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def account_links(page: Page) -> Locator:
    return page.get_by_role("rowheader").get_by_role("link")
