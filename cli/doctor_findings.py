"""What a check of `tokenkeeper doctor` may find, and how checks are made one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from shared.db.core.errors import SchemaError, StoreError
from shared.settings import SettingsError


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    #: Not looked at, because something that it rests on fails.
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    about: str
    what: str


Said = str | tuple[Level, str]  #: what is found; without a level all is well
#: What it is about, how to look, and whether what comes after rests on it.
Check = tuple[str, Callable[[], Said], bool]


class Fails(Exception):
    """What is wrong, and what to do."""


def in_turn(*checks: Check) -> Iterator[Finding]:
    """Each check is made when its finding is asked for; what rests on one that fails is left out."""
    broken = ""
    for about, look, ground in checks:
        if broken:
            yield Finding(Level.SKIP, about, f"not looked at: mend first: {broken}")
            continue
        finding = _looked(about, look)
        yield finding
        if ground and finding.level is Level.FAIL:
            broken = about


def _looked(about: str, look: Callable[[], Said]) -> Finding:
    try:
        said = look()
    except (Fails, SettingsError, SchemaError, StoreError) as error:
        return Finding(Level.FAIL, about, str(error))
    level, what = (Level.OK, said) if isinstance(said, str) else said
    return Finding(level, about, what)
