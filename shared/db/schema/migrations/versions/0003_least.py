"""What processes with little power need: a value to hold keys against, one bit of a refresh token, fixed search paths.

Revision ID: 0003
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

HERE = Path(__file__).parent


def upgrade() -> None:
    op.get_bind().exec_driver_sql((HERE / "0003_least.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("DROP FUNCTION tokenkeeper.holds_refresh_token")
    op.execute("DROP TABLE tokenkeeper.key_check")
    for name in ("count_in", "count_out", "tell"):
        op.execute(f"ALTER FUNCTION tokenkeeper.{name}() RESET search_path")
