"""How a setting is declared, as a field of a dataclass, and how its text is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar

from shared.settings.parsers import WrongForm

T = TypeVar("T")

MAX_FILE_BYTES = 64 * 1024
QUOTES = "\"'`"


class Process(StrEnum):
    """The processes that read settings; `tokenkeeper` itself asks for those that a command needs."""

    WEB = "web"
    WORKER = "worker"
    BEAT = "beat"
    FLOWER = "Flower"


WEB_AND_WORKER = (Process.WEB, Process.WORKER)
SECONDS_HINT = "seconds, more than 0, at most 86400"


class Source(Enum):
    """Where a setting's value comes from in a deployment on one host: `docker compose`, `make up`."""

    PERSON = "the operator fills it in"
    FIRST_START = "the first start makes one where none is given"
    DEFAULT = "the default does"
    DEPLOYMENT = "the deployment itself sets it"


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable. Error messages, `.env.example` and `docs/settings.md` are made from this."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    hint: str  #: what it should look like
    example: str
    meaning: str  #: Markdown, for docs/settings.md
    required_by: tuple[Process, ...]  #: these do not start without it
    is_secret: bool
    source: Source


class BadSetting(Exception):
    """A variable, what is wrong with it, and what it should look like; never its value."""


class FileTooLarge(ValueError):
    """A file contains more than any setting has."""


def setting(
    name: str,
    parse: Callable[[str], T],
    default: T,
    *,
    hint: str,
    example: str,
    meaning: str,
    required_by: tuple[Process, ...] = (),
    is_secret: bool = False,
    source: Source = Source.DEFAULT,
) -> T:
    """A dataclass field; `default` is the value of a setting that is not required, or not needed here."""
    declared = Setting(name, parse, default, hint, example, meaning, required_by, is_secret, source)
    return field(default=default, repr=not is_secret, metadata={"setting": declared})


def list_declared(settings_class: type) -> dict[str, Setting]:
    """Field's name to setting, in the order of declaration. Other fields of the class are left out."""
    return {each.name: each.metadata["setting"] for each in fields(settings_class) if "setting" in each.metadata}


def read_setting(declared: Setting, environ: Mapping[str, str], *, is_needed: bool) -> Any:
    """Raises BadSetting. The default where it is not set, unless it is needed."""
    text = find_text(declared.name, environ)
    if text:
        return parse_setting(declared, declared.name, text)
    if is_needed:
        raise BadSetting(f"{declared.name} is missing ({declared.hint})")
    return declared.default


def parse_setting(declared: Setting, name: str, text: str) -> Any:
    """Raises BadSetting, which calls the setting `name`."""
    try:
        _refuse_quotes(text)
        return declared.parse(text)
    except WrongForm as error:
        raise BadSetting(f"{name} is malformed: {error} ({declared.hint})") from None
    except (ValueError, OverflowError):
        raise BadSetting(f"{name} is malformed ({declared.hint})") from None


def _refuse_quotes(text: str) -> None:
    """Quotes around a value belong to a shell: `docker run --env-file` and systemd's LoadCredential keep them."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
        raise WrongForm("remove the quotes around it")


def find_text(name: str, environ: Mapping[str, str]) -> str:
    """Of the variable, or of the file that NAME_FILE names; "" where neither is set. Raises BadSetting."""
    path = environ.get(f"{name}_FILE", "").strip()
    if (text := environ.get(name, "").strip()) or not path:
        return text
    return read_text_file(Path(path), f"{name}_FILE", f"a file that holds {name}")


def read_text_file(path: Path, name: str, hint: str) -> str:
    """Without whitespace at its ends. Raises BadSetting, which calls the setting `name`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise FileTooLarge
        return content.decode("utf-8-sig").strip()  # Windows editors begin a file with a byte order mark
    except (OSError, ValueError) as error:
        raise BadSetting(f"{name} cannot be read ({type(error).__name__}: {hint})") from None
