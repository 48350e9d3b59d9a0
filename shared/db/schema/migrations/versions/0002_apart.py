"""Accounts apart from the connections' hot rows, counts of refreshes beside them, indexes to list and prune by.

Revision ID: 0002
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"

HERE = Path(__file__).parent


def upgrade() -> None:
    _run("0002_apart.sql")


def downgrade() -> None:
    _run("0002_apart_down.sql")


def _run(name: str) -> None:
    op.get_bind().exec_driver_sql((HERE / name).read_text(encoding="utf-8"))
