"""Migrations run by `tokenkeeper migrate` alone: Alembic's own command would use neither its locks nor its checks."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config

from shared.db.schema.migrate import MIGRATIONS


def test_alembics_own_command_is_refused_with_the_one_to_run() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with pytest.raises(RuntimeError, match="run migrations with: tokenkeeper migrate"):
        command.upgrade(config, "head")
