"""Using a page by the keyboard alone: what the Tab key reaches, and whether the focus is visible."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

#: What the Tab key has to reach, in the order of the document.
FOCUSABLE = "a[href], button, input:not([type=hidden]), summary, [tabindex='0']"
READ_FOCUS = """selector => {
  const all = [...document.querySelectorAll(selector)].filter(each => each.checkVisibility());
  const style = getComputedStyle(document.activeElement);
  return {index: all.indexOf(document.activeElement), count: all.length, hasOutline: style.outlineStyle !== "none"};
}"""
MAX_TABS = 50


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tab_to(page: Page, target: Locator) -> None:
    expect(target).to_be_visible()
    for _ in range(MAX_TABS):
        if target.evaluate("each => each === document.activeElement"):
            return
        press(page, "Tab")
    pytest.fail(f"the Tab key does not reach {target}")


def read_focus_of_every_tab(page: Page) -> list[dict[str, int | bool]]:
    """After each Tab from the beginning of the page: the focused element's index, and whether it has an outline."""
    steps: list[dict[str, int | bool]] = []
    while not steps or len(steps) < steps[0]["count"]:
        press(page, "Tab")
        steps.append(page.evaluate(READ_FOCUS, FOCUSABLE))
    return steps


def assert_tab_order(page: Page) -> None:
    """The Tab key reaches every focusable element in its order, and the focus is visible each time."""
    steps = read_focus_of_every_tab(page)
    assert [step["index"] for step in steps] == list(range(len(steps)))
    assert all(step["hasOutline"] for step in steps)
