"""Everything about the simulator's behaviour that can be set while it runs, for all accounts or for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sandbox.simulator.access_tokens import SHORTEST

_LENGTHS = range(SHORTEST, 100_001)
#: What a wrong setting is answered with says what a right one looks like.
Check = Callable[[Any], Any]


class BadKnob(Exception):
    """A setting that does not exist or cannot be: the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Times are in seconds. Those of `OF_THE_APP` are the same for all; the others may differ by account."""

    lifetime: float = 1800.0  #: of an access token; `expires_in` is the whole seconds of it
    latency: float | tuple[float, float] = 0.0  #: of every answer; a pair is a range
    token_length: int = 240  #: characters of an access token
    rotation: float | None = None  #: None: refresh tokens stay; else a refresh replaces, and the old dies after so long
    reinstall: str = "same"  #: refresh token of an account that installs again: same, new, new_kills_old
    omit: tuple[str, ...] = ()  #: fields left out of token replies: refresh_token, hub_id, scopes …
    unavailable_scopes: tuple[str, ...] = ()  #: what the account's plan does not include
    uninstall_spares_access_tokens: bool = False
    code_lifetime: float = 300.0
    clock_error: float = 0.0  #: of every date that it sends; negative: its clock is behind
    client_ids: tuple[str, ...] = ("5a1b0c1e-7e57-4000-8000-000000062515",)
    client_secrets: tuple[str, ...] = ("simulated-secret",)
    redirect_uris: tuple[str, ...] = ()  #: empty: any
    required_scopes: tuple[str, ...] = ()  #: an authorize URL without one of them gets an error page
    legacy_errors: bool = False  #: `status` and `message` only, as before January 2026
    bad_client_id_error: str = "invalid_request"  #: the sources disagree: or invalid_client


OF_THE_APP = frozenset(
    (
        "client_ids",
        "client_secrets",
        "redirect_uris",
        "required_scopes",
        "legacy_errors",
        "bad_client_id_error",
        "clock_error",
    )
)


class Panel:
    """The knobs as they stand: reads take no lock, a write swaps whole tables."""

    def __init__(self, knobs: Behaviour) -> None:
        self._first = knobs
        self._base = knobs
        self._own: dict[int, dict[str, Any]] = {}
        self._made: dict[int, Behaviour] = {}

    @property
    def base(self) -> Behaviour:
        return self._base

    def of(self, hub_id: int | None) -> Behaviour:
        """As they apply to one account; None: to a caller that is not known."""
        return self._base if hub_id is None else self._made.get(hub_id, self._base)

    def turn(self, changes: Mapping[str, Any], hub_id: int | None = None) -> None:
        """For all, or for one account. Raises BadKnob, and then nothing is changed."""
        checked = {name: _checked(name, value) for name, value in changes.items()}
        if hub_id is None:
            self._base = replace(self._base, **checked)
        else:
            if shared := OF_THE_APP & checked.keys():
                raise BadKnob(f"the same for every account: {', '.join(sorted(shared))}")
            self._own = {**self._own, hub_id: {**self._own.get(hub_id, {}), **checked}}
        self._make()

    def give_back(self, hub_id: int) -> None:
        """The account has no settings of its own any more."""
        self._own = {hub: own for hub, own in self._own.items() if hub != hub_id}
        self._make()

    def reset(self) -> None:
        """As the simulator was started."""
        self._base, self._own = self._first, {}
        self._make()

    def shown(self) -> dict[str, Any]:
        """As JSON, the secrets hidden."""
        common = {**asdict(self._base), "client_secrets": ["hidden" for _ in self._base.client_secrets]}
        return {"all": common, "by_hub": {str(hub): own for hub, own in self._own.items()}}

    def _make(self) -> None:
        self._made = {hub: replace(self._base, **own) for hub, own in self._own.items()}


def _checked(name: str, value: Any) -> Any:
    check = _CHECKS.get(name)
    if check is None:
        raise BadKnob(f"no such setting: {name}; there are {', '.join(_CHECKS)}")
    try:
        return check(value)
    except (TypeError, ValueError) as error:
        raise BadKnob(f"{name}: {error}") from None


def seconds(value: Any) -> float:
    """A finite number from 0. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number of seconds, such as 2 or 0.5")  # noqa: TRY004 callers tell one story
    if not (math.isfinite(value) and 0 <= value <= 10**9):
        raise ValueError("a number of seconds from 0")
    return float(value)


def _offset(value: Any) -> float:
    """As `seconds`, to either side."""
    negative = isinstance(value, int | float) and value < 0
    return -seconds(-value) if negative else seconds(value)


def _lifetime(value: Any) -> float:
    if seconds(value) < 1:
        raise ValueError("1 second or more: expires_in counts whole seconds")
    return seconds(value)


def _latency(value: Any) -> float | tuple[float, float]:
    if not isinstance(value, list | tuple):
        return seconds(value)
    shortest, longest = (seconds(each) for each in value)
    if shortest > longest:
        raise ValueError("the shorter one first")
    return shortest, longest


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _LENGTHS:
        raise ValueError(f"a number of characters from {_LENGTHS[0]} to {_LENGTHS[-1]}")
    return value


def _rotation(value: Any) -> float | None:
    return None if value is None else seconds(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 the caller turns both into one answer
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and word for word in value):
        raise ValueError("a list of words")
    return tuple(value)


def _some_words(value: Any) -> tuple[str, ...]:
    if not _words(value):
        raise ValueError("a list of one word or more")
    return _words(value)


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return check


_CHECKS: dict[str, Check] = {
    "lifetime": _lifetime,
    "latency": _latency,
    "token_length": _length,
    "rotation": _rotation,
    "reinstall": _one_of("same", "new", "new_kills_old"),
    "omit": _words,
    "unavailable_scopes": _words,
    "uninstall_spares_access_tokens": _flag,
    "code_lifetime": seconds,
    "clock_error": _offset,
    "client_ids": _some_words,
    "client_secrets": _some_words,
    "redirect_uris": _words,
    "required_scopes": _words,
    "legacy_errors": _flag,
    "bad_client_id_error": _one_of("invalid_request", "invalid_client"),
}
