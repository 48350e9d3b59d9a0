"""Marks: texts in every secret of a run, and a search that finds them in every encoding."""

from __future__ import annotations

import secrets
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Characters. None of the 62^8 marks occurs by chance in a few hundred megabytes.
LENGTH = 8
LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Mark:
    kind: str
    text: str

    def forms(self) -> Iterator[bytes]:
        """As it is, in hexadecimal, as UTF-16, and in base64 at each of its three places in a group.

        Percent-encoding and JSON leave letters and digits as they are.
        """
        raw = self.text.encode()
        yield from (raw, raw.hex().encode(), self.text.encode("utf-16-le"), *_in_base64(raw))


def new_mark(kind: str) -> Mark:
    return Mark(kind, "".join(secrets.choice(LETTERS) for _ in range(LENGTH)))


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    place: str
    around: str  #: the text before and after it

    def __str__(self) -> str:
        return f"{self.kind} in {self.place}: …{self.around}…"


class Search:
    """Searches for all marks. Content without one is searched once: most files of a server never change."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._forms = [(mark.kind, form) for mark in marks for form in mark.forms()]
        self._without_marks: set[tuple[int, int]] = set()  #: length and hash

    def find(self, place: str, content: bytes | str) -> list[Finding]:
        """The first finding of each form."""
        raw = content.encode(errors="surrogateescape") if isinstance(content, str) else content
        found: list[Finding] = []
        if (key := (len(raw), hash(raw))) in self._without_marks:
            return found
        for kind, form in self._forms:
            at = raw.find(form)
            if at >= 0:
                found.append(Finding(kind, place, repr(raw[max(0, at - 60) : at + 60])))
        if not found:
            self._without_marks.add(key)
        return found


def _in_base64(raw: bytes) -> set[bytes]:
    """The part of the base64 text that does not depend on the text before and after the mark, in both alphabets."""
    found = set()
    for lead in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(b"\0" * lead + raw + b"\0" * 3)
            first = -(-lead * 8 // 6)  # characters that contain a bit of the text before
            found.add(text[first : (lead + len(raw)) * 8 // 6])
    return found
