"""What works once: connect links, and the states of Marketplace installs (docs/adr/0034, 0035).

Revision ID: 0007
Revises: 0006
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_name("0007_single_uses.sql").read_text(encoding="utf-8"))
