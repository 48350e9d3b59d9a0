"""The history in the order of commitment, and the delivery of events to our own product (docs/adr/0037).

Revision ID: 0008
Revises: 0007
"""

from pathlib import Path

from alembic import context, op

from shared.db.schema.online import run_in_transaction

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    if not context.config.attributes["is_prepared"]:
        run_in_transaction(op.get_bind(), revision)
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
