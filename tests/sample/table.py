"""The table `samples`. No migration makes it, so it has a `MetaData` of its own."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Float, Identity, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.schema import CreateTable

from app.models import Base

samples = Table(
    "samples",
    MetaData(naming_convention=Base.metadata.naming_convention),
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, CheckConstraint("char_length(name) BETWEEN 1 AND 255", name="name_length"), nullable=False),
    Column("description", Text),
    Column("amount", Float(53), CheckConstraint("amount >= 0", name="amount_range")),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
)

CREATE = str(CreateTable(samples).compile(dialect=PGDialect_asyncpg()))
"""The statement that makes the table."""
