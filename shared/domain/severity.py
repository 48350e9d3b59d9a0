"""How serious a state is: the same three levels on the operator's pages and in `tokenkeeper status`."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    GOOD = "good"
    #: It is not as it should be, but it resolves by itself or can wait.
    WAIT = "wait"
    #: The operator has to act.
    BAD = "bad"
