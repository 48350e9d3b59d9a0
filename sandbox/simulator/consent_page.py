"""Reads the consent page as a script that answers it has to."""

from __future__ import annotations

from html.parser import HTMLParser


class ConsentPage(HTMLParser):
    """The consent page's form, or the text of its error page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.has_form = False
        self.action = ""
        self.fields: dict[str, str] = {}
        self.problem = ""
        self._in_problem = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.has_form, self.action = True, attributes.get("action", "")
        elif tag == "input" and attributes.get("type") == "hidden":
            self.fields[attributes["name"]] = attributes.get("value", "")
        self._in_problem = attributes.get("id") == "problem"

    def handle_data(self, data: str) -> None:
        if self._in_problem:
            self.problem += data

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 the base class asks
        self._in_problem = False
