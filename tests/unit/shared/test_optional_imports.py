import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.optional_imports import hide_optional, import_without

#: Of the standard library, and imported by nothing here.
RARE = "this"


def test_a_hidden_library_looks_as_if_it_were_not_installed_until_the_end_of_the_block() -> None:
    with hide_optional(RARE), pytest.raises(ModuleNotFoundError):
        importlib.import_module(RARE)
    assert RARE not in sys.modules


def test_a_library_that_is_imported_already_stays() -> None:
    with hide_optional("json"):
        assert importlib.import_module("json") is sys.modules["json"]
    assert sys.modules["json"] is not None


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for libraries; `optional_part` holds the exception Missing and a number."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "optional_part.py").write_text("class Missing(Exception): pass\nNUMBER = 7\n")
    yield tmp_path
    sys.modules.pop("optional_part", None)


def test_a_library_finds_a_package_empty_that_it_needs_in_functions_alone(libraries: Path) -> None:
    (libraries / "uses_in_functions.py").write_text(
        "import optional_part.deeper\nfrom optional_part import Missing, TimeoutError\n"
        "class Special(Missing): pass\nkinds: list[Missing['of', 'any']]\n"
        "version = getattr(optional_part, '__version__', None)\n"
    )
    import_without(("optional_part",), "uses_in_functions")
    library = sys.modules["uses_in_functions"]
    assert library.TimeoutError is TimeoutError, "Python's own exception is caught as before"
    assert not isinstance(ValueError(), library.Missing)
    assert library.version is None
    assert importlib.import_module("optional_part").NUMBER == 7, "others import it"


def test_a_library_that_needs_more_of_a_package_is_imported_with_it(libraries: Path) -> None:
    (libraries / "uses_at_once.py").write_text("import optional_part\nDOUBLE = 2 * optional_part.NUMBER\n")
    import_without(("optional_part",), "uses_at_once")
    assert sys.modules["uses_at_once"].DOUBLE == 14


def test_a_package_that_is_imported_already_is_found_as_it_is(libraries: Path) -> None:
    (libraries / "uses_known.py").write_text("from optional_part import NUMBER\n")
    importlib.import_module("optional_part")
    import_without(("optional_part",), "uses_known")
    assert sys.modules["uses_known"].NUMBER == 7
