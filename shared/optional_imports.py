"""Lets a library be imported without parts that this product does not use, and that are large."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def hide_optional(*modules: str) -> Iterator[None]:
    """In the block these look as if they were not installed, and a library that asks for them does without.

    Later they can be imported. What is imported already stays.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's own mark for it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def import_without(packages: Sequence[str], *libraries: str) -> None:
    """Imports the libraries, which find these packages without content: for what they need in functions alone.

    A name in an empty package is an empty class, or Python's own of that name (TimeoutError). So those functions do
    not work afterwards. What is imported already stays, and other modules can import the packages later. Where a
    library needs more of them while it is imported, it is imported with them.
    """
    known = set(sys.modules)
    empty = _EmptyPackages([name for name in packages if name not in known])
    sys.meta_path.insert(0, empty)
    try:
        _import_all(libraries)
    except Exception:  # noqa: BLE001  whatever another version of a library raises
        for name in set(sys.modules) - known:
            del sys.modules[name]
    finally:
        sys.meta_path.remove(empty)
        for name in [name for name in sys.modules if empty.is_within(name)]:
            del sys.modules[name]
    _import_all(libraries)


def _import_all(libraries: Sequence[str]) -> None:
    for library in libraries:
        importlib.import_module(library)


class _EmptyPackages(MetaPathFinder, Loader):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def is_within(self, name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in self._packages)

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(fullname, self, is_package=True) if self.is_within(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _make_empty


class _Empty:
    """A base class and a generic type, as libraries use the names of a package while they are imported."""

    def __init_subclass__(cls, **_: Any) -> None:
        pass

    def __class_getitem__(cls, _: Any) -> Any:
        return cls


@cache
def _make_empty(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(builtins, name, None) or type(name, (_Empty,), {})
