"""Alembic's environment: migrates over the connection and in the transaction of shared/db/schema/migrate.py."""

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
