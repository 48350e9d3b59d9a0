"""How the revocation brake must stand: what it has counted, and since when it is on."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.spans import Span

#: As few connections as there are here, so many may become revoked within so many seconds.
ALLOWED, WINDOW = 10, 600.0


@dataclass(slots=True)
class BrakeBook:
    since: Span | None = None  #: None: it is off
    counted: list[Span] = field(default_factory=list)  #: when connections became revoked
    dismissals: int = 0

    def lets_pass(self, at: Span) -> bool:
        """Whether one more may become revoked now; the first that may not pulls the brake."""
        lately = [when for when in self.counted if when.plus(WINDOW).earliest > at.latest]
        if self.since is None and len(lately) < ALLOWED:
            self.counted.append(at)
            return True
        self.since = self.since or at
        return False

    def ends(self) -> list[Span]:
        """When those that count cease to."""
        return [when.plus(WINDOW) for when in self.counted]

    def confirmed(self) -> None:
        self.since = None

    def dismissed(self) -> None:
        """The count starts anew, and no verdict of before is heard."""
        self.since = None
        self.counted.clear()
        self.dismissals += 1
