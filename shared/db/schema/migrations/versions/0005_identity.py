"""The second revision: the identity of a connection is (app, hub_id, user_id), and its key `id` (docs/adr/0033).

Of a database in use, shared/db/schema/online.py has done the steps of 0005_prepare.sql before.

Revision ID: 0005
Revises: 0004
"""

from pathlib import Path

from alembic import context, op

from shared.db.schema.online import run_in_transaction

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if not context.config.attributes["is_prepared"]:
        run_in_transaction(op.get_bind(), revision)
    op.get_bind().exec_driver_sql(Path(__file__).with_name("0005_identity.sql").read_text(encoding="utf-8"))
