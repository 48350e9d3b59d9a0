"""A failed audit shows what the product's processes said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.house import House, kept_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with kept_house(tmp_path_factory.mktemp("audit")) as made:
        yield made
