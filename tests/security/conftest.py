"""A failed audit shows the output of the product's processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.audit import Audit, start_audit


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audit]:
    with start_audit(tmp_path_factory.mktemp("audit")) as made:
        yield made
