"""An engine that was disposed of, as at the end of a command, while a thread still uses it."""

from __future__ import annotations

import pytest

from shared.db.core.engine import connect, make_engine
from shared.db.core.errors import StoreUnavailable, translate_errors


def test_an_engine_that_was_disposed_of_opens_no_connection() -> None:
    engine = make_engine("postgresql://user@127.0.0.1:1/database")
    with pytest.raises(StoreUnavailable, match="connection refused"), translate_errors():
        connect(engine)
    engine.dispose()
    with pytest.raises(StoreUnavailable, match="the connection broke"), translate_errors():
        connect(engine)
