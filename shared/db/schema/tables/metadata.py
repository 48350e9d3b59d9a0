"""The schema, and the types and defaults that several tables have."""

from __future__ import annotations

from sqlalchemy import MetaData, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

SCHEMA = "tokenkeeper"

metadata = MetaData(schema=SCHEMA)
INSTANT = TIMESTAMP(timezone=True)
APP = Text(collation="C")
DEFAULT_APP = text("'default'")
