"""The internal schema `tokenkeeper` and the public schema `hubspot`.

Revision ID: 0001
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

HERE = Path(__file__).parent


def upgrade() -> None:
    for name in ("0001_internal.sql", "0001_public.sql"):
        op.get_bind().exec_driver_sql((HERE / name).read_text(encoding="utf-8"))


def downgrade() -> None:
    """The role hubspot_reader stays: it belongs to the cluster, and other databases may use it."""
    op.execute("DROP SCHEMA hubspot CASCADE")
    op.execute("DROP TABLE tokenkeeper.connections, tokenkeeper.history, tokenkeeper.installs")
    op.execute("DROP TABLE tokenkeeper.provider, tokenkeeper.totals, tokenkeeper.alerts")
    op.execute("DROP FUNCTION tokenkeeper.count_in, tokenkeeper.count_out, tokenkeeper.tell")
