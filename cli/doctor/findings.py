"""What a check of `tokenkeeper doctor` finds, and how checks run: each on the settings that it needs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from shared.db.core.errors import SchemaError, StoreError
from shared.settings import REQUIRED, Settings, SettingsError
from shared.settings.apps_file import APP_VARIABLES, FILE_VARIABLE


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    #: Not checked, because something that it depends on fails.
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    about: str
    what: str


class CheckFailed(Exception):
    """What is wrong, and what to do."""


Result = str | tuple[Level, str]  #: without a level it is `ok`


@dataclass(frozen=True, slots=True)
class Check:
    about: str
    run: Callable[[], Result]  #: raises CheckFailed, SettingsError, SchemaError or StoreError
    is_prerequisite: bool = False  #: where it fails, the checks after it are skipped


def run_checks(*checks: Check) -> Iterator[Finding]:
    failed = ""
    for check in checks:
        if failed:
            yield Finding(Level.SKIP, check.about, f"not checked: first correct: {failed}")
            continue
        try:
            result = check.run()
        except (CheckFailed, SettingsError, SchemaError, StoreError) as error:
            if check.is_prerequisite:
                failed = check.about
            yield Finding(Level.FAIL, check.about, str(error))
        else:
            level, what = (Level.OK, result) if isinstance(result, str) else result
            yield Finding(level, check.about, what)


def load(environ: Mapping[str, str], *names: str) -> Settings:
    """These settings alone, so that a bad one elsewhere does not matter. Raises SettingsError."""
    wanted = set(names)
    if wanted & {FILE_VARIABLE, *(each.name for each in APP_VARIABLES.values())}:
        wanted |= {FILE_VARIABLE, "HUBSPOT_APP_URL"}  # these say which apps there are, and which redirect URIs work
    known = {name: value for name, value in environ.items() if {name, name.removesuffix("_FILE")} & wanted}
    return Settings.from_env(known, needs=[name for name in names if name in REQUIRED])


def read_host_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  this host's clock is what is checked
