"""The first revision: the internal schema `tokenkeeper` and the public schema `hubspot`.

Revisions 0001 to 0003 were those of 0.1.0. shared/db/schema/migrate.py brings its databases to this one with
upgrade_from_0_1.sql (docs/adr/0015).

Revision ID: 0004
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = None


def upgrade() -> None:
    for name in ("0004_internal.sql", "0004_public.sql"):
        op.get_bind().exec_driver_sql(Path(__file__).with_name(name).read_text(encoding="utf-8"))
