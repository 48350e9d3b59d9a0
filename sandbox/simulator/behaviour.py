"""Every setting of the simulator's behaviour that can change while it runs: for all, for one app or for one account."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sandbox.simulator.access_tokens import MIN_TOKEN_CHARACTERS
from sandbox.simulator.records import JOURNAL_SCOPES

_TOKEN_LENGTHS = range(MIN_TOKEN_CHARACTERS, 100_001)
#: Returns the value as it is stored. Raises TypeError or ValueError, with a text that describes a valid value.
Parser = Callable[[Any], Any]


class InvalidBehaviour(Exception):
    """An unknown setting or an invalid value: the message describes a valid one."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Times are in seconds. Those of `APP_SETTINGS` cannot differ by account, those of `SHARED_SETTINGS` by nothing."""

    lifetime: float = 1800.0  #: of an access token; `expires_in` is the whole seconds of it
    latency: float | tuple[float, float] = 0.0  #: of every answer; a pair is a range
    token_length: int = 240  #: characters of an access token
    #: None: a refresh keeps the refresh token. Else it issues a new one, and the old one stays valid for so long.
    rotation: float | None = None
    reinstall: str = "same"  #: refresh token of an account that installs again: same, new, new_kills_old
    #: fields left out of token replies and account information: refresh_token, hub_id, user_id, portalName …
    omit: tuple[str, ...] = ()
    unavailable_scopes: tuple[str, ...] = ()  #: what the account's plan does not include
    uninstall_spares_access_tokens: bool = False
    code_lifetime: float = 300.0
    clock_error: float = 0.0  #: added to every date that it sends; negative: its clock is behind
    client_ids: tuple[str, ...] = (
        "5a1b0c1e-7e57-4000-8000-000000062515",
    )  #: of the apps without settings of their own
    client_secrets: tuple[str, ...] = ("simulated-secret",)
    redirect_uris: tuple[str, ...] = ()  #: empty: any
    required_scopes: tuple[str, ...] = ()  #: an authorize URL without one of them gets an error page
    legacy_errors: bool = False  #: `status` and `message` only, as before January 2026
    bad_client_id_error: str = "invalid_request"  #: or invalid_client: the sources disagree
    user_level: bool = False  #: each user of an account has a grant of their own; `user_id` is in token replies
    journal_scopes: tuple[str, ...] = JOURNAL_SCOPES  #: that the app can get; a request for others is refused
    journal_delay: float = 0.0  #: from an event to the file that has it
    journal_file_events: int = 10_000  #: in one file at most
    journal_retention: float = 259_200.0  #: of a file
    journal_url_lifetime: float = 300.0  #: of the signed URL of a file
    journal_file_url: str = ""  #: where those URLs lead instead of to the simulator: http://169.254.169.254 …
    journal_lost_offset: str = "404"  #: status for an offset that does not exist: 404, 400 or 204
    journal_empty: str = "204"  #: status where nothing newer is there: 204 or 200


#: The same for all apps and accounts.
SHARED_SETTINGS = frozenset(("client_ids", "clock_error", "bad_client_id_error"))
APP_SETTINGS = frozenset(
    (
        "client_ids",
        "client_secrets",
        "redirect_uris",
        "required_scopes",
        "legacy_errors",
        "bad_client_id_error",
        "clock_error",
        "user_level",
        "journal_scopes",
        "journal_delay",
        "journal_file_events",
        "journal_retention",
        "journal_url_lifetime",
        "journal_file_url",
        "journal_lost_offset",
        "journal_empty",
    )
)


