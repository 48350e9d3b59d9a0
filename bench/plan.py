"""How much of what a run measures. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

SMALL_SIZE = 10_000
#: The sizes that SIZE accepts. Fewer rows are refreshed too often to be compared; more take a day to store.
MIN_SIZE, MAX_SIZE = 100_000, 100_000_000
#: Of a malformed SIZE.
SHOWN_CHARACTERS = 40


class InvalidSize(Exception):
    """The message says what is wrong and what is expected."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`large_size` is compared with 10,000 connections; `late_…` is for lateness.

    `is_growth`: only the cost and the lateness are measured, at both sizes and at the large one.
    """

    large_size: int
    runs: int
    warm_up_seconds: float
    seconds: float
    bare_warm_up_seconds: float
    bare_seconds: float
    task_seconds: float
    late_warm_up_seconds: float
    late_seconds: float
    two_apps_runs: int
    two_apps_seconds: float
    read_runs: int
    read_seconds: int
    installs: int  #: in a run
    rest_settle_seconds: float
    rest_seconds: float
    is_quick: bool = False
    is_growth: bool = False


QUICK = Plan(
    large_size=100_000, runs=1, warm_up_seconds=1, seconds=3, bare_warm_up_seconds=0, bare_seconds=2, task_seconds=1.5,
    late_warm_up_seconds=1, late_seconds=2.5, two_apps_runs=1, two_apps_seconds=3, read_runs=1, read_seconds=1,
    installs=5, rest_settle_seconds=3, rest_seconds=3, is_quick=True,
)  # fmt: skip
FULL = Plan(
    large_size=1_000_000, runs=3, warm_up_seconds=4, seconds=12, bare_warm_up_seconds=1, bare_seconds=8, task_seconds=6,
    late_warm_up_seconds=4, late_seconds=15, two_apps_runs=3, two_apps_seconds=6, read_runs=3, read_seconds=2,
    installs=25, rest_settle_seconds=10, rest_seconds=20,
)  # fmt: skip
#: Windows of one run, where starting again would take longer than measuring: of lateness, rest, tasks and installs.
WINDOWS = 3


def make_growth_plan(size: int) -> Plan:
    return Plan(
        large_size=size, runs=3, warm_up_seconds=4, seconds=12, bare_warm_up_seconds=0, bare_seconds=0, task_seconds=0,
        late_warm_up_seconds=10, late_seconds=20, two_apps_runs=0, two_apps_seconds=0, read_runs=0, read_seconds=0,
        installs=0, rest_settle_seconds=0, rest_seconds=0, is_growth=True,
    )  # fmt: skip


def parse_size(text: str) -> int:
    """Raises InvalidSize."""
    try:
        size = int(text)
    except ValueError:
        size = 0
    if not MIN_SIZE <= size <= MAX_SIZE:
        expected = f"SIZE is a number of connections from {MIN_SIZE} to {MAX_SIZE}, such as 10000000"
        raise InvalidSize(f"{expected}; not {text[:SHOWN_CHARACTERS]!r}")
    return size
