"""The table `items`."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, Numeric, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class ItemRow(Base):
    """An item."""

    __tablename__ = "items"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("char_length(description) <= 10000", name="description_length"),
        # NUMERIC accepts NaN, and NaN is greater than every number: the upper bound refuses it.
        CheckConstraint("price BETWEEN 0 AND 9999999999.99", name="price_range"),
        # For searches.
        Index(
            "ix_items_letter_triples",
            text("letter_triples(name)"),
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 256},
        ),
        # Only for the previous release: the next release drops them, and a new resource gets none.
        # The migration creates this one only if the server has pg_trgm.
        Index(
            "ix_items_name_trgm",
            "name",
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops"},
            postgresql_with={"gin_pending_list_limit": 256},
        ),
        Index(
            "ix_items_letter_pairs",
            text("letter_pairs(name)"),
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 256},
        ),
        # For lists.
        Index("ix_items_is_active_id", "is_active", "id"),
        # For the feed of changes.
        Index("ix_items_updated_at_id", "updated_at", "id"),
        # The functions that statements on this table call, and that some call `nextval` themselves. Readiness checks
        # that the functions exist, and the privileges on them and on the sequence.
        {
            "info": {
                "functions": (
                    "estimated_items(boolean, text)",
                    "letter_pairs(text)",
                    "caseless(text)",
                    "letter_triples(text)",
                    "bounded_items_search(boolean, text, text, bigint)",
                    "writes_complete_until(regclass)",
                    "changed_items(timestamptz, bigint, integer)",
                ),
                "draws_ids": True,
            }
        },
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.statement_timestamp())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.statement_timestamp())
