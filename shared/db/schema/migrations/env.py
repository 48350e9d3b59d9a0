"""Alembic's way in: migrates over the connection that shared/db/schema/migrate.py hands it, in its transaction."""

from alembic import context

from shared.db.schema.tables import SCHEMA, metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run migrations with: tokenkeeper migrate")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
