"""Hands on the keyboard: what the Tab key reaches, and whether one sees where it is."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

#: What the Tab key has to reach, in this order.
REACHED = "a[href], button, input:not([type=hidden]), summary, [tabindex='0']"
STEP = """selector => {
  const all = [...document.querySelectorAll(selector)].filter(each => each.checkVisibility());
  const style = getComputedStyle(document.activeElement);
  return {place: all.indexOf(document.activeElement), of: all.length, outlined: style.outlineStyle !== "none"};
}"""


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tab_to(page: Page, target: Locator) -> None:
    expect(target).to_be_visible()
    for _ in range(50):
        if target.evaluate("each => each === document.activeElement"):
            return
        press(page, "Tab")
    pytest.fail(f"the Tab key does not lead to {target}")


def tour(page: Page) -> None:
    """From the page's beginning: Tab reaches everything that can be used, in its order, and it is seen each time."""
    steps = []
    while not steps or len(steps) < steps[0]["of"]:
        press(page, "Tab")
        steps.append(page.evaluate(STEP, REACHED))
    assert [step["place"] for step in steps] == list(range(len(steps)))
    assert all(step["outlined"] for step in steps)
