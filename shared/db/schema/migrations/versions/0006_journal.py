"""The third revision: where the reading of HubSpot's journal stands, and the uninstalls that it reported.

Revision ID: 0006
Revises: 0005
"""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_name("0006_journal.sql").read_text(encoding="utf-8"))