class BehaviourSettings:
    """The behaviour for all, and what differs for one app or one account. An account's settings win over an app's.

    Reads take no lock: a change replaces whole tables.
    """

    def __init__(self, initial: Behaviour, initial_by_app: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """`initial_by_app`: what differs for further apps, by client id. Raises InvalidBehaviour."""
        self._initial = initial
        self._initial_by_app = dict(initial_by_app or {})
        self._common = initial
        self._by_app: dict[str, dict[str, Any]] = {}
        self._by_hub: dict[int, dict[str, Any]] = {}
        self._merged_by_app: dict[str, Behaviour] = {}
        self.reset()

    @property
    def common(self) -> Behaviour:
        return self._common

    def is_app(self, client_id: str | None) -> bool:
        return client_id in self._by_app or client_id in self._common.client_ids

    def list_client_ids(self) -> list[str]:
        return list(dict.fromkeys((*self._common.client_ids, *self._by_app)))

    def find(self, client_id: str | None, hub_id: int | None = None) -> Behaviour:
        """None: for a caller that is not known."""
        behaviour = self._merged_by_app.get(client_id or "", self._common)
        changes = self._by_hub.get(hub_id or 0)
        return replace(behaviour, **changes) if changes else behaviour

    def change(self, changes: Mapping[str, Any], hub_id: int | None = None, client_id: str | None = None) -> None:
        """For all, for one account, or for one app, which is created where it does not exist.

        Raises InvalidBehaviour, and then nothing is changed.
        """
        parsed = {name: _parse(name, value) for name, value in changes.items()}
        if hub_id is not None:
            _refuse(APP_SETTINGS | SHARED_SETTINGS, parsed, "account")
            self._by_hub = {**self._by_hub, hub_id: {**self._by_hub.get(hub_id, {}), **parsed}}
        elif client_id is not None:
            _refuse(SHARED_SETTINGS, parsed, "app")
            self._by_app = {**self._by_app, client_id: {**self._by_app.get(client_id, {}), **parsed}}
        else:
            self._common = replace(self._common, **parsed)
        self._merge()

    def remove_account(self, hub_id: int) -> None:
        """The account's own settings; the common ones hold for it again."""
        self._by_hub = {hub: changes for hub, changes in self._by_hub.items() if hub != hub_id}

    def remove_app(self, client_id: str) -> None:
        """The app's own settings; unless it is one of `client_ids`, it no longer exists."""
        self._by_app = {app: changes for app, changes in self._by_app.items() if app != client_id}
        self._merge()

    def reset(self) -> None:
        """Back to the settings that the simulator was started with."""
        self._common, self._by_app, self._by_hub = self._initial, {}, {}
        self._merge()
        for client_id, changes in self._initial_by_app.items():
            self.change(changes, client_id=client_id)

    def to_json(self) -> dict[str, Any]:
        """The secrets are hidden."""
        return {
            "all": _hide_secrets(asdict(self._common)),
            "by_app": {client_id: _hide_secrets(changes) for client_id, changes in self._by_app.items()},
            "by_hub": {str(hub): changes for hub, changes in self._by_hub.items()},
        }

    def _merge(self) -> None:
        self._merged_by_app = {app: replace(self._common, **changes) for app, changes in self._by_app.items()}


def _refuse(names: frozenset[str], changes: Mapping[str, Any], where: str) -> None:
    """Raises InvalidBehaviour."""
    if shared := names & changes.keys():
        raise InvalidBehaviour(f"the same for every {where}: {', '.join(sorted(shared))}")


def _hide_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"client_secrets": ["hidden" for _ in settings.get("client_secrets", ())]}
    return {**settings, **(hidden if "client_secrets" in settings else {})}


def parse_seconds(value: Any) -> float:
    """A finite number from 0. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number of seconds, such as 2 or 0.5")  # noqa: TRY004 callers handle one error
    if not (math.isfinite(value) and 0 <= value <= 10**9):
        raise ValueError("a number of seconds from 0")
    return float(value)


def _parse(name: str, value: Any) -> Any:
    parser = _PARSERS.get(name)
    if parser is None:
        raise InvalidBehaviour(f"no such setting: {name}; there are {', '.join(_PARSERS)}")
    try:
        return parser(value)
    except (TypeError, ValueError) as error:
        raise InvalidBehaviour(f"{name}: {error}") from None


def _parse_offset(value: Any) -> float:
    """Like parse_seconds, but negative too."""
    is_negative = isinstance(value, int | float) and value < 0
    return -parse_seconds(-value) if is_negative else parse_seconds(value)


def _parse_lifetime(value: Any) -> float:
    if parse_seconds(value) < 1:
        raise ValueError("1 second or more: expires_in counts whole seconds")
    return parse_seconds(value)


def _parse_latency(value: Any) -> float | tuple[float, float]:
    if not isinstance(value, list | tuple):
        return parse_seconds(value)
    shortest, longest = (parse_seconds(each) for each in value)
    if shortest > longest:
        raise ValueError("the shorter one first")
    return shortest, longest


def _parse_length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _TOKEN_LENGTHS:
        raise ValueError(f"a number of characters from {_TOKEN_LENGTHS[0]} to {_TOKEN_LENGTHS[-1]}")
    return value


def _parse_rotation(value: Any) -> float | None:
    return None if value is None else parse_seconds(value)


def _parse_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 callers handle one error
    return value


def _parse_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number from 1")
    return value


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")  # noqa: TRY004 callers handle one error
    return value


def _parse_words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and word for word in value):
        raise ValueError("a list of words")
    return tuple(value)


def _parse_one_or_more_words(value: Any) -> tuple[str, ...]:
    if not _parse_words(value):
        raise ValueError("a list of one word or more")
    return _parse_words(value)


def _make_choice_parser(*choices: str) -> Parser:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return str(value)

    return parse


_PARSERS: dict[str, Parser] = {
    "lifetime": _parse_lifetime,
    "latency": _parse_latency,
    "token_length": _parse_length,
    "rotation": _parse_rotation,
    "reinstall": _make_choice_parser("same", "new", "new_kills_old"),
    "omit": _parse_words,
    "unavailable_scopes": _parse_words,
    "uninstall_spares_access_tokens": _parse_flag,
    "code_lifetime": parse_seconds,
    "clock_error": _parse_offset,
    "client_ids": _parse_one_or_more_words,
    "client_secrets": _parse_one_or_more_words,
    "redirect_uris": _parse_words,
    "required_scopes": _parse_words,
    "legacy_errors": _parse_flag,
    "bad_client_id_error": _make_choice_parser("invalid_request", "invalid_client"),
    "user_level": _parse_flag,
    "journal_scopes": _parse_words,
    "journal_delay": parse_seconds,
    "journal_file_events": _parse_count,
    "journal_retention": parse_seconds,
    "journal_url_lifetime": parse_seconds,
    "journal_file_url": _parse_text,
    "journal_lost_offset": _make_choice_parser("404", "400", "204"),
    "journal_empty": _make_choice_parser("204", "200"),
}
