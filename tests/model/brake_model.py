"""The expected state of the revocation brake."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.time_range import TimeRange

#: With as few connections as in this test, this many may become revoked within this many seconds.
MAX_REVOCATIONS, WINDOW_SECONDS = 10, 600.0


@dataclass(slots=True)
class BrakeModel:
    since: TimeRange | None = None  #: None: off
    revoked_at: list[TimeRange] = field(default_factory=list)  #: when connections became revoked
    dismissals: int = 0

    def allow_revocation(self, at: TimeRange) -> bool:
        """Whether one more may become revoked now. The first that may not turns the brake on."""
        recent = [when for when in self.revoked_at if when.plus(WINDOW_SECONDS).earliest > at.latest]
        if self.since is None and len(recent) < MAX_REVOCATIONS:
            self.revoked_at.append(at)
            return True
        self.since = self.since or at
        return False

    def list_end_times(self) -> list[TimeRange]:
        """When revocations stop to count."""
        return [when.plus(WINDOW_SECONDS) for when in self.revoked_at]

    def confirm(self) -> None:
        self.since = None

    def dismiss(self) -> None:
        """The count starts again, and no revocation that was claimed before is saved."""
        self.since = None
        self.revoked_at.clear()
        self.dismissals += 1
